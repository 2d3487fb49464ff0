package fs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/layers"
)

// walkTo looks a path up from the root of the mount.
func walkTo(t testing.TB, f *fileSystem, path string) fuse.EntryOut {
	t.Helper()
	var out fuse.EntryOut
	node := uint64(rootID)
	for name := range strings.SplitSeq(path, "/") {
		out = fuse.EntryOut{}
		if errno := f.Lookup(node, []byte(name), &out); errno != 0 || out.NodeId == 0 {
			t.Fatalf("%s: %q: errno %v, node %d", path, name, errno, out.NodeId)
		}
		node = out.NodeId
	}
	return out
}

func fixture(t testing.TB) (*layers.Store, *fileSystem) {
	st := newStore(t)
	load(t, st, newImage(t, "me", baseLayer(t), topLayer(t)), "fixture:1")
	return st, offline(t, st)
}

const rootfs = "images/docker.io/library/fixture@1/rootfs"

// TestNoAllocations wants the way of a request through this package to allocate nothing.
func TestNoAllocations(t *testing.T) {
	st, f := fixture(t)
	_ = st
	bin := walkTo(t, f, rootfs+"/usr/bin").NodeId
	root := walkTo(t, f, rootfs).NodeId
	sh := walkTo(t, f, rootfs+"/etc/passwd").NodeId
	large := walkTo(t, f, rootfs+"/usr/bin/big").NodeId
	buf := make([]byte, 1<<20)
	var entry fuse.EntryOut
	var attr fuse.AttrOut
	d := wire.NewDir(buf, 0, true)
	name, absent, etc := []byte("sh"), []byte("nothing"), []byte("etc")
	link := walkTo(t, f, rootfs+"/bin").NodeId
	images, host := walkTo(t, f, "images").NodeId, []byte("docker.io")
	capability := []byte("security.capability")
	for what, fn := range map[string]func(){
		"lookup":        func() { f.Lookup(bin, name, &entry) },
		"lookup merged": func() { f.Lookup(root, etc, &entry) },
		"lookup absent": func() { f.Lookup(bin, absent, &entry) },
		"getattr":       func() { f.GetAttr(sh, &attr) },
		"getattr dir":   func() { f.GetAttr(root, &attr) },
		"read":          func() { f.Read(sh, buf[:4096], 0) },
		"read large":    func() { f.Read(large, buf[:131072], 4096) },
		"forget":        func() { f.Forget(bin, 0) },
		"readlink":      func() { f.Readlink(link) },
		"getxattr":      func() { f.GetXattr(sh, capability) },
		"listxattr":     func() { f.ListXattr(sh, buf) },
		"lookup image":  func() { f.Lookup(images, host, &entry) },
	} {
		fn()
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	// A listing may cost a constant, whatever its length.
	for what, node := range map[string]uint64{"readdirplus": bin, "readdirplus merged": root} {
		if n := testing.AllocsPerRun(100, func() {
			*d = *wire.NewDir(buf, 0, true)
			f.ReadDir(node, d)
		}); n > 2 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

// TestStale asks for nodes that nobody was ever given.
func TestStale(t *testing.T) {
	_, f := fixture(t)
	buf := make([]byte, 4096)
	for k := kindFixed; k <= kindWhiteout; k++ {
		id := nodeID(k, 4000, 4000)
		var entry fuse.EntryOut
		var attr fuse.AttrOut
		_, rerr := f.Read(id, buf, 0)
		_, lerr := f.Readlink(id)
		for what, errno := range map[string]syscall.Errno{
			"lookup": f.Lookup(id, []byte("x"), &entry), "getattr": f.GetAttr(id, &attr), "read": rerr, "readlink": lerr,
			"readdir": f.ReadDir(id, wire.NewDir(buf, 0, false)),
		} {
			if errno != syscall.ESTALE {
				t.Errorf("%s of %#x: %v, want ESTALE", what, id, errno)
			}
		}
	}
	// Numbers that are too large in a layer that exists.
	for _, k := range []kind{kindFile, kindViewDir, kindDiffDir, kindWhiteout} {
		var attr fuse.AttrOut
		if errno := f.GetAttr(nodeID(k, 1, 1<<30), &attr); errno != syscall.ESTALE {
			t.Errorf("kind %d: %v, want ESTALE", k, errno)
		}
	}
}

// TestCounting wants every look-up and listed entry to be taken back by the FORGETs that the kernel sends.
func TestCounting(t *testing.T) {
	_, f := fixture(t)
	known := func() (n int64) {
		s := f.snap.Load()
		for _, v := range s.views {
			n += v.lookups.Load()
		}
		for _, l := range s.layers {
			n += l.lookups.Load()
		}
		return n
	}
	given := map[uint64]uint64{}
	var crawl func(node uint64)
	crawl = func(node uint64) {
		d := wire.NewDir(make([]byte, 1<<20), 0, true)
		if errno := f.ReadDir(node, d); errno != 0 {
			t.Fatalf("%#x: %v", node, errno)
		}
		entries, outs, err := fuse.ParseDirLookupEntries(d.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range entries {
			if e.Name == "." || e.Name == ".." {
				continue
			}
			o := outs[i]
			if o.NodeId == 0 { // rootfs, diff, status.json: looked up
				if errno := f.Lookup(node, []byte(e.Name), &o); errno != 0 {
					t.Fatalf("%s: %v", e.Name, errno)
				}
			}
			given[o.NodeId]++
			if o.Mode&syscall.S_IFMT != e.Mode&syscall.S_IFMT {
				t.Errorf("%q: type %o when listed, %o when looked up", e.Name, e.Mode, o.Mode)
			}
			if o.Mode&syscall.S_IFMT == syscall.S_IFDIR {
				crawl(o.NodeId)
			}
		}
	}
	crawl(rootID)
	if known() == 0 {
		t.Fatal("nothing was counted")
	}
	for node, n := range given {
		f.Forget(node, n)
	}
	if n := known(); n != 0 {
		t.Errorf("%d look-ups are left after all were forgotten", n)
	}
}

func TestXattrs(t *testing.T) {
	_, f := fixture(t)
	x := walkTo(t, f, rootfs+"/etc/x").NodeId
	f.trusted = false
	list, errno := f.ListXattr(x, make([]byte, 0, 1000))
	if want := "security.capability\x00user.k\x00"; errno != 0 || string(list) != want {
		t.Errorf("list: %q, %v, want %q", list, errno, want)
	}
	diff := "layers/sha256/" + topOf(t, f).diffID.Hex() + "/diff"
	sub := walkTo(t, f, diff+"/sub").NodeId
	for _, c := range []struct {
		node  uint64
		name  string
		value string
		errno syscall.Errno
	}{
		{x, "user.k", "v", 0},
		{x, "user.none", "", syscall.ENODATA},
		{x, "user.overlay.opaque", "", syscall.ENODATA},
		{x, "trusted.overlay.redirect", "", syscall.ENODATA},
		{x, "system.posix_acl_access", "", syscall.EOPNOTSUPP},
		{sub, "trusted.overlay.opaque", "y", 0},
		{sub, "user.overlay.opaque", "y", 0},
		{walkTo(t, f, rootfs+"/sub").NodeId, "trusted.overlay.opaque", "", syscall.ENODATA},
		{walkTo(t, f, diff+"/etc").NodeId, "trusted.overlay.opaque", "", syscall.ENODATA},
		{walkTo(t, f, rootfs+"/lower").NodeId, "user.k", "", syscall.ENODATA},
		{rootID, "user.k", "", syscall.ENODATA},
	} {
		v, errno := f.GetXattr(c.node, []byte(c.name))
		if string(v) != c.value || errno != c.errno {
			t.Errorf("%s: got %q, %v, want %q, %v", c.name, v, errno, c.value, c.errno)
		}
	}
	if list, errno := f.ListXattr(sub, nil); errno != 0 || len(list) != 0 {
		t.Errorf("an opaque directory lists %q, %v", list, errno)
	}
}

// topOf returns the layer with whiteouts.
func topOf(t testing.TB, f *fileSystem) *layer {
	for _, img := range f.snap.Load().images {
		return img.layers[len(img.layers)-1]
	}
	t.Fatal("no image")
	return nil
}

func TestWhiteoutsInDiff(t *testing.T) {
	_, f := fixture(t)
	diff := "layers/sha256/" + topOf(t, f).diffID.Hex() + "/diff"
	for _, path := range []string{"/gone", "/etc/motd"} {
		e := walkTo(t, f, diff+path)
		if e.Mode != syscall.S_IFCHR || e.Rdev != 0 {
			t.Errorf("%s: mode %o device %d, want a character device 0:0", path, e.Mode, e.Rdev)
		}
	}
	// The hard link to a lower file is a copy here, one node with the others in the image.
	if e := walkTo(t, f, diff+"/lower"); e.Size != 7 || e.Nlink != 1 {
		t.Errorf("diff/lower: size %d, %d links", e.Size, e.Nlink)
	}
	a, b := walkTo(t, f, rootfs+"/lower"), walkTo(t, f, rootfs+"/usr/bin/sh2")
	if a.Ino != b.Ino || a.Nlink != 3 {
		t.Errorf("lower is inode %#x with %d links, sh2 %#x", a.Ino, a.Nlink, b.Ino)
	}
}

func TestStatusIsFresh(t *testing.T) {
	_, f := fixture(t)
	first := walkTo(t, f, ".layerfs/status.json")
	if first.EntryValid != 0 {
		t.Error("the kernel may remember the name")
	}
	second := walkTo(t, f, ".layerfs/status.json")
	if first.NodeId == second.NodeId {
		t.Error("the same node again")
	}
	buf := make([]byte, 4096)
	text, errno := f.Read(first.NodeId, buf, 0)
	if errno != 0 || uint64(len(text)) != first.Size || !bytes.HasPrefix(text, []byte("{")) {
		t.Errorf("%q, %v, size %d", text, errno, first.Size)
	}
	for range maxRenderings {
		walkTo(t, f, ".layerfs/status.json")
	}
	if _, errno := f.Read(first.NodeId, buf, 0); errno != syscall.ESTALE {
		t.Errorf("renderings are kept without limit: %v", errno)
	}
}

// TestRetag moves a name and wants new nodes for what it shows now, and the old ones for as long as they are known.
func TestRetag(t *testing.T) {
	st, f := fixture(t)
	was := walkTo(t, f, rootfs+"/etc/passwd")
	dir := walkTo(t, f, rootfs).NodeId
	load(t, st, newImage(t, "other", tarOf(t, file("only", "this"))), "fixture:1")
	c, err := st.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := f.snap.Load()
	f.snap.Store(f.newSnapshot(old, c, f.started))
	if walkTo(t, f, rootfs).NodeId == dir {
		t.Error("another image under the same node")
	}
	walkTo(t, f, rootfs+"/only")
	var attr fuse.AttrOut
	if errno := f.GetAttr(was.NodeId, &attr); errno != 0 {
		t.Errorf("a file in use: %v", errno)
	}
	if errno := f.GetAttr(dir, &attr); errno != 0 {
		t.Errorf("a directory in use: %v", errno)
	}
}

// TestImagePaths wants every image where DESIGN says, and links that lead to its layers.
func TestImagePaths(t *testing.T) {
	st := newStore(t)
	base := tarOf(t, file("a", "a"))
	img := load(t, st, newImage(t, "me", base), "localhost:5000/team/app:v1", "team/app:v1", "team/app/more:v2")
	load(t, st, newImage(t, "nobody"), "empty:1")
	f := offline(t, st)
	for _, path := range []string{
		"images/localhost@5000/team/app@v1", "images/docker.io/team/app@v1", "images/docker.io/team/app/more@v2",
		"images/by-id/" + img.ID.Encoded(),
	} {
		walkTo(t, f, path+"/rootfs/a")
		hex := strings.TrimPrefix(string(img.DiffIDs()[0]), "sha256:")
		link := walkTo(t, f, path+"/layers/01-"+hex[:12])
		target, errno := f.Readlink(link.NodeId)
		want := strings.Repeat("../", strings.Count(path, "/")+1+1) + "layers/sha256/" + hex
		if errno != 0 || string(target) != want || link.Size != uint64(len(want)) {
			t.Errorf("%s: link to %q, %v, want %q", path, target, errno, want)
		}
	}
	if e := walkTo(t, f, "images/docker.io/library/empty@1/rootfs"); e.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		t.Errorf("root of an image without layers: %o", e.Mode)
	}
}

// request writes a message.
func request(op uint32, node uint64, body []byte) []byte {
	var b bytes.Buffer
	h := fuse.InHeader{Length: uint32(40 + len(body)), Opcode: op, Unique: 7, NodeId: node}
	if err := binary.Write(&b, binary.NativeEndian, h); err != nil {
		panic(err)
	}
	b.Write(body)
	return b.Bytes()
}

// FuzzRequests sends arbitrary requests about arbitrary nodes, existing ones among them: no panic, and an answer that is
// well formed.
func FuzzRequests(f *testing.F) {
	_, fs := fixture(f)
	var nodes []uint64
	for _, p := range []string{rootfs, rootfs + "/etc", rootfs + "/etc/x", rootfs + "/lower", rootfs + "/bin", "layers/sha256", "images", rootfs + "/usr/bin/big"} {
		nodes = append(nodes, walkTo(f, fs, p).NodeId)
	}
	var panicked string
	c := wire.New(nil, fs, newRaw(fs), wire.Options{Workers: 1, Panicked: func(op string, node uint64, why any) {
		panicked = fmt.Sprintf("%s of %#x: %v", op, node, why)
	}})
	for op := range uint32(56) {
		for i, n := range nodes {
			f.Add(op, n, uint8(i), make([]byte, 80))
		}
	}
	f.Fuzz(func(t *testing.T, op uint32, node uint64, known uint8, body []byte) {
		if known < 200 {
			node = nodes[int(known)%len(nodes)]
		}
		out := c.Answer(request(op, node, body))
		if panicked != "" {
			t.Fatal(panicked)
		}
		if out == nil {
			return
		}
		if n := binary.NativeEndian.Uint32(out); int(n) != len(out) {
			t.Errorf("%d bytes that say %d", len(out), n)
		}
	})
}

// TestBothWays asks the same of package wire and of go-fuse, which decode requests on their own.
func TestBothWays(t *testing.T) {
	_, f := fixture(t)
	r := newRaw(f)
	var st fuse.StatfsOut
	if got := r.StatFs(nil, &fuse.InHeader{NodeId: rootID}, &st); got != fuse.OK || st.NameLen != 255 || st.Blocks == 0 {
		t.Errorf("statfs: %v %+v", got, st)
	}
	if got := r.Open(nil, &fuse.OpenIn{}, nil); got != fuse.ENOSYS {
		t.Errorf("open: %v", got)
	}
	c := wire.New(nil, f, r, wire.Options{Workers: 1})
	out := c.Answer(request(wire.OpStatfs, rootID, nil))
	if len(out) < 16 || binary.NativeEndian.Uint32(out[4:]) != 0 {
		t.Errorf("statfs over the wire: %x", out)
	}
	out = c.Answer(request(wire.OpOpen, rootID, make([]byte, 8)))
	if errno := int32(binary.NativeEndian.Uint32(out[4:])); errno != -int32(syscall.ENOSYS) {
		t.Errorf("open over the wire: %d", errno)
	}
	if diff := cmp.Diff(rawFS{}.String(), "layerfs"); diff != "" {
		t.Error(diff)
	}
}
