package tree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// compare checks that t is what the model says.
func (m *model) compare(t *Tree) error {
	links, st := m.nlinks()
	if t.Stats() != st {
		return fmt.Errorf("stats: got %+v, want %+v", t.Stats(), st)
	}
	c := &comparison{m: m, t: t, links: links, inos: map[Ino]*mnode{}, nodes: map[*mnode]Ino{}}
	return c.dir(0, m.root, m.root.opaque)
}

type comparison struct {
	m     *model
	t     *Tree
	links map[*mnode]uint32
	inos  map[Ino]*mnode
	nodes map[*mnode]Ino
}

func (c *comparison) dir(ino Ino, d *mnode, opaque bool) error {
	a, err := c.t.Attr(ino)
	if err != nil {
		return err
	}
	special := false
	first, count, err := c.t.Dir(ino)
	if err != nil {
		return err
	}
	var want []string
	for name, e := range d.names {
		if e.node != nil || e.white {
			want = append(want, name)
			special = special || e.node == nil || e.node.kind == KindLink
		}
	}
	sort.Strings(want)
	if a.Implied != d.implied || a.Opaque != opaque || a.Special != special {
		return fmt.Errorf("%q: flags of %+v, want %v %v %v", d.path(), a, d.implied, opaque, special)
	}
	if err := c.meta(ino, d, a); err != nil {
		return err
	}
	if int(count) != len(want) {
		return fmt.Errorf("%q: %d names, want %q", d.path(), count, want)
	}
	for i, name := range want {
		got, err := c.t.Dirent(first + uint32(i))
		if err != nil || string(got.Name) != name {
			return fmt.Errorf("%q: name %q, want %q: %w", d.path(), got.Name, name, err)
		}
		found, ok, err := c.t.Lookup(ino, []byte(name))
		if err != nil || !ok || found.Index != got.Index || found.Kind != got.Kind || found.Ino != got.Ino {
			return fmt.Errorf("%q: lookup %q: %+v, %v, %w", d.path(), name, found, ok, err)
		}
		if err := c.name(ino, got, d.names[name]); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	for _, name := range []string{"", "a", "b", "bb", "c", "zz", "\xff"} {
		_, ok, err := c.t.Lookup(ino, []byte(name))
		if err != nil || ok != slices.Contains(want, name) {
			return fmt.Errorf("%q: lookup %q: %v, %w", d.path(), name, ok, err)
		}
	}
	return nil
}

func (c *comparison) name(dir Ino, got Dirent, e *mname) error {
	if e.node == nil {
		if got.Kind != KindWhiteout {
			return fmt.Errorf("%v, want a whiteout", got.Kind)
		}
		return nil
	}
	if got.Kind != e.node.kind {
		return fmt.Errorf("%v, want %v", got.Kind, e.node.kind)
	}
	if got.Kind == KindLink {
		target, err := c.t.LowerLink(uint32(got.Ino))
		n, _ := c.t.LowerLinkNames(uint32(got.Ino))
		if err != nil || string(target) != e.node.target || n != c.links[e.node] {
			return fmt.Errorf("link to %q of %d, want %q of %d: %w", target, n, e.node.target, c.links[e.node], err)
		}
		return nil
	}
	old, seen := c.inos[got.Ino]
	oldIno, seenNode := c.nodes[e.node]
	if seen != seenNode || seen && (old != e.node || oldIno != got.Ino) {
		return fmt.Errorf("inode %d does not group names as the model does", got.Ino)
	}
	c.inos[got.Ino], c.nodes[e.node] = e.node, got.Ino
	if want := got.Kind == KindDirectory && (e.node.opaque || e.white); got.Opaque != want {
		return fmt.Errorf("opaque %v, want %v", got.Opaque, want)
	}
	if got.Kind != KindDirectory {
		a, err := c.t.Attr(got.Ino)
		if err != nil {
			return err
		}
		return c.meta(got.Ino, e.node, a)
	}
	parent, name, err := c.t.Parent(got.Ino)
	if err != nil || parent != dir || string(name) != e.node.name {
		return fmt.Errorf("parent %d, name %q: %w", parent, name, err)
	}
	end, err := c.t.Subtree(got.Ino)
	above, err2 := c.t.Subtree(dir)
	if err != nil || err2 != nil || got.Ino <= dir || end > above {
		return fmt.Errorf("subtree %d-%d of %d-%d: %w %w", got.Ino, end, dir, above, err, err2)
	}
	return c.dir(got.Ino, e.node, e.node.opaque || e.white)
}

// meta compares an inode's attributes and content.
func (c *comparison) meta(ino Ino, n *mnode, a Attr) error {
	want := Attr{
		Kind: n.kind, Mode: n.meta.Mode, UID: n.meta.UID, GID: n.meta.GID, Nlink: c.links[n],
		MtimeSec: n.meta.MtimeSec, MtimeNsec: n.meta.MtimeNsec, Major: n.maj, Minor: n.min,
		Implied: a.Implied, Opaque: a.Opaque, Special: a.Special,
		Sparse: n.sparse != nil, HasXattrs: len(n.meta.Xattrs) != 0,
	}
	switch n.kind {
	case KindRegular:
		want.Size = n.size
	case KindSymlink:
		want.Size = int64(len(n.target))
	}
	if a != want {
		return fmt.Errorf("%v: got %+v, want %+v", n.kind, a, want)
	}
	if err := c.xattrs(ino, n); err != nil {
		return err
	}
	if n.kind == KindSymlink {
		if got, err := c.t.Symlink(ino); err != nil || string(got) != n.target {
			return fmt.Errorf("symlink to %q, want %q: %w", got, n.target, err)
		}
	}
	if n.kind != KindRegular {
		return nil
	}
	b, ok, err := c.t.Body(ino)
	if err != nil || ok != (n.bodySize > 0) || ok && (b.Sum != n.sum || b.Size != n.bodySize || b.Place != placeOf(n.sum)) {
		return fmt.Errorf("body %+v, %v, want %x of %d: %w", b, ok, n.sum, n.bodySize, err)
	}
	return c.sparse(ino, n)
}

func (c *comparison) xattrs(ino Ino, n *mnode) error {
	want := map[string][]byte{}
	for _, x := range n.meta.Xattrs {
		want[x.Name] = x.Value
	}
	last, count := "", 0
	err := c.t.EachXattr(ino, func(name, value []byte) bool {
		if string(name) <= last || !bytes.Equal(want[string(name)], value) {
			count = -100
		}
		last = string(name)
		count++
		return true
	})
	if err != nil || count != len(want) {
		return fmt.Errorf("extended attributes are not %q: %w", want, err)
	}
	for name, value := range want {
		if got, ok, err := c.t.Xattr(ino, name); err != nil || !ok || !bytes.Equal(got, value) {
			return fmt.Errorf("extended attribute %q: %q, %v, %w", name, got, ok, err)
		}
	}
	if _, ok, err := c.t.Xattr(ino, "user.none"); ok || err != nil {
		return errors.New("an extended attribute that is none")
	}
	return nil
}

func (c *comparison) sparse(ino Ino, n *mnode) error {
	got, err := c.t.Sparse(ino)
	var want []Extent
	if n.sparse != nil {
		want = []Extent{}
	}
	for _, e := range n.sparse {
		if e.Length > 0 {
			want = append(want, e)
		}
	}
	if err != nil || !slices.Equal(got, want) || (got == nil) != (want == nil) {
		return fmt.Errorf("sparse map %v, want %v: %w", got, want, err)
	}
	for off := int64(0); n.sparse != nil && off < n.size; off++ {
		at, body := -1, int64(0)
		for i, e := range want {
			if e.Offset+e.Length > off {
				at = i
				break
			}
			body += e.Length
		}
		e, bodyOff, ok, err := c.t.SparseAt(ino, off)
		if err != nil || ok != (at >= 0) || ok && (e != want[at] || bodyOff != body) {
			return fmt.Errorf("extent at %d: %v in body at %d, %v: %w", off, e, bodyOff, ok, err)
		}
	}
	return nil
}
