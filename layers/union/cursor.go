package union

import (
	"bytes"
	"cmp"
	"encoding/binary"

	"github.com/layerfs/layerfs/index/tree"
)

// cursor is a contributor while directories are merged, at one of its names. It
// holds no pointers: cursors are moved about a lot.
type cursor struct {
	head   [2]uint64 // the name's first bytes, which mostly decide
	rank   uint32
	dir    tree.Ino
	next   uint32 // dirent after this one
	end    uint32
	ino    tree.Ino
	len    uint8
	kind   tree.Kind
	opaque bool
}

// advance moves to the next name; false when there is none.
func (c *cursor) advance(t *tree.Tree) (bool, error) {
	if c.next == c.end {
		return false, nil
	}
	d, err := t.Dirent(c.next)
	if err == nil {
		err = below(&d, c.dir)
	}
	if err != nil {
		return false, err
	}
	c.head[0], c.head[1] = prefix(d.Name), 0
	if len(d.Name) > 8 {
		c.head[1] = prefix(d.Name[8:])
	}
	c.ino, c.len, c.kind, c.opaque = d.Ino, uint8(len(d.Name)), d.Kind, d.Opaque
	c.next++
	return true, nil
}

// prefix returns the first eight bytes of a name as a number that sorts like them.
func prefix(p []byte) uint64 {
	if len(p) >= 8 {
		return binary.BigEndian.Uint64(p)
	}
	v := uint64(0)
	for _, c := range p {
		v = v<<8 | uint64(c)
	}
	return v << (8 * (8 - len(p)))
}

// compare orders two cursors by name.
func (m *merger) compare(a, b *cursor) int {
	switch {
	case a.head[0] != b.head[0]:
		return cmp.Compare(a.head[0], b.head[0])
	case a.head[1] != b.head[1]:
		return cmp.Compare(a.head[1], b.head[1])
	case a.len <= 16 || b.len <= 16:
		return cmp.Compare(a.len, b.len) // one is the beginning of the other
	}
	return bytes.Compare(m.name(a), m.name(b))
}

// name returns the name that a cursor is at.
func (m *merger) name(c *cursor) []byte {
	d, _ := m.tree(c).Dirent(c.next - 1) // it was read before without an error
	return d.Name
}

// tree returns the table of a cursor.
func (m *merger) tree(c *cursor) *tree.Tree { return m.s.layers[m.ch.at(int(c.rank)).layer] }

// less orders cursors by name, then topmost first.
func (m *merger) less(a, b *cursor) bool {
	n := m.compare(a, b)
	return n < 0 || n == 0 && a.rank < b.rank
}
