package tree

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// maxXattr is the largest encoded set of extended attributes of one file: what a
// tar member can carry fits easily.
const maxXattr = 16 << 20

// xattrSet returns the reference of a set of extended attributes, 0 for none.
// Equal sets have one reference.
func (b *Builder) xattrSet(list []Xattr) (uint32, error) {
	if len(list) == 0 {
		return 0, nil
	}
	p, err := encodeXattrs(b.scratch[:0], list)
	b.scratch = p[:0]
	if err != nil {
		return 0, err
	}
	key := sha256.Sum256(p)
	if ref, ok := b.sets.Get(key); ok {
		return ref, nil
	}
	if uint64(b.xattrs.Len())+uint64(len(p)) > maxIno {
		return 0, fmt.Errorf("extended attributes: %w", ErrTooLarge)
	}
	off, err := b.xattrs.Append(p)
	if err != nil {
		return 0, err
	}
	ref := uint32(off) + 1
	return ref, b.sets.Put(key, ref)
}

// encodeXattrs appends the encoded set to p.
func encodeXattrs(p []byte, list []Xattr) ([]byte, error) {
	size := 0
	for _, x := range list {
		if x.Name == "" || len(x.Name) > 255 || strings.IndexByte(x.Name, 0) >= 0 {
			return p, fmt.Errorf("extended attribute %q: %w", Clip(x.Name), ErrInvalid)
		}
		if size += len(x.Name) + len(x.Value); size > maxXattr {
			return p, fmt.Errorf("extended attributes of more than %d bytes: %w", maxXattr, ErrInvalid)
		}
	}
	list = unique(list)
	p = le.AppendUint32(p, uint32(len(list)))
	for _, x := range list {
		p = le.AppendUint16(p, uint16(len(x.Name)))
		p = le.AppendUint32(p, uint32(len(x.Value)))
		p = append(p, x.Name...)
		p = append(p, x.Value...)
	}
	return p, nil
}

// unique returns the attributes sorted by name, the last one of each name.
func unique(list []Xattr) []Xattr {
	byName := func(x, y Xattr) int { return strings.Compare(x.Name, y.Name) }
	ascending := func(i int) bool { return i == 0 || byName(list[i-1], list[i]) < 0 }
	sorted := true
	for i := range list {
		sorted = sorted && ascending(i)
	}
	if sorted {
		return list
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, byName)
	out := list[:0]
	for i, x := range list {
		if i+1 == len(list) || list[i+1].Name != x.Name {
			out = append(out, x)
		}
	}
	return out
}
