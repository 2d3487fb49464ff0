package tree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// placeOf is where the tests say that a body is.
func placeOf(sum Sum) Place {
	if sum[1]%3 == 0 {
		return Place{}
	}
	return Place{Pack: uint64(sum[1]%3) << 40, Offset: int64(sum[0]) << 39}
}

// build finishes b and opens its table.
func build(t rapidOrTesting, b *Builder) (*Tree, []byte) {
	t.Helper()
	var buf bytes.Buffer
	last := Sum{}
	st, err := b.Finish(&buf, func(sums []Sum) ([]Place, error) {
		if len(sums) > 4096 {
			t.Fatalf("asked for %d places", len(sums))
		}
		var list []Place
		for _, s := range sums {
			if bytes.Compare(last[:], s[:]) >= 0 {
				t.Fatalf("digests do not ascend")
			}
			last = s
			list = append(list, placeOf(s))
		}
		return list, nil
	})
	if err != nil {
		t.Fatalf("finish: %v", err)
	}
	tr, err := parse(buf.Bytes())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if tr.Stats() != st {
		t.Fatalf("stats: got %+v, want %+v", tr.Stats(), st)
	}
	if err := tr.Verify(); err != nil {
		t.Fatalf("verify: %v", err)
	}
	return tr, buf.Bytes()
}

type rapidOrTesting interface {
	Helper()
	Fatalf(string, ...any)
}

var (
	genName = rapid.SampledFrom([]string{"a", "b", "bb", "c", "a-very-long-name", "\xff"})
	genPath = rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(genName, 1, 4).Draw(t, "parts"), "/")
	})
	genTarget = rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "..", ".", ""}), 1, 4).Draw(t, "target")
		if s := strings.Join(parts, "/"); s != "" {
			return s
		}
		return "/"
	})
	genMeta = rapid.Custom(func(t *rapid.T) Meta {
		m := Meta{
			Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"), UID: rapid.Uint32().Draw(t, "uid"),
			GID: rapid.Uint32().Draw(t, "gid"), MtimeSec: rapid.Int64().Draw(t, "sec"),
			MtimeNsec: rapid.Uint32Range(0, 999_999_999).Draw(t, "nsec"),
		}
		for range rapid.SampledFrom([]int{0, 0, 1, 4}).Draw(t, "xattrs") {
			m.Xattrs = append(m.Xattrs, Xattr{
				Name:  rapid.SampledFrom([]string{"user.a", "user.b", "security.capability"}).Draw(t, "name"),
				Value: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value"),
			})
		}
		return m
	})
)

// drawFile draws the content of a regular file.
func drawFile(t *rapid.T) (n mnode) {
	n = mnode{kind: KindRegular, meta: genMeta.Draw(t, "meta")}
	n.sum = Sum{rapid.Byte().Draw(t, "sum"), rapid.Byte().Draw(t, "sum2")}
	if !rapid.Bool().Draw(t, "sparse") {
		n.size = int64(n.sum[0]) % 5 // one digest, one size
		n.bodySize = n.size
		return n
	}
	n.sparse = []Extent{}
	for range rapid.IntRange(0, 3).Draw(t, "extents") {
		e := Extent{n.size + rapid.Int64Range(0, 3).Draw(t, "hole"), rapid.Int64Range(0, 3).Draw(t, "data")}
		n.sparse = append(n.sparse, e)
		n.size, n.bodySize = e.Offset+e.Length, n.bodySize+e.Length
	}
	n.sum[2] = byte(n.bodySize) + 1
	n.size += rapid.Int64Range(0, 3).Draw(t, "tail")
	return n
}

// drawOp draws an operation and does it to both; the errors must be of one kind.
func drawOp(t *rapid.T, b *Builder, m *model) {
	path := genPath.Draw(t, "path")
	var got, want error
	op := rapid.SampledFrom([]string{"dir", "dir", "file", "file", "symlink", "node", "link", "link", "whiteout", "opaque", "root", "body", "drop"}).Draw(t, "op")
	switch op {
	case "root":
		meta := genMeta.Draw(t, "meta")
		got, want = b.Dir("", meta), m.dir("", meta)
	case "dir":
		meta := genMeta.Draw(t, "meta")
		got, want = b.Dir(path, meta), m.dir(path, meta)
	case "file":
		n := drawFile(t)
		got, want = b.File(path, n.meta, n.size, n.sum, n.bodySize, n.sparse), m.put(path, &n)
		if n.bodySize > 0 {
			m.sums[n.sum] = n.bodySize
		}
	case "symlink":
		n := mnode{kind: KindSymlink, meta: genMeta.Draw(t, "meta"), target: genTarget.Draw(t, "target")}
		got, want = b.Symlink(path, n.target, n.meta), m.put(path, &n)
	case "node":
		n := mnode{kind: rapid.SampledFrom([]Kind{KindChar, KindBlock, KindFIFO, KindSocket}).Draw(t, "kind"), meta: genMeta.Draw(t, "meta")}
		if n.kind == KindChar || n.kind == KindBlock {
			n.maj, n.min = rapid.Uint32().Draw(t, "major"), rapid.Uint32().Draw(t, "minor")
		}
		got, want = b.Node(path, n.kind, n.meta, n.maj, n.min), m.put(path, &n)
	case "link":
		target := genPath.Draw(t, "to")
		got, want = b.Link(path, target), m.link(path, target)
	case "whiteout":
		got, want = b.Whiteout(path), m.whiteout(path)
	case "opaque":
		got, want = b.Opaque(path), m.opaque(path)
	case "drop":
		got, want = b.Drop(path), m.drop(path)
	case "body":
		sum := Sum{7, rapid.Byte().Draw(t, "extra")}
		got = b.Body(sum, 2)
		m.sums[sum] = 2
	}
	if (got == nil) != (want == nil) || want != nil && !errors.Is(got, want) {
		t.Fatalf("%s %q: got error %v, want %v", op, path, got, want)
	}
}

// TestModel plays random members on a Builder and on the model.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		b, m := NewBuilder(dir), newModel()
		defer b.Close()
		for range rapid.IntRange(0, 40).Draw(t, "ops") {
			drawOp(t, b, m)
		}
		tr, _ := build(t, b)
		if err := m.compare(tr); err != nil {
			t.Fatalf("%v", err)
		}
	})
}

// TestResolveLower checks the copies of lower files.
func TestResolveLower(t *testing.T) {
	lower := NewBuilder(t.TempDir())
	defer lower.Close()
	m := Meta{Mode: 0o640, UID: 5, Xattrs: []Xattr{{"user.x", []byte("v")}}}
	must(t, lower.File("d/a", m, 9, Sum{9}, 4, []Extent{{2, 4}}))
	must(t, lower.Link("d/b", "d/a"))
	must(t, lower.Symlink("s", "target", m))
	low, _ := build(t, lower)

	b := NewBuilder(t.TempDir())
	defer b.Close()
	for _, l := range [][2]string{{"x", "d/a"}, {"y", "d/b"}, {"z", "s"}, {"x2", "x"}, {"gone", "nowhere"}} {
		must(t, b.Link(l[0], l[1]))
	}
	err := b.LowerLinks(func(i int, path, target string) error {
		dir, name := splitPath(target)
		d := Dirent{}
		if dir != "" {
			d, _, _ = low.Lookup(0, []byte(dir))
		}
		d, ok, err := low.Lookup(d.Ino, []byte(name))
		if !ok {
			if path != "gone" || target != "nowhere" {
				t.Errorf("%q to %q is not there", path, target)
			}
			return err
		}
		return b.ResolveLower(i, low, d.Ino)
	})
	must(t, err)
	tr, _ := build(t, b)
	if got := tr.LowerLinks(); got != 4 {
		t.Fatalf("%d lower links, want 4", got)
	}
	copies := map[string]Ino{}
	for i := range tr.LowerLinks() {
		target, err := tr.LowerLink(i)
		must(t, err)
		ino, ok, err := tr.LowerCopy(i)
		must(t, err)
		if ok != (string(target) != "nowhere") {
			t.Errorf("%q: copy %v", target, ok)
		}
		copies[string(target)] = ino
	}
	if copies["d/a"] != copies["d/b"] || copies["d/a"] == copies["s"] {
		t.Errorf("copies %v do not group as the lower files do", copies)
	}
	a, err := tr.Attr(copies["d/a"])
	must(t, err)
	want := Attr{Kind: KindRegular, Mode: 0o640, UID: 5, Nlink: 3, Size: 9, Sparse: true, HasXattrs: true}
	if a != want {
		t.Errorf("copy: got %+v, want %+v", a, want)
	}
	body, ok, err := tr.Body(copies["d/a"])
	if err != nil || !ok || body.Sum != (Sum{9}) {
		t.Errorf("body of the copy: %+v, %v, %v", body, ok, err)
	}
	if target, err := tr.Symlink(copies["s"]); err != nil || string(target) != "target" {
		t.Errorf("copied symlink: %q, %v", target, err)
	}
}

// TestDeterministic checks that one layer always gives one table.
func TestDeterministic(t *testing.T) {
	var tables [][]byte
	for range 3 {
		b := NewBuilder(t.TempDir())
		defer b.Close()
		fill(t, b, 5000)
		_, p := build(t, b)
		tables = append(tables, slices.Clone(p))
	}
	if !bytes.Equal(tables[0], tables[1]) || !bytes.Equal(tables[0], tables[2]) {
		t.Error("tables of one layer differ")
	}
}

// TestBadAttributes checks what no file can have.
func TestBadAttributes(t *testing.T) {
	b := NewBuilder(t.TempDir())
	defer b.Close()
	for name, err := range map[string]error{
		"negative size":      b.File("f", Meta{}, -1, Sum{}, -1, nil),
		"size without body":  b.File("f", Meta{}, 1, Sum{}, 0, nil),
		"extent beyond size": b.File("f", Meta{}, 5, Sum{}, 4, []Extent{{2, 4}}),
		"extents overlap":    b.File("f", Meta{}, 9, Sum{}, 4, []Extent{{2, 2}, {3, 2}}),
		"extents overflow":   b.File("f", Meta{}, 9, Sum{}, 4, []Extent{{2, 1<<63 - 1}}),
		"short body":         b.File("f", Meta{}, 9, Sum{}, 3, []Extent{{2, 2}}),
		"empty target":       b.Symlink("s", "", Meta{}),
		"long target":        b.Symlink("s", strings.Repeat("x", 4096), Meta{}),
		"directory node":     b.Node("n", KindDirectory, Meta{}, 0, 0),
		"xattr name":         b.Dir("d", Meta{Xattrs: []Xattr{{"", nil}}}),
		"xattr long name":    b.Dir("d", Meta{Xattrs: []Xattr{{strings.Repeat("x", 256), nil}}}),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if err := b.File("n\x00ul", Meta{}, 0, Sum{}, 0, nil); !errors.Is(err, ErrBadPath) {
		t.Errorf("NUL in a name: error %v", err)
	}
	must(t, b.File("f", Meta{}, 3, Sum{1}, 3, nil))
	must(t, b.File("g", Meta{}, 4, Sum{1}, 4, nil))
	if _, err := b.Finish(&bytes.Buffer{}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("one digest of two sizes: error %v", err)
	}
}

// must stops the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill adds n files in the order of a walk: ten to a directory, some links.
func fill(t testing.TB, b *Builder, n int) {
	t.Helper()
	m := Meta{Mode: 0o644, MtimeSec: 1700000000}
	for i := range n {
		dir := fmt.Sprintf("usr/lib/node_modules/p%04d/lib%d", i/100, i/10%10)
		if i%10 == 0 {
			must(t, b.Dir(dir, Meta{Mode: 0o755, MtimeSec: 1700000000}))
		}
		var sum Sum
		le.PutUint64(sum[:], uint64(i+1)*0x9e3779b97f4a7c15)
		le.PutUint64(sum[8:], uint64(i)*0xd6e8feb86659fd93)
		name := fmt.Sprintf("%s/file%d-%d.js", dir, i%10, i/1000)
		must(t, b.File(name, m, int64(i+1), sum, int64(i+1), nil))
	}
}
