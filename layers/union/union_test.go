package union

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/index/tree"
	"pgregory.net/rapid"
)

// testing.TB and *rapid.T have this in common.
type tb interface {
	Helper()
	Fatalf(string, ...any)
}

// must stops the test on an error.
func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// build writes the table of a layer to a file in dir and opens it.
func build(t tb, dir string, fn func(b *tree.Builder)) *tree.Tree {
	t.Helper()
	b := tree.NewBuilder(dir)
	defer b.Close()
	fn(b)
	f, err := os.CreateTemp(dir, "tree")
	must(t, err)
	defer f.Close()
	defer os.Remove(f.Name())
	_, err = b.Finish(f, nil)
	must(t, err)
	tr, err := tree.OpenFile(f)
	must(t, err)
	return tr
}

// closeAll closes trees.
func closeAll(layers []*tree.Tree) {
	for _, t := range layers {
		t.Close()
	}
}

// genOpts says what random layers hold.
type genOpts struct {
	ops   int
	links bool // to lower layers
	root  bool // opaque roots
	long  bool // names that begin alike
}

var genPath = rapid.Custom(func(t *rapid.T) string {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 4).Draw(t, "parts")
	return strings.Join(parts, "/")
})

// longNames makes short names long ones that begin alike: merging compares the
// first bytes first.
var longNames = strings.NewReplacer("a", "0123456789abcdef", "b", "0123456789abcdefg", "c", "0123456789abcdefh")

// drawLayer draws a layer. tag makes its files' times differ from all others.
func drawLayer(t *rapid.T, dir string, o genOpts, tag *int64) *tree.Tree {
	kinds := []string{"dir", "dir", "file", "file", "symlink", "whiteout", "whiteout", "opaque", "link"}
	if o.root {
		kinds = append(kinds, "root")
	}
	return build(t, dir, func(b *tree.Builder) {
		for range rapid.IntRange(0, o.ops).Draw(t, "ops") {
			*tag++
			m := tree.Meta{Mode: 0o700 + uint32(*tag)%8, UID: uint32(*tag), MtimeSec: *tag}
			p := genPath.Draw(t, "path")
			if o.long {
				p = longNames.Replace(p)
			}
			var err error
			switch rapid.SampledFrom(kinds).Draw(t, "op") {
			case "dir":
				err = b.Dir(p, m)
			case "file":
				err = b.File(p, m, 0, tree.Sum{}, 0, nil)
			case "symlink":
				err = b.Symlink(p, rapid.SampledFrom([]string{"a", "/b", "../c", "a/b", "."}).Draw(t, "to"), m)
			case "whiteout":
				err = b.Whiteout(p)
			case "opaque":
				err = b.Opaque(p)
			case "root":
				if *tag%3 == 0 {
					err = b.Opaque("")
				} else {
					err = b.Dir("", m)
				}
			case "link":
				if o.links {
					err = b.Link(p, genPath.Draw(t, "target"))
				}
			}
			if err != nil && !errors.Is(err, tree.ErrNotDirectory) && !errors.Is(err, tree.ErrLinkToDirectory) &&
				!errors.Is(err, tree.ErrTooManyLinks) {
				t.Fatalf("%v", err)
			}
		}
	})
}

// checkRandom compares random stacks with the model, with caches of all sizes.
// repeat layers of a stack are layers that it has already.
func checkRandom(t *testing.T, minLayers, maxLayers, repeat int, o genOpts) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		var layers []*tree.Tree
		defer func() { closeAll(layers) }()
		tag := int64(1)
		for range rapid.IntRange(minLayers, maxLayers).Draw(t, "layers") {
			layers = append(layers, drawLayer(t, dir, o, &tag))
		}
		stack := layers
		for range repeat {
			stack = append(stack, layers[rapid.IntRange(0, len(layers)-1).Draw(t, "layer")])
		}
		m := newModel(stack)
		shared := NewCache(int64(rapid.SampledFrom([]int{0, 1, 2000}).Draw(t, "cache")))
		fresh := func() *Stack { return shared.New(stack) }
		for range 2 {
			if err := m.compare(shared.New(stack), fresh); err != nil {
				t.Fatalf("%v", err)
			}
		}
		if err := checkGroups(m, shared.New(stack)); err != nil {
			t.Fatalf("%v", err)
		}
	})
}

// TestRandom compares random stacks with the model.
func TestRandom(t *testing.T) {
	checkRandom(t, 1, 6, 0, genOpts{ops: 12, links: true, root: true})
}

// TestLongNames does it with names that begin alike.
func TestLongNames(t *testing.T) {
	checkRandom(t, 2, 4, 0, genOpts{ops: 12, long: true})
}

// TestManyLayers does it with more layers than overlayfs mounts at once.
func TestManyLayers(t *testing.T) {
	if testing.Short() {
		t.Skip("150 layers, many times over")
	}
	checkRandom(t, 10, 10, 140, genOpts{ops: 5, links: true})
}

// checkGroups checks the groups of a stack.
func checkGroups(m *model, s *Stack) error {
	for i := range s.Groups() {
		n, ok := s.GroupNode(i)
		number, extra, ok2 := s.Group(n)
		if !ok || !ok2 || number != i || extra != m.extra[n] {
			return fmt.Errorf("group %d: %+v, %v %v: %d, %d extra, want %d", i, n, ok, ok2, number, extra, m.extra[n])
		}
	}
	for n, extra := range m.extra {
		if _, got, ok := s.Group(n); !ok || got != extra {
			return fmt.Errorf("%+v: extra %d, %v, want %d", n, got, ok, extra)
		}
	}
	return nil
}

// TestConcurrent walks one stack from several goroutines, with a cache that is too
// small for it.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	var layers []*tree.Tree
	for i := range 5 {
		layers = append(layers, build(t, dir, func(b *tree.Builder) {
			for k := range 60 {
				must(t, b.File(fmt.Sprintf("a%d/b%d/f%d", k%6, k%10, i), tree.Meta{}, 0, tree.Sum{}, 0, nil))
			}
			must(t, b.Link(fmt.Sprintf("l%d", i), "a0/b0/f0"))
		}))
	}
	defer closeAll(layers)
	c := NewCache(4000)
	stacks := []*Stack{c.New(layers), c.New(layers), c.New(layers[:4])}
	var want []int
	for _, s := range stacks {
		n, err := walk(s)
		must(t, err)
		want = append(want, n)
	}
	done := make(chan error)
	for g := range 6 {
		go func() {
			for range 20 {
				if n, err := walk(stacks[g%3]); err != nil || n != want[g%3] {
					done <- fmt.Errorf("walk of stack %d: %d files, want %d: %w", g%3, n, want[g%3], err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 6 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestStale checks numbers that the stack never gave out.
func TestStale(t *testing.T) {
	dir := t.TempDir()
	low := build(t, dir, func(b *tree.Builder) { must(t, b.Dir("a/b", tree.Meta{})) })
	mid := build(t, dir, func(b *tree.Builder) { must(t, b.Dir("a/c", tree.Meta{})) })
	top := build(t, dir, func(b *tree.Builder) { must(t, b.Dir("a", tree.Meta{})) })
	layers := []*tree.Tree{low, mid, top}
	defer closeAll(layers)
	s := New(layers)
	for _, id := range []DirID{
		0,                            // a lower root
		s.DirID(Node{1, 1, 0}),       // a contributor that is not the topmost
		s.DirID(Node{2, 1, 0}) + 1,   // beyond the last
		DirID(uint32(1<<32 - 1)),     // far beyond
		s.DirID(Node{Layer: 1}) + 50, // another layer's
	} {
		if _, err := s.Open(id); !errors.Is(err, ErrStale) {
			t.Errorf("open %d: error %v", id, err)
		}
		if _, _, err := s.Lookup(id, []byte("a")); !errors.Is(err, ErrStale) {
			t.Errorf("lookup in %d: error %v", id, err)
		}
	}
}

// TestLinkCopy checks a link whose target is not in this stack: the copy made for
// the layer alone stands in.
func TestLinkCopy(t *testing.T) {
	dir := t.TempDir()
	low := build(t, dir, func(b *tree.Builder) {
		must(t, b.File("f", tree.Meta{UID: 7}, 0, tree.Sum{}, 0, nil))
		must(t, b.File("keep", tree.Meta{}, 0, tree.Sum{}, 0, nil))
	})
	other := build(t, dir, func(*tree.Builder) {})
	top := build(t, dir, func(b *tree.Builder) {
		must(t, b.Link("x", "f"))
		must(t, b.Link("y", "f"))
		must(t, b.Link("nothing", "never"))
		must(t, b.LowerLinks(func(i int, _, target string) error {
			if target != "f" {
				return nil
			}
			return b.ResolveLower(i, low, 1)
		}))
	})
	defer closeAll([]*tree.Tree{low, other, top})
	for _, c := range []struct {
		lower *tree.Tree
		layer int
		nlink uint32
	}{{low, 0, 3}, {other, 1, 2}} {
		s := New([]*tree.Tree{c.lower, top})
		n, ok, err := s.Resolve("x")
		if err != nil || !ok || n.Layer != c.layer {
			t.Fatalf("x: %+v, %v, %v", n, ok, err)
		}
		y, _, _ := s.Resolve("y")
		a, err := s.Attr(n)
		if err != nil || y != n || a.UID != 7 || a.Nlink != c.nlink {
			t.Errorf("x and y: %+v, %+v: %+v, %v", n, y, a, err)
		}
		if n, ok, err := s.Resolve("nothing"); ok || err != nil {
			t.Errorf("a link to nothing: %+v, %v", n, err)
		}
	}
}

// TestXattrs checks where extended attributes come from.
func TestXattrs(t *testing.T) {
	dir := t.TempDir()
	m := tree.Meta{Mode: 0o711, Xattrs: []tree.Xattr{{Name: "user.x", Value: []byte("low")}}}
	low := build(t, dir, func(b *tree.Builder) { must(t, b.Dir("d", m)) })
	top := build(t, dir, func(b *tree.Builder) { must(t, b.File("d/f", m, 0, tree.Sum{}, 0, nil)) })
	layers := []*tree.Tree{low, top}
	defer closeAll(layers)
	s := New(layers)
	for _, p := range []string{"d", "d/f"} {
		n, _, err := s.Resolve(p)
		must(t, err)
		v, ok, err := s.Xattr(n, "user.x")
		count := 0
		err2 := s.EachXattr(n, func(name, value []byte) bool {
			count++
			return string(name) == "user.x" && string(value) == "low"
		})
		if err != nil || err2 != nil || !ok || string(v) != "low" || count != 1 {
			t.Errorf("%s: %q, %v, %v, %v, %d", p, v, ok, err, err2, count)
		}
	}
}

// TestFollow checks paths through symbolic links.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	low := build(t, dir, func(b *tree.Builder) {
		must(t, b.File("usr/lib/f", tree.Meta{}, 0, tree.Sum{}, 0, nil))
		must(t, b.Symlink("lib", "usr/lib", tree.Meta{}))
		must(t, b.Symlink("usr/up", "../../..", tree.Meta{}))
		must(t, b.Symlink("loop", "loop", tree.Meta{}))
	})
	defer low.Close()
	s := New([]*tree.Tree{low})
	want, _, _ := s.Resolve("usr/lib/f")
	for _, p := range []string{"usr/lib/f", "lib/f", "/lib/f", "usr/up/lib/f", "lib/../up/lib/./f", "usr//lib/f"} {
		if n, ok, err := s.Follow(p); err != nil || !ok || n != want {
			t.Errorf("%q: %+v, %v, %v", p, n, ok, err)
		}
	}
	for _, p := range []string{"loop/x", "usr/lib/f/x", "none", "lib/none"} {
		if n, ok, err := s.Follow(p); err != nil || ok {
			t.Errorf("%q: %+v, %v, %v", p, n, ok, err)
		}
	}
	if n, ok, _ := s.Follow("lib"); !ok || n.Kind != tree.KindSymlink {
		t.Errorf("the last name was followed: %+v", n)
	}
	if _, ok, _ := s.Resolve("lib/f"); ok {
		t.Error("Resolve followed a symbolic link")
	}
}

// TestDamaged walks stacks with damaged tables: errors, no panic, an end.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	fill := func(b *tree.Builder) {
		for i := range 20 {
			must(t, b.File(fmt.Sprintf("a/d%d/e/f%d", i%5, i), tree.Meta{}, 0, tree.Sum{}, 0, nil))
		}
		must(t, b.Whiteout("a/d3/w"))
		must(t, b.Link("l", "a/d1/e/f1"))
	}
	b := tree.NewBuilder(dir)
	defer b.Close()
	fill(b)
	path := filepath.Join(dir, "table")
	f, err := os.Create(path)
	must(t, err)
	_, err = b.Finish(f, nil)
	must(t, err)
	must(t, f.Close())
	good, err := os.ReadFile(path)
	must(t, err)
	low := build(t, dir, fill)
	defer low.Close()
	for off := 512; off < len(good)-64; off += 4 {
		p := append([]byte(nil), good...)
		p[off] ^= 1 << (off / 4 % 8)
		p[off+3] ^= 1 << (off / 4 % 3)
		must(t, os.WriteFile(path, p, 0o600))
		bad, err := tree.Open(path)
		if err != nil {
			continue
		}
		for _, layers := range [][]*tree.Tree{{bad}, {low, bad}, {bad, low}, {bad, bad, bad}} {
			s, steps := New(layers), 0
			_ = s.Walk(func(_ []byte, n Node) error {
				if _, err := s.Attr(n); err != nil {
					return err
				}
				if steps++; steps > 10_000 {
					t.Fatalf("byte %d: the walk does not end", off)
				}
				return nil
			})
		}
		must(t, bad.Close())
	}
}
