package tree

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// names lists the tree as "path kind ino nlink" for readable tests.
func names(t *testing.T, tr *Tree) string {
	t.Helper()
	var out []string
	var walk func(dir Ino, path string)
	walk = func(dir Ino, path string) {
		first, count, err := tr.Dir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := first; i < first+count; i++ {
			d, err := tr.Dirent(i)
			if err != nil {
				t.Fatal(err)
			}
			p := path + string(d.Name)
			switch d.Kind {
			case KindWhiteout:
				p += " white"
			case KindLink:
				target, err := tr.LowerLink(uint32(d.Ino))
				if err != nil {
					t.Fatal(err)
				}
				p += " -> " + string(target)
			default:
				a, err := tr.Attr(d.Ino)
				if err != nil {
					t.Fatal(err)
				}
				p += fmt.Sprintf(" %d", a.Nlink)
				if a.Opaque {
					p += " opaque"
				}
			}
			out = append(out, p)
			if d.Kind == KindDirectory {
				walk(d.Ino, path+string(d.Name)+"/")
			}
		}
	}
	walk(0, "")
	return strings.Join(out, ", ")
}

// TestRules says in examples what TestModel checks at random.
func TestRules(t *testing.T) {
	file := func(p string) func(*Builder) error {
		return func(b *Builder) error { return b.File(p, Meta{}, 0, Sum{}, 0, nil) }
	}
	dir := func(p string) func(*Builder) error { return func(b *Builder) error { return b.Dir(p, Meta{}) } }
	link := func(p, to string) func(*Builder) error { return func(b *Builder) error { return b.Link(p, to) } }
	sym := func(p, to string) func(*Builder) error {
		return func(b *Builder) error { return b.Symlink(p, to, Meta{}) }
	}
	white := func(p string) func(*Builder) error { return func(b *Builder) error { return b.Whiteout(p) } }
	opaque := func(p string) func(*Builder) error { return func(b *Builder) error { return b.Opaque(p) } }
	type ops = []func(*Builder) error
	for _, c := range []struct {
		name string
		ops  ops
		want string
		err  error // of the last one
	}{
		{"file over directory", ops{file("d/f"), file("d")}, "d 1", nil},
		{"and back", ops{file("d/f"), file("d"), file("d"), dir("d")}, "d 2", nil},
		{"directory over directory", ops{file("d/f"), dir("d")}, "d 2, d/f 1", nil},
		{"file as parent", ops{file("f"), file("f/g")}, "f 1", ErrNotDirectory},
		{"parent symlink", ops{sym("lib", "usr/lib"), file("lib/x")}, "lib 1, usr 3, usr/lib 2, usr/lib/x 1", nil},
		{"parent symlink out", ops{sym("d/up", "../../../etc"), file("d/up/x")}, "d 2, d/up 1, etc 2, etc/x 1", nil},
		{"parent symlink loop", ops{sym("a", "b"), sym("b", "a"), file("a/x")}, "a 1, b 1", ErrTooManyLinks},
		{"hard link", ops{file("a"), link("b", "a")}, "a 2, b 2", nil},
		{"link then duplicate", ops{file("a"), link("b", "a"), file("a")}, "a 1, b 1", nil},
		{"link to itself", ops{file("a"), link("a", "a")}, "a 1", nil},
		{"link to itself, missing", ops{link("a", "a")}, "", nil},
		{"link to lower", ops{link("b", "d/a"), link("c", "b"), link("e", "d/a")}, "b -> d/a, c -> d/a, e -> d/a", nil},
		{"link to lower through a symlink", ops{sym("lib", "usr/lib"), link("b", "lib/x")}, "b -> usr/lib/x, lib 1", nil},
		{"link to a whiteout", ops{white("a"), link("b", "a")}, "a white, b -> a", nil},
		{"link to a directory", ops{dir("d"), link("b", "d")}, "d 2", ErrLinkToDirectory},
		{"link over the directory of its target", ops{file("d/f"), link("d", "d/f")}, "d 1", nil},
		{"link loses its name with the directory", ops{file("d/f"), link("g", "d/f"), file("d")}, "d 1, g 1", nil},
		{"whiteout then file", ops{white("a"), file("a")}, "a 1", nil},
		{"file then whiteout", ops{file("a"), white("a")}, "a 1", nil},
		{"whiteout then directory", ops{white("a"), dir("a")}, "a 2 opaque", nil},
		{"whiteout then implied directory", ops{white("a"), file("a/b")}, "a 2 opaque, a/b 1", nil},
		{"directory then whiteout", ops{dir("a"), white("a")}, "a 2 opaque", nil},
		{"whiteout in a directory that goes", ops{white("a/b"), file("a"), dir("a")}, "a 2", nil},
		{"opaque makes the directory", ops{opaque("a/b")}, "a 3, a/b 2 opaque", nil},
		{"opaque goes with the directory", ops{opaque("a"), file("a"), dir("a")}, "a 2", nil},
		{"root is no file", ops{file("")}, "", ErrBadPath},
		{"dot dot", ops{file("a/../b")}, "a 2, b 1", nil},
		{"dot dot last", ops{file("a/..")}, "", ErrBadPath},
		{"long name", ops{file(strings.Repeat("n", 255)), file(strings.Repeat("n", 256))}, strings.Repeat("n", 255) + " 1", ErrBadPath},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := NewBuilder(t.TempDir())
			defer b.Close()
			for i, op := range c.ops {
				err := op(b)
				if i == len(c.ops)-1 && c.err != nil {
					if !errors.Is(err, c.err) {
						t.Errorf("error %v, want %v", err, c.err)
					}
				} else if err != nil {
					t.Fatal(err)
				}
			}
			tr, _ := build(t, b)
			if got := names(t, tr); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
