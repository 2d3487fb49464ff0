package union

import (
	"bytes"
	"encoding/binary"

	"github.com/layerfs/layerfs/index/tree"
)

// cursor is a contributor while directories are merged.
type cursor struct {
	prefix uint64 // the name's first bytes, which mostly decide
	d      tree.Dirent
	dir    tree.Ino
	rank   int
	next   uint32
	end    uint32
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
	c.d, c.prefix = d, prefix(d.Name)
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

// compare orders cursors by name.
func (c *cursor) compare(o *cursor) int {
	switch {
	case c.prefix < o.prefix:
		return -1
	case c.prefix > o.prefix:
		return 1
	}
	return bytes.Compare(c.d.Name, o.d.Name)
}

// less orders cursors by name, then topmost first.
func (c *cursor) less(o *cursor) bool {
	if n := c.compare(o); n != 0 {
		return n < 0
	}
	return c.rank < o.rank
}
