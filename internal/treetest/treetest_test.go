package treetest_test

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// member is one entry of a tar made by writeTar.
type member struct {
	name string
	typ  byte
	body string // or the target of a link
	mode int64
	pax  map[string]string
}

var then = time.Unix(1700000000, 123456789)

func writeTar(t *testing.T, name string, list ...member) string {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, m := range list {
		h := &tar.Header{
			Name: m.name, Typeflag: m.typ, Mode: m.mode, Uid: 7, Gid: 8, ModTime: then, Format: tar.FormatPAX, PAXRecords: m.pax,
		}
		switch m.typ {
		case tar.TypeReg:
			h.Size = int64(len(m.body))
		case tar.TypeLink, tar.TypeSymlink:
			h.Linkname = m.body
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if m.typ == tar.TypeReg {
			if _, err := w.Write([]byte(m.body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func file(name, body string) member {
	return member{name: name, typ: tar.TypeReg, body: body, mode: 0o644}
}

func dir(name string, mode int64) member {
	return member{name: name + "/", typ: tar.TypeDir, mode: mode}
}

func take(t *testing.T, dir string) *treetest.Snapshot {
	t.Helper()
	s, err := treetest.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Problems) > 0 {
		t.Errorf("%s: %q", dir, s.Problems)
	}
	return s
}

// overlay extracts layers and mounts them.
func overlay(t *testing.T, tars ...string) (*treetest.Snapshot, []*treetest.Layer) {
	t.Helper()
	testenv.Require(t, "root", "overlayfs", "tar")
	work := t.TempDir()
	var layers []*treetest.Layer
	var dirs []string
	for i, name := range tars {
		l, err := treetest.Extract(name, filepath.Join(work, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		layers, dirs = append(layers, l), append(dirs, l.Dir)
	}
	if err := treetest.Stack(layers); err != nil {
		t.Fatal(err)
	}
	merged, umount, err := treetest.OverlayMount(dirs, work)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := umount(); err != nil {
			t.Error(err)
		}
	})
	// Not take: overlayfs itself lists some ".." with the lower inode.
	s, err := treetest.Take(merged)
	if err != nil {
		t.Fatal(err)
	}
	return s, layers
}

func TestOverlayOfLayers(t *testing.T) {
	d := t.TempDir()
	low := writeTar(t, d+"/0.tar", dir(".", 0o751), dir("a", 0o2750), file("a/x", "x"), file("a/y", "y"), dir("o", 0o700),
		file("o/old", "1"), dir("w", 0o755), file("w/below", "1"), member{name: "a/ln", typ: tar.TypeLink, body: "a/x"})
	up := writeTar(t, d+"/1.tar", file("a/.wh.y", ""), file("a/z", "z"), file("o/.wh..wh..opq", ""), file("o/new", "2"),
		file(".wh.w", ""), dir("w", 0o711), file(".wh..wh.plnk", ""))
	s, layers := overlay(t, low, up)
	want := []string{".", "a", "a/ln", "a/x", "a/z", "o", "o/new", "w"}
	if got := s.Paths(); !slices.Equal(got, want) {
		t.Errorf("got paths %q, want %q", got, want)
	}
	if got, want := layers[1].Implied, []string{".", "a", "o"}; !slices.Equal(got, want) {
		t.Errorf("got implied %q, want %q", got, want)
	}
	for p, mode := range map[string]uint32{".": 0o751, "a": 0o2750, "o": 0o700, "w": 0o711} {
		if e := s.Entries[p]; e.Mode != mode || !e.Mtime.Equal(then) || e.UID != 7 {
			t.Errorf("%s: got %#o %v %d, want %#o %v 7", p, e.Mode, e.Mtime, e.UID, mode, then)
		}
	}
	if e := s.Entries["a/x"]; e.Nlink != 2 || e.Group != "a/ln" {
		t.Errorf("a/x: got %d links in group %q, want 2 in a/ln", e.Nlink, e.Group)
	}
	one := take(t, layers[1].Dir)
	if !one.Entries["a/y"].Whiteout() || !one.Entries["o"].Opaque || !one.Entries["w"].Opaque || one.Entries["a"].Opaque {
		t.Errorf("layer 1: marks are wrong: %+v", one.Entries)
	}
}

// TestMergeEqualsOverlay runs both oracles over layers that both can make.
func TestMergeEqualsOverlay(t *testing.T) {
	d := t.TempDir()
	tars := []string{
		writeTar(t, d+"/0.tar", dir("a", 0o750), file("a/x", "x"), file("a/y", "y"), file("d/f", "1"), file("k", "1")),
		writeTar(t, d+"/1.tar", file("a/.wh.y", ""), dir("k", 0o755), file("k/in", "2"), file(".wh.d", ""), file("n/m", "3")),
		writeTar(t, d+"/2.tar", file(".wh.k", ""), file("d", "now a file"), dir("n", 0o1777)),
	}
	want, _ := overlay(t, tars...)
	merged := filepath.Join(t.TempDir(), "m")
	if err := treetest.Merge(tars, merged); err != nil {
		t.Fatal(err)
	}
	for _, line := range treetest.Diff(want, take(t, merged), nil) {
		t.Error(line)
	}
}

func TestMergeLinksToLowerLayer(t *testing.T) {
	testenv.Require(t, "root", "tar")
	d := t.TempDir()
	low := writeTar(t, d+"/0.tar", file("f", "1"))
	up := writeTar(t, d+"/1.tar", member{name: "g", typ: tar.TypeLink, body: "f"})
	if err := treetest.Merge([]string{low, up}, d+"/m"); err != nil {
		t.Fatal(err)
	}
	if e := take(t, d+"/m").Entries["g"]; e.Nlink != 2 || e.Group != "f" {
		t.Errorf("got %+v, want a link of f", e)
	}
}

func TestManyLayers(t *testing.T) {
	d := t.TempDir()
	var tars []string
	for i := range 150 {
		tars = append(tars, writeTar(t, fmt.Sprintf("%s/%d.tar", d, i), file(fmt.Sprintf("f%d", i), "x")))
	}
	s, _ := overlay(t, tars...)
	if got := len(s.Entries); got != 151 {
		t.Errorf("got %d entries, want 151", got)
	}
}

// TestDiffSeesEverything changes one thing of a tree at a time.
func TestDiffSeesEverything(t *testing.T) {
	testenv.Require(t, "root")
	d := t.TempDir()
	for _, p := range []string{"f", "g"} {
		if err := os.WriteFile(filepath.Join(d, p), []byte("body"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink("a", d+"/l"))
	must(os.Mkdir(d+"/dir", 0o755))
	must(unix.Mknod(d+"/c", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	cases := []struct {
		word string
		do   func() error
	}{
		{"mode", func() error { return unix.Chmod(d+"/f", 0o4644) }},
		{"owner", func() error { return os.Chown(d+"/f", 0, 5) }},
		{"mtime", func() error { return os.Chtimes(d+"/f", then, then.Add(time.Nanosecond)) }},
		{"xattrs", func() error { return unix.Setxattr(d+"/f", "user.x", []byte("1"), 0) }},
		{"sha256", func() error { return os.WriteFile(d+"/f", []byte("bodY"), 0o644) }},
		{"size", func() error { return os.WriteFile(d+"/f", []byte("longer"), 0o644) }},
		{"nlink", func() error { return os.Link(d+"/f", d+"/f2") }},
		{"hard link of", func() error { must(os.Remove(d + "/g")); return os.Link(d+"/f", d+"/g") }},
		{"target", func() error { must(os.Remove(d + "/l")); return os.Symlink("b", d+"/l") }},
		{"device", func() error {
			must(os.Remove(d + "/c"))
			return unix.Mknod(d+"/c", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5)))
		}},
		{"type", func() error { must(os.Remove(d + "/c")); return unix.Mkfifo(d+"/c", 0o600) }},
		{"opaque", func() error { return unix.Setxattr(d+"/dir", "trusted.overlay.opaque", []byte("y"), 0) }},
		{"missing", func() error { return os.Remove(d + "/f2") }},
		{"should not be", func() error { return os.WriteFile(d+"/\xff\n", nil, 0o644) }},
	}
	for _, c := range cases {
		before := take(t, d)
		must(c.do())
		lines := treetest.Diff(before, take(t, d), nil)
		if !slices.ContainsFunc(lines, func(s string) bool { return strings.Contains(s, c.word) }) {
			t.Errorf("%s: not seen; lines: %q", c.word, lines)
		}
	}
	if lines := treetest.Diff(take(t, d), take(t, d), &treetest.Options{DirNlink: true}); lines != nil {
		t.Errorf("a tree differs from itself: %q", lines)
	}
}

func TestReadArchiveForms(t *testing.T) {
	shared := testenv.Shared(t)
	testenv.Require(t, "tar", "zstd", "gzip")
	var first *treetest.Image
	for _, name := range []string{"alpine.oci.tar", "alpine.docker.tar", "alpine.docker25.tar", "alpine.zstd3.oci"} {
		images, err := treetest.ReadArchive(filepath.Join(shared, "images", name), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if len(images) != 1 || len(images[0].Tars) != 1 {
			t.Fatalf("%s: got %d images", name, len(images))
		}
		if first == nil {
			first = &images[0]
		} else if !slices.Equal(first.DiffIDs, images[0].DiffIDs) {
			t.Errorf("%s: got DiffIDs %q, want %q", name, images[0].DiffIDs, first.DiffIDs)
		}
	}
}

func TestAsUser(t *testing.T) {
	testenv.Require(t, "root")
	d := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(filepath.Dir(d), 0o755))
	must(os.Chmod(d, 0o755))
	must(os.WriteFile(d+"/secret", []byte("x"), 0o600))
	must(os.WriteFile(d+"/open", []byte("x"), 0o644))
	var s *treetest.Snapshot
	must(treetest.AsUser(65534, 65534, func() (err error) {
		s, err = treetest.Take(d)
		return err
	}))
	if !s.Entries["secret"].Unreadable || s.Entries["open"].Unreadable {
		t.Errorf("got unreadable %v and %v, want true and false", s.Entries["secret"].Unreadable, s.Entries["open"].Unreadable)
	}
	if os.Geteuid() != 0 {
		t.Error("the process changed its user")
	}
}
