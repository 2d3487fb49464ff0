package tree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample returns the table of a layer that has one of everything.
func sample(t testing.TB) []byte {
	t.Helper()
	b := NewBuilder(t.TempDir())
	defer b.Close()
	m := Meta{Mode: 0o4755, UID: 1, GID: 2, MtimeSec: -3, MtimeNsec: 4, Xattrs: []Xattr{{"user.a", []byte("x")}, {"security.b", nil}}}
	must(t, b.Dir("", m))
	must(t, b.File("usr/bin/tool", m, 70, Sum{1}, 70, nil))
	must(t, b.File("usr/bin/empty", Meta{}, 0, Sum{}, 0, nil))
	must(t, b.File("var/sparse", m, 1<<40, Sum{2}, 8, []Extent{{0, 4}, {4096, 4}}))
	must(t, b.File("var/hole", m, 1<<40, Sum{}, 0, []Extent{}))
	must(t, b.Link("usr/bin/tool2", "usr/bin/tool"))
	must(t, b.Symlink("bin", "usr/bin", m))
	must(t, b.Node("dev/null", KindChar, m, 1, 3))
	must(t, b.Node("dev/pipe", KindFIFO, m, 0, 0))
	must(t, b.Whiteout("etc/gone"))
	must(t, b.Opaque("srv"))
	must(t, b.Link("low", "etc/lower"))
	low := NewBuilder(t.TempDir())
	defer low.Close()
	must(t, low.File("f", m, 3, Sum{3}, 3, nil))
	lt, _ := build(t, low)
	must(t, b.LowerLinks(func(i int, _, _ string) error { return b.ResolveLower(i, lt, Ino(1)) }))
	_, p := build(t, b)
	return p
}

// touch calls every accessor with every number.
func touch(t *Tree) {
	for i := range min(t.Inodes(), 1000) + 2 {
		ino := Ino(i)
		_, _ = t.Attr(ino)
		_, _, _ = t.Dir(ino)
		_, _ = t.Subtree(ino)
		_, _, _ = t.Parent(ino)
		_, _ = t.Symlink(ino)
		_, _, _ = t.Body(ino)
		_, _ = t.Sparse(ino)
		_, _, _, _ = t.SparseAt(ino, 4096)
		_, _, _ = t.Xattr(ino, "user.a")
		for _, name := range []string{"", "bin", "tool", "zz"} {
			_, _, _ = t.Lookup(ino, []byte(name))
		}
	}
	for i := range min(t.Names(), 1000) + 2 {
		_, _ = t.Dirent(i)
	}
	for i := range min(t.LowerLinks(), 1000) + 2 {
		_, _ = t.LowerLink(i)
		_, _ = t.LowerLinkNames(i)
		_, _, _ = t.LowerCopy(i)
	}
	_ = t.EachBody(func(Body) error { return nil })
	_, _, _ = t.BodyBySum(Sum{1})
	_, _ = t.Packs(), t.Stats()
	_ = t.Verify()
}

// FuzzOpen reads arbitrary tables: errors are fine, panics are not. The second
// half of the input is written over a good table with a right header, so that
// damage gets behind the header's checksum.
func FuzzOpen(f *testing.F) {
	good := sample(f)
	f.Add(good, uint16(0), []byte{})
	for off := uint16(headerSize); int(off) < len(good); off += 24 {
		f.Add([]byte{}, off, []byte{0xff, 0xff, 0xff, 0x7f})
	}
	f.Fuzz(func(_ *testing.T, raw []byte, off uint16, patch []byte) {
		if t, err := parse(raw); err == nil {
			touch(t)
		}
		p := bytes.Clone(good)
		copy(p[min(headerSize+int(off), len(p)):], patch)
		if t, err := parse(p); err == nil {
			touch(t)
		}
	})
}

// TestDamage flips every byte of a table: Verify finds it, nothing panics.
func TestDamage(t *testing.T) {
	good := sample(t)
	for i := range good {
		p := bytes.Clone(good)
		p[i] ^= 0x5a
		tr, err := parse(p)
		if err == nil {
			touch(tr)
			err = tr.Verify()
		}
		padding := i >= headerSize && isPadding(good, i) || i >= len(good)-12-12 && i < len(good)-12
		if err == nil && !padding {
			t.Errorf("byte %d of %d: damage was not found", i, len(good))
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("byte %d: error %v", i, err)
		}
		if tr, err := parse(good[:i]); err == nil {
			t.Errorf("table cut to %d bytes opened: %v", i, tr)
		}
	}
}

// isPadding says whether byte i is between sections.
func isPadding(p []byte, i int) bool {
	h, err := decodeHeader(p, uint64(len(p)))
	if err != nil {
		return false
	}
	for _, s := range h.sec {
		if uint64(i) >= s.off && uint64(i) < s.off+s.len {
			return false
		}
	}
	return i < len(p)-footerSize
}

// TestOpen checks files.
func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	must(t, os.WriteFile(path, sample(t), 0o600))
	tr, err := Open(path)
	must(t, err)
	must(t, tr.Verify())
	want := "bin 1, dev 2, dev/null 1, dev/pipe 1, etc 2, etc/gone white, low -> etc/lower, srv 2 opaque, " +
		"usr 3, usr/bin 2, usr/bin/empty 1, usr/bin/tool 2, usr/bin/tool2 2, var 2, var/hole 1, var/sparse 1"
	if got := names(t, tr); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	must(t, tr.Close())
	must(t, tr.Close())
	if _, err := tr.Attr(0); !errors.Is(err, ErrNoInode) {
		t.Errorf("after Close: error %v", err)
	}

	must(t, os.Truncate(path, 100))
	if _, err := Open(path); !errors.Is(err, ErrDamaged) {
		t.Errorf("cut file: error %v", err)
	}
	if _, err := Open(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
	if _, err := Open(filepath.Dir(path)); err == nil {
		t.Error("a directory opened")
	}
}

// TestNewerVersion checks that a table of a later release is not read.
func TestNewerVersion(t *testing.T) {
	p := sample(t)
	p[8]++
	if _, err := parse(p); !errors.Is(err, ErrVersion) {
		t.Errorf("error %v", err)
	}
}

// TestDeep checks trees deeper than PATH_MAX and the limit.
func TestDeep(t *testing.T) {
	b := NewBuilder(t.TempDir())
	defer b.Close()
	deep := strings.TrimSuffix(strings.Repeat("directory/", maxDepth), "/")
	must(t, b.File(deep+"/file", Meta{}, 0, Sum{}, 0, nil))
	if err := b.Dir(deep+"/d", Meta{}); !errors.Is(err, ErrTooDeep) {
		t.Errorf("one deeper: error %v", err)
	}
	must(t, b.Symlink("s", deep[:10*400-1], Meta{}))
	must(t, b.File("s/x", Meta{}, 0, Sum{}, 0, nil))
	tr, _ := build(t, b)
	ino := Ino(0)
	for range maxDepth {
		d, ok, err := tr.Lookup(ino, []byte("directory"))
		if err != nil || !ok {
			t.Fatal(err)
		}
		ino = d.Ino
	}
	if _, ok, _ := tr.Lookup(ino, []byte("file")); !ok {
		t.Error("the file at the bottom is not there")
	}
}

// TestHostile plays layers made to be expensive.
func TestHostile(t *testing.T) {
	n := 200_000
	if testing.Short() {
		n = 20_000
	}
	t.Run("one path again and again", func(t *testing.T) {
		b := NewBuilder(t.TempDir())
		defer b.Close()
		for range n {
			must(t, b.File("a/b", Meta{}, 0, Sum{}, 0, nil))
		}
		tr, _ := build(t, b)
		if tr.Inodes() != 3 {
			t.Errorf("%d inodes", tr.Inodes())
		}
	})
	t.Run("a large subtree removed again and again", func(t *testing.T) {
		b := NewBuilder(t.TempDir())
		defer b.Close()
		for i := range n {
			must(t, b.File(fmt.Sprintf("d/%d", i), Meta{}, 0, Sum{}, 0, nil))
		}
		for range n {
			must(t, b.File("d", Meta{}, 0, Sum{}, 0, nil))
			must(t, b.Dir("d", Meta{}))
			must(t, b.File("d/x/y", Meta{}, 0, Sum{}, 0, nil))
		}
		tr, _ := build(t, b)
		if got := names(t, tr); got != "d 3, d/x 2, d/x/y 1" {
			t.Errorf("got %s", got)
		}
	})
}

// TestSize checks the promise on the size of tables.
func TestSize(t *testing.T) {
	b := NewBuilder(t.TempDir())
	defer b.Close()
	const n = 20_000
	fill(t, b, n)
	_, p := build(t, b)
	if per := float64(len(p)) / n; per > 130 {
		t.Errorf("%.1f bytes per file, want 130 at most", per)
	} else {
		t.Logf("%.1f bytes per file, directories included", per)
	}
}

// TestAllocs checks that the hot accessors do not allocate.
func TestAllocs(t *testing.T) {
	tr, err := parse(sample(t))
	must(t, err)
	usr, _, _ := tr.Lookup(0, []byte("usr"))
	bin, _, _ := tr.Lookup(usr.Ino, []byte("bin"))
	tool, ok, _ := tr.Lookup(bin.Ino, []byte("tool"))
	if !ok {
		t.Fatal("no tool")
	}
	name := []byte("tool")
	for what, fn := range map[string]func(){
		"Lookup":   func() { _, _, _ = tr.Lookup(bin.Ino, name) },
		"Attr":     func() { _, _ = tr.Attr(tool.Ino) },
		"Dirent":   func() { _, _ = tr.Dirent(tool.Index) },
		"Parent":   func() { _, _, _ = tr.Parent(bin.Ino) },
		"Body":     func() { _, _, _ = tr.Body(tool.Ino) },
		"SparseAt": func() { _, _, _, _ = tr.SparseAt(tool.Ino, 1) },
		"Xattr":    func() { _, _, _ = tr.Xattr(tool.Ino, "user.a") },
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}
