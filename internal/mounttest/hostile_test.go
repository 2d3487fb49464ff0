package mounttest_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// loadLimit is how much memory a load may take, in KiB, whatever it loads: the mapped files of what is being built
// count, too.
const loadLimit = 512 << 10

// refuseLimit is the same for what is refused before its layers are read.
const refuseLimit = 192 << 10

// A peak is the most memory that a process had, in KiB.
type peak struct {
	whole     int64 // resident, with what is mapped of files
	anonymous int64 // without that, as far as it was seen
}

// look reads what the kernel counts of a process that lives; getrusage would say how large the test was when it
// started the process.
func (p *peak) look(pid int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.HasPrefix(string(status), "Name:\tlayerfs\n") {
		return // it has ended, or has not begun
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			p.whole = max(p.whole, kib)
		}
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kib); n == 1 {
			p.anonymous = max(p.anonymous, kib)
		}
	}
}

// measured calls layerfs, and returns the peak of its memory too.
func (s *store) measured(args ...string) (result, peak) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	seen, ended := make(chan peak), make(chan struct{})
	go func() {
		var most peak
		for {
			most.look(cmd.Process.Pid)
			select {
			case <-ended:
				seen <- most
				return
			case <-time.After(3 * time.Millisecond):
			}
		}
	}()
	_ = cmd.Wait() // the code says it
	close(ended)
	most := <-seen
	if ctx.Err() != nil {
		s.t.Fatalf("layerfs %q: still running after %v", args, patience)
	}
	r := result{args, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if strings.Contains(r.stderr, "panic:") || strings.Contains(r.stderr, "fatal error:") || r.code < 0 {
		s.t.Errorf("it crashed: %v", r)
	}
	return r, most
}

// within wants a peak below a limit.
func within(t *testing.T, what string, got, limit int64) {
	t.Helper()
	t.Logf("%s: %d MiB", what, got>>10)
	if got > limit || got == 0 {
		t.Errorf("%s took %d MiB of memory, want at most %d", what, got>>10, limit>>10)
	}
}

// A layerFile is a layer that is written to a file as it is made, so that a large one needs no memory here.
type layerFile struct {
	t    testing.TB
	file *os.File
	buf  *bufio.Writer
	zip  *gzip.Writer
	sum  hash.Hash
	*tar.Writer
}

func newLayerFile(t testing.TB) *layerFile {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	l := &layerFile{t: t, file: f, buf: bufio.NewWriterSize(f, 1<<20), sum: sha256.New()}
	if l.zip, err = gzip.NewWriterLevel(l.buf, gzip.BestSpeed); err != nil {
		t.Fatal(err)
	}
	l.Writer = tar.NewWriter(io.MultiWriter(l.zip, l.sum))
	return l
}

// raw writes bytes that are no member of package tar's.
func (l *layerFile) raw(p []byte) {
	if err := l.Flush(); err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.MultiWriter(l.zip, l.sum).Write(p); err != nil {
		l.t.Fatal(err)
	}
}

func (l *layerFile) member(h tar.Header, body string) {
	h.Size = int64(len(body))
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if h.Mode == 0 {
		h.Mode = 0o755
	}
	err := l.WriteHeader(&h)
	if err == nil && body != "" {
		_, err = io.WriteString(l.Writer, body)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// archive ends the layer and makes an image of it alone.
func (l *layerFile) archive(name string) string {
	l.t.Helper()
	if err := l.Close(); err != nil {
		l.t.Fatal(err)
	}
	if err := l.zip.Close(); err != nil {
		l.t.Fatal(err)
	}
	if err := l.buf.Flush(); err != nil {
		l.t.Fatal(err)
	}
	size, err := l.file.Seek(0, io.SeekCurrent)
	if err != nil {
		l.t.Fatal(err)
	}
	l.file.Close()
	config := mustJSON(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", l.sum.Sum(nil))}},
	})
	out := filepath.Join(l.t.TempDir(), "image.tar")
	f, err := os.Create(out)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	add := func(name string, size int64, r io.Reader) {
		err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: size})
		if err == nil {
			_, err = io.Copy(w, r)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
	add("c.json", int64(len(config)), bytes.NewReader(config))
	in, err := os.Open(l.file.Name())
	if err != nil {
		l.t.Fatal(err)
	}
	defer in.Close()
	add("l.tar", size, in)
	manifest := mustJSON([]any{map[string]any{"Config": "c.json", "RepoTags": []string{name}, "Layers": []string{"l.tar"}}})
	add("manifest.json", int64(len(manifest)), bytes.NewReader(manifest))
	if err := w.Close(); err != nil {
		l.t.Fatal(err)
	}
	return out
}

// header is a header block of GNU tar with any type and size.
func header(name string, typ byte, size string, change func(block []byte)) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], size)
	copy(b[136:], "00000000000\x00")
	b[156] = typ
	copy(b[257:], "ustar  \x00")
	if change != nil {
		change(b)
	}
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// TestHostileLayers loads layers that try to take memory, time, or the tree of others. Those that no Linux could hold
// are refused, in one line of moderate length, and leave nothing.
func TestHostileLayers(t *testing.T) {
	s := newStore(t, nil)
	s.load("-i", archiveOf(t, newTar().file("good", "1")))
	before := s.snapshot()
	long := strings.Repeat("a/", 400_000) + "f"
	for _, c := range []struct {
		what  string
		build func(l *layerFile)
	}{
		{"an extension header of 8 TiB", func(l *layerFile) { l.raw(header("x", 'x', "\x80\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00", nil)) }},
		{"a file of 4 EiB", func(l *layerFile) { l.raw(header("x", '0', "\x80\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00", nil)) }},
		{"a negative size", func(l *layerFile) { l.raw(header("x", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", nil)) }},
		{"a path of 400,000 directories", func(l *layerFile) { l.member(tar.Header{Name: long, Format: tar.FormatPAX}, "x") }},
		{"a name of 256 bytes", func(l *layerFile) {
			l.member(tar.Header{Name: "d/" + strings.Repeat("n", 256), Format: tar.FormatPAX}, "x")
		}},
		{"a link of 800 KB", func(l *layerFile) {
			l.member(tar.Header{Name: "l", Linkname: long, Typeflag: tar.TypeSymlink, Format: tar.FormatPAX}, "")
		}},
		{"a hard link to 800 KB", func(l *layerFile) {
			l.member(tar.Header{Name: "l", Linkname: long, Typeflag: tar.TypeLink, Format: tar.FormatPAX}, "")
		}},
		{"an attribute name of 300 bytes", func(l *layerFile) {
			l.member(tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user." + strings.Repeat("n", 300): "v"}}, "x")
		}},
		{"a sparse map of 2,000,000 extents", func(l *layerFile) {
			extents := func(b []byte, at, n, first int) {
				for i := range n {
					copy(b[at+24*i:], fmt.Sprintf("%011o\x00%011o\x00", (first+i)*2, 1))
				}
			}
			l.raw(header("x", 'S', "00007502200\x00", func(b []byte) { extents(b, 386, 4, 0); b[482] = 1; copy(b[483:], "77777777777\x00") }))
			block := make([]byte, 512)
			for i := 4; i < 2_000_000; i += 21 {
				extents(block, 0, 21, i)
				block[504] = 1
				l.raw(block)
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			s.t = t
			l := newLayerFile(t)
			c.build(l)
			r, memory := s.measured("load", "-q", "-i", l.archive("localhost/hostile:1"))
			r.refused(t, 1, 5)
			if len(r.stderr) > 2000 {
				t.Errorf("the error has %d bytes: %.300s", len(r.stderr), r.stderr)
			}
			within(t, "load", memory.whole, refuseLimit)
			s.unchanged(before)
		})
	}
	s.t = t
	s.checkClean()
}

// TestHostileDocuments loads archives whose manifests and configs are huge, or say so.
func TestHostileDocuments(t *testing.T) {
	s := newStore(t, nil)
	s.load("-i", archiveOf(t, newTar().file("good", "1")))
	before := s.snapshot()
	layer := newTar().file("f", "1").bytes()
	id := fmt.Sprintf("sha256:%x", sha256.Sum256(layer))
	manyLayers := func(n int) map[string][]byte {
		config := mustJSON(map[string]any{"os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": repeated(id, n)}})
		return map[string][]byte{
			"c.json": config, "l.tar": layer,
			"manifest.json": mustJSON([]any{map[string]any{"Config": "c.json", "RepoTags": []string{"localhost/hostile:1"}, "Layers": repeated("l.tar", n)}}),
		}
	}
	layout := func(n int) map[string][]byte {
		config := mustJSON(map[string]any{"os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": repeated(id, n)}})
		desc := func(mediaType string, data []byte) map[string]any {
			return map[string]any{"mediaType": mediaType, "digest": fmt.Sprintf("sha256:%x", sha256.Sum256(data)), "size": len(data)}
		}
		manifest := mustJSON(map[string]any{
			"schemaVersion": 2, "config": desc("application/vnd.oci.image.config.v1+json", config),
			"layers": repeated(desc("application/vnd.oci.image.layer.v1.tar", layer), n),
		})
		out := map[string][]byte{
			"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
			"index.json": mustJSON(map[string]any{"schemaVersion": 2, "manifests": []any{desc("application/vnd.oci.image.manifest.v1+json", manifest)}}),
		}
		for _, data := range [][]byte{config, manifest, layer} {
			out[fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(data))] = data
		}
		return out
	}
	for what, members := range map[string]map[string][]byte{
		"100,000 layers":        manyLayers(100_000),
		"the same layer 10,000": layout(10_000),
		"an index in an index":  {"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": []byte(strings.Repeat(`{"manifests":[`, 100_000))},
		"deep JSON":             {"manifest.json": []byte(strings.Repeat("[", 4<<20)), "c.json": nil},
	} {
		t.Run(what, func(t *testing.T) {
			s.t = t
			r, memory := s.measured("load", "-q", "-i", writeArchive(t, filepath.Join(t.TempDir(), "hostile.tar"), members))
			r.refused(t, 1, 5)
			within(t, "load", memory.whole, refuseLimit)
			s.unchanged(before)
		})
	}
	// A config of 1 GB that takes no space.
	t.Run("a config of 1 GB", func(t *testing.T) {
		s.t = t
		out := filepath.Join(t.TempDir(), "hostile.tar")
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		const size = 1 << 30
		var end bytes.Buffer
		w := tar.NewWriter(&end)
		manifest := manyLayers(1)["manifest.json"]
		if err := w.WriteHeader(&tar.Header{Name: "manifest.json", Typeflag: tar.TypeReg, Size: int64(len(manifest))}); err != nil {
			t.Fatal(err)
		}
		w.Write(manifest)
		w.Close()
		head := header("c.json", '0', "10000000000\x00", nil)
		if _, err := f.Write(head); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(end.Bytes(), int64(len(head))+size); err != nil {
			t.Fatal(err)
		}
		r, memory := s.measured("load", "-q", "-i", out)
		r.refused(t, 1, 5)
		if !strings.Contains(r.stderr, fmt.Sprint(size)) {
			t.Errorf("the error does not say how large the config is: %s", r.stderr)
		}
		within(t, "load", memory.whole, refuseLimit)
		s.unchanged(before)
	})
	s.t = t
	// As many layers as there may be, all the same: one layer, and a tree of it.
	r, memory := s.measured("load", "-q", "-i", writeArchive(t, filepath.Join(t.TempDir(), "many.tar"), manyLayers(4000)))
	if r.code != 0 {
		t.Fatal(r)
	}
	within(t, "load of 4,000 layers", memory.whole, refuseLimit)
	if n := len(s.layerIDs()); n != 2 {
		t.Errorf("%d layers are stored, want 2", n)
	}
	s.checkClean()
}

func repeated[T any](v T, n int) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = v
	}
	return list
}

// layerIDs are the layers in the store.
func (s *store) layerIDs() []string {
	s.t.Helper()
	var list []json.RawMessage
	s.json(&list, "layers", "--format", "json")
	ids := make([]string, len(list))
	for i, raw := range list {
		ids[i] = string(raw)
	}
	return ids
}

// TestImpliedDirectories: what a layer makes by the way counts for --max-size, too. Each of its paths brings 4,000
// directories in 8 KB.
func TestImpliedDirectories(t *testing.T) {
	s := newStore(t, nil)
	s.load("-i", archiveOf(t, newTar().file("good", "1")))
	before := s.snapshot()
	l := newLayerFile(t)
	for i := range 50 {
		l.member(tar.Header{Name: fmt.Sprint(i, "/", strings.Repeat("a/", 4000), "f"), Format: tar.FormatPAX}, "x")
	}
	archive := l.archive("localhost/implied:1")
	r, memory := s.measured("load", "-q", "--max-size", "10MB", "-i", archive)
	r.refused(t, 1)
	within(t, "load", memory.whole, refuseLimit)
	s.unchanged(before)
	r, memory = s.measured("load", "-q", "--max-size", "200MB", "-i", archive)
	if r.code != 0 {
		t.Error(r)
	}
	within(t, "load of 200,000 directories", memory.whole, loadLimit)
	s.checkClean()
}

// TestLargeAttributes: attributes as large as Linux takes them, and one that it cannot take, which concerns nobody but
// the file that has it.
func TestLargeAttributes(t *testing.T) {
	testenv.Require(t, "fuse")
	value := strings.Repeat("v", 64<<10)
	many := map[string]string{}
	for i := range 9000 {
		many[fmt.Sprintf("user.%06d", i)] = "v"
	}
	b := newTar().xattrs(tar.Header{Name: "largest", Typeflag: tar.TypeReg}, "1", map[string]string{"user.a": value, "user.b": "small"}).
		xattrs(tar.Header{Name: "larger", Typeflag: tar.TypeReg}, "22", map[string]string{"user.a": value + "v"}).
		xattrs(tar.Header{Name: "many", Typeflag: tar.TypeReg}, "333", many).
		file("other", "4444")
	archive, _ := imageOf(t, layersOf(b)...)
	s := newStore(t, nil)
	name := s.load("-i", archive)
	dir := filepath.Join(imageDir(s.mount(), name), "rootfs")
	get := func(file, attribute string) (string, error) {
		buf := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(filepath.Join(dir, file), attribute, buf)
		return string(buf[:max(n, 0)]), err
	}
	if got, err := get("largest", "user.a"); err != nil || got != value {
		t.Errorf("64 KiB: %d bytes, %v", len(got), err)
	}
	if got, err := get("largest", "user.b"); err != nil || got != "small" {
		t.Errorf("beside it: %q, %v", got, err)
	}
	if _, err := get("larger", "user.a"); err != unix.E2BIG && err != unix.ERANGE {
		t.Errorf("more than Linux takes: %v", err)
	}
	if got, err := get("many", "user.000777"); err != nil || got != "v" {
		t.Errorf("one of many: %q, %v", got, err)
	}
	if _, err := unix.Llistxattr(filepath.Join(dir, "many"), make([]byte, 64<<10)); err != unix.E2BIG && err != unix.ERANGE {
		t.Errorf("a list longer than Linux takes: %v", err)
	}
	for i, file := range []string{"largest", "larger", "many", "other"} {
		if data, err := os.ReadFile(filepath.Join(dir, file)); err != nil || len(data) != i+1 {
			t.Errorf("%s: %q, %v", file, data, err)
		}
	}
	s.checkClean()
}

// TestManyLinks has 10,000 names of one file, half of them in a second layer, against GNU tar.
func TestManyLinks(t *testing.T) {
	testenv.Require(t, "root", "fuse", "tar", "overlayfs")
	const links = 10_000
	b := newTar().dir(".", 0o755).dir("d", 0o755).file("d/f", "content")
	for i := range links {
		b.link(fmt.Sprintf("d/l%05d", i), "d/f")
	}
	archive, img := imageOf(t, layersOf(b)...)
	want := newOracle(t, img)
	s := newStore(t, nil)
	name := s.load("-i", archive)
	got := s.take(filepath.Join(imageDir(s.mount(), name), "rootfs"))
	report(t, "rootfs", treetest.Diff(want.merged, got, nil))
	if e := got.Entries["d/l09999"]; e == nil || e.Nlink != links+1 {
		t.Errorf("the last link: %+v", e)
	}
	s.checkClean()
}

// TestManyLayers has 500 layers, as many as the kernel can put over each other, each of which adds, replaces and
// removes.
func TestManyLayers(t *testing.T) {
	testenv.Require(t, "fuse")
	const n = 500
	want := map[string]string{}
	var list []*tarball
	for i := range n {
		b := newTar().file(fmt.Sprintf("d/f%03d", i), fmt.Sprint(i)).file("d/top", fmt.Sprint(i)).file(fmt.Sprintf("own%03d/f", i), "x")
		want[fmt.Sprintf("f%03d", i)], want["top"] = fmt.Sprint(i), fmt.Sprint(i)
		if i%3 == 2 {
			gone := fmt.Sprintf("f%03d", i-1)
			b.file("d/.wh."+gone, "")
			delete(want, gone)
		}
		list = append(list, b)
	}
	archive, _ := imageOf(t, layersOf(list...)...)
	s := newStore(t, nil)
	r, memory := s.measured("load", "-q", "-i", archive)
	if r.code != 0 {
		t.Fatal(r)
	}
	within(t, "load of 500 layers", memory.whole, loadLimit)
	dir := filepath.Join(imageDir(s.mount(), "localhost/synthetic:1"), "rootfs")
	entries, err := os.ReadDir(filepath.Join(dir, "d"))
	if err != nil || len(entries) != len(want) {
		t.Errorf("%d names, want %d: %v", len(entries), len(want), err)
	}
	for _, e := range entries {
		if data, err := os.ReadFile(filepath.Join(dir, "d", e.Name())); err != nil || string(data) != want[e.Name()] {
			t.Errorf("%s: %q, want %q: %v", e.Name(), data, want[e.Name()], err)
		}
	}
	if top, err := os.ReadDir(dir); err != nil || len(top) != n+1 {
		t.Errorf("%d names at the top, want %d: %v", len(top), n+1, err)
	}
}
