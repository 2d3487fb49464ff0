package mounttest_test

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// byTable are images whose trees are written down here, because GNU tar does not
// unpack them, or would do so outside of its directory.
var byTable = []struct {
	name   string
	layers func() []*tarball
	want   string
}{
	{"names that lead out", func() []*tarball {
		return []*tarball{
			newTar().file("../../etc/evil", "1").file("/abs", "22").file("a/../../b", "333").file("./././c", "4444").file("d//e", "55555").
				link("hard", "/abs").link("hard2", "../../b").symlink("out", "/etc").symlink("up", "../../.."),
		}
	}, `
		d 0755 .
		f 0644 abs 2
		f 0644 b 3
		f 0644 c 4
		d 0755 d
		f 0644 d/e 5
		d 0755 etc
		f 0644 etc/evil 1
		f 0644 hard = abs
		f 0644 hard2 = b
		l 0777 out -> /etc
		l 0777 up -> ../../..
	`},
	{"parents that are absolute symlinks", func() []*tarball {
		return []*tarball{
			newTar().dir("usr/lib", 0o755).symlink("lib", "/usr/lib").file("lib/x", "1").symlink("esc", "../../../usr").file("esc/y", "22"),
		}
	}, `
		d 0755 .
		l 0777 esc -> ../../../usr
		l 0777 lib -> /usr/lib
		d 0755 usr
		d 0755 usr/lib
		f 0644 usr/lib/x 1
		f 0644 usr/y 2
	`},
	{"directory over file over directory", func() []*tarball {
		return []*tarball{
			newTar().dir("x", 0o700).file("x/a", "1").dir("x/sub", 0o755).file("x/sub/b", "1").file("x", "now a file").dir("x", 0o711).file("x/c", "1"),
			newTar().file("y/a", "1").symlink("y", "x"),
		}
	}, `
		d 0755 .
		d 0711 x
		f 0644 x/c 1
		l 0777 y -> x
	`},
	{"links to lower layers", func() []*tarball {
		return []*tarball{
			newTar().file("a", "body").dir("d", 0o755).file("d/b", "two").symlink("s", "a"),
			newTar().link("l1", "a").link("d/l2", "d/b").link("s2", "s"),
			newTar().link("l3", "l1").file("d/b", "replaced"),
			newTar().file(".wh.a", ""),
		}
	}, `
		d 0755 .
		d 0755 d
		f 0644 d/b 8
		f 0644 d/l2 3
		f 0644 l1 4
		f 0644 l3 = l1
		l 0777 s -> a
		l 0777 s2 = s
	`},
	{"only a name of what was removed", func() []*tarball {
		return []*tarball{
			newTar().file("a", "1").dir("d", 0o755).file("d/f", "1").symlink("p", "d"),
			newTar().file(".wh.d", "").file("d", "file").file(".wh.p", "").dir("p", 0o700).file("p/q", ""),
			newTar().file("d/.wh.f", "").dir("d", 0o750),
		}
	}, `
		d 0755 .
		f 0644 a 1
		d 0750 d
		d 0700 p
		f 0644 p/q 0
	`},
}

// TestTables compares images with what is written here.
func TestTables(t *testing.T) {
	testenv.Require(t, "fuse")
	for _, c := range byTable {
		t.Run(c.name, func(t *testing.T) {
			archive, img := imageOf(t, layersOf(c.layers()...)...)
			s := newStore(t, nil)
			name := s.load("-i", archive)
			mnt := s.mount()
			got := s.take(filepath.Join(imageDir(mnt, name), "rootfs"))
			report(t, "rootfs", got.Problems)
			want := table(c.want)
			report(t, "rootfs", unlike(want, describe(got)))
			for _, id := range img.DiffIDs {
				compareLayer(t, s, mnt, id, nil)
			}
			s.checkClean()
		})
	}
}

// TestLowerLinks holds hard links to lower layers against layers that were
// unpacked one over the other, as umoci does.
func TestLowerLinks(t *testing.T) {
	testenv.Require(t, "root", "fuse", "tar")
	archive, img := imageOf(t, layersOf(
		newTar().dir(".", 0o755).dir("d", 0o755).file("d/a", "one").link("d/b", "d/a").file("x", "two").
			xattrs(tar.Header{Name: "c", Typeflag: tar.TypeReg, Mode: 0o4755}, "cap", map[string]string{"user.k": "v"}),
		newTar().dir("d", 0o755).link("d/l", "d/a").link("c2", "c").file("new", "n").link("new2", "new"),
		newTar().dir("d", 0o755).link("d/m", "d/l").link("x2", "x").dir("e", 0o700).link("e/x3", "x2"),
	)...)
	merged := filepath.Join(t.TempDir(), "merged")
	if err := treetest.Merge(img.Tars, merged); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, nil)
	name := s.load("-i", archive)
	mnt := s.mount()
	want, err := treetest.Take(merged)
	if err != nil {
		t.Fatal(err)
	}
	report(t, "rootfs", treetest.Diff(want, s.take(filepath.Join(imageDir(mnt, name), "rootfs")), nil))
	s.checkClean()
}

// TestDeepTree has paths longer than PATH_MAX, which only a walk with directory
// descriptors reaches.
func TestDeepTree(t *testing.T) {
	testenv.Require(t, "fuse")
	const depth = 700
	b := newTar()
	path := ""
	for i := range depth {
		path += fmt.Sprintf("directory-%03d/", i)
		if i%100 == 99 {
			b.file(path+"f", path)
		}
	}
	up := newTar().file(path+".wh.f", "").file(path+"g", "new")
	archive, img := imageOf(t, layersOf(b, up)...)
	s := newStore(t, nil)
	name := s.load("-i", archive)
	mnt := s.mount()
	got := s.take(filepath.Join(imageDir(mnt, name), "rootfs"))
	report(t, "deep", got.Problems)
	if n := len(got.Entries); n != 1+depth+7 {
		t.Errorf("got %d paths, want %d", n, 1+depth+7)
	}
	if e := got.Entries[path+"g"]; e == nil || e.Size != 3 {
		t.Errorf("the deepest file: got %+v", e)
	}
	if e := got.Entries[strings.Join(strings.SplitAfter(path, "/")[:100], "")+"f"]; e == nil || e.Size != 1400 {
		t.Errorf("a file 100 directories deep: got %+v", e)
	}
	for _, id := range img.DiffIDs {
		compareLayer(t, s, mnt, id, nil)
	}
}

// TestManyEntries has 100,000 names in one directory, a tenth of them deleted by a
// second layer.
func TestManyEntries(t *testing.T) {
	testenv.Require(t, "fuse")
	low, up := newTar(), newTar()
	want := map[string]bool{}
	for i := range 100_000 {
		name := fmt.Sprintf("file-%06d", i)
		low.file("dir/"+name, "")
		if want[name] = i%10 != 0; !want[name] {
			up.file("dir/.wh."+name, "")
		}
	}
	up.file("dir/new", "")
	want["new"] = true
	archive, img := imageOf(t, layersOf(low, up)...)
	s := newStore(t, nil)
	name := s.load("-i", archive)
	mnt := s.mount()
	dir := filepath.Join(imageDir(mnt, name), "rootfs/dir")
	for range 2 {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 90_001 {
			t.Fatalf("%d names, want 90001", len(list))
		}
		for _, e := range list {
			if !want[e.Name()] {
				t.Fatalf("%s is listed", e.Name())
			}
		}
	}
	for name, there := range want {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != there {
			t.Fatalf("lstat %s: %v, want it there: %v", name, err, there)
		}
	}
	for _, id := range img.DiffIDs {
		compareLayer(t, s, mnt, id, nil)
	}
	s.checkClean()
}

// TestSparse unpacks what GNU tar packs of a file with holes, in each of the
// forms that it knows, and compares with the file.
func TestSparse(t *testing.T) {
	testenv.Require(t, "root", "fuse", "tar", "overlayfs")
	src := t.TempDir()
	f, err := os.Create(filepath.Join(src, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(40) { // more extents than one header holds
		if _, err := f.WriteAt([]byte(noise(int(i), 5000)), i*1<<20+i*4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(100<<20 + 17); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	shell(t, 0, `cd "$1" && truncate -s 50M empty && truncate -s 1T huge && printf end | dd of=huge bs=1 seek=600000000000 conv=notrunc status=none && printf x > small`, src)
	for _, form := range []string{"--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0"} {
		t.Run(form, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "layer.tar")
			shell(t, 0, `tar --sparse `+form+` -C "$1" -cf "$2" .`, src, out)
			data, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) > 1<<20 {
				t.Fatalf("tar did not pack sparsely: %d bytes", len(data))
			}
			archive, img := imageOf(t, data)
			s := newStore(t, nil)
			name := s.load("-i", archive)
			compareImage(t, s, s.mount(), name, newOracle(t, img))
			s.checkClean()
		})
	}
}
