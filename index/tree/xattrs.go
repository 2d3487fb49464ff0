package tree

import (
	"bytes"
	"fmt"
)

// EachXattr calls fn for each extended attribute of inode i, in the order of
// names, until it returns false.
func (t *Tree) EachXattr(i Ino, fn func(name, value []byte) bool) error {
	r, err := t.record(i)
	if err != nil || r.xattrs == 0 {
		return err
	}
	off := uint64(r.xattrs) - 1
	p, err := t.cut(secXattrs, off, 4)
	if err != nil {
		return err
	}
	off += 4
	for range le.Uint32(p) {
		name, value, err := t.xattr(off)
		if err != nil {
			return fmt.Errorf("inode %d: %w", i, err)
		}
		if !fn(name, value) {
			return nil
		}
		off += 6 + uint64(len(name)) + uint64(len(value))
	}
	return nil
}

// xattr returns the attribute at off of its section.
func (t *Tree) xattr(off uint64) (name, value []byte, err error) {
	p, err := t.cut(secXattrs, off, 6)
	if err != nil {
		return nil, nil, err
	}
	n, v := uint64(le.Uint16(p)), uint64(le.Uint32(p[2:]))
	p, err = t.cut(secXattrs, off+6, n+v)
	if err != nil {
		return nil, nil, err
	}
	return p[:n:n], p[n:], nil
}

// Xattr returns the value of one extended attribute of inode i.
func (t *Tree) Xattr(i Ino, name string) ([]byte, bool, error) {
	want := []byte(name)
	var value []byte
	found := false
	err := t.EachXattr(i, func(n, v []byte) bool {
		c := bytes.Compare(n, want)
		if c == 0 {
			value, found = v, true
		}
		return c < 0
	})
	return value, found, err
}
