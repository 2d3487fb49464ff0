package tree

import (
	"bytes"
	"fmt"
	"sort"
)

// cut returns n bytes at off of a section.
func (t *Tree) cut(sec int, off, n uint64) ([]byte, error) {
	p := t.bytes[sec]
	if off > uint64(len(p)) || n > uint64(len(p))-off {
		return nil, fmt.Errorf("section %s: %d bytes at %d: %w", sectionNames[sec], n, off, ErrDamaged)
	}
	return p[off : off+n : off+n], nil
}

// Symlink returns the target of a symbolic link.
func (t *Tree) Symlink(i Ino) ([]byte, error) {
	r, err := t.recordOf(i, KindSymlink)
	if err != nil {
		return nil, err
	}
	return t.cut(secTargets, uint64(r.ref), r.size)
}

// Body returns the content of a regular file, or false when it has none: an empty
// file, and a sparse one that is all hole.
func (t *Tree) Body(i Ino) (Body, bool, error) {
	r, err := t.recordOf(i, KindRegular)
	if err != nil || r.ref == 0 {
		return Body{}, false, err
	}
	if r.ref > t.bodies() {
		return Body{}, false, fmt.Errorf("inode %d: wrong body: %w", i, ErrDamaged)
	}
	b, err := t.body(r.ref - 1)
	if err == nil && r.flags&flagSparse == 0 && uint64(b.Size) != r.size {
		err = fmt.Errorf("inode %d: body of another size: %w", i, ErrDamaged)
	}
	return b, err == nil, err
}

// bodies returns the number of bodies.
func (t *Tree) bodies() uint32 { return uint32(len(t.bytes[secBodies]) / bodySize) }

// body returns body number i.
// Preconditions: i < bodies().
func (t *Tree) body(i uint32) (Body, error) {
	p := (*[bodySize]byte)(t.bytes[secBodies][bodySize*int(i):])
	a, b := le.Uint64(p[32:]), le.Uint64(p[40:])
	body := Body{Sum: Sum(p[:32]), Size: int64(a & low48)}
	if pack := a>>48 | b>>48<<16; pack != 0 {
		p, err := t.cut(secPacks, (pack-1)*packSize, packSize)
		if err != nil {
			return Body{}, err
		}
		body.Place = Place{Pack: le.Uint64(p), Offset: int64(b & low48)}
	}
	return body, nil
}

// BodyBySum finds a content of the layer by its digest.
func (t *Tree) BodyBySum(sum Sum) (Body, bool, error) {
	p, n := t.bytes[secBodies], int(t.bodies())
	i := sort.Search(n, func(i int) bool {
		return bytes.Compare(p[bodySize*i:bodySize*i+len(sum)], sum[:]) >= 0
	})
	if i == n || Sum(p[bodySize*i:bodySize*i+len(sum)]) != sum {
		return Body{}, false, nil
	}
	b, err := t.body(uint32(i))
	return b, err == nil, err
}

// EachBody calls fn for each content of the layer, in the order of digests, until
// it returns an error.
func (t *Tree) EachBody(fn func(Body) error) error {
	for i := range t.bodies() {
		b, err := t.body(i)
		if err == nil {
			err = fn(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// extents returns the encoded map of a sparse file, nil when the file is not
// sparse.
func (t *Tree) extents(i Ino) ([]byte, error) {
	r, err := t.recordOf(i, KindRegular)
	if err != nil || r.flags&flagSparse == 0 {
		return nil, err
	}
	off := uint64(r.aux) * 8
	p, err := t.cut(secSparse, off, 8)
	if err != nil {
		return nil, err
	}
	n := le.Uint64(p)
	if n > uint64(len(t.bytes[secSparse]))/extentSize {
		return nil, fmt.Errorf("inode %d: wrong sparse map: %w", i, ErrDamaged)
	}
	return t.cut(secSparse, off+8, n*extentSize)
}

// extent decodes extent k of a map, and where it lies in the body.
func extent(p []byte, k int) (e Extent, bodyOff int64) {
	p = p[extentSize*k:]
	return Extent{Offset: int64(le.Uint64(p)), Length: int64(le.Uint64(p[8:]))}, int64(le.Uint64(p[16:]))
}

// Sparse returns the extents of a sparse file that hold data; nil when the file
// is not sparse. It allocates the list: readers want [Tree.SparseAt].
func (t *Tree) Sparse(i Ino) ([]Extent, error) {
	p, err := t.extents(i)
	if err != nil || p == nil {
		return nil, err
	}
	list := make([]Extent, len(p)/extentSize)
	for k := range list {
		list[k], _ = extent(p, k)
	}
	return list, nil
}

// SparseAt finds the first extent of a sparse file that ends behind off and says
// where in the body its data begins. false means that no data follows: from off
// to the end there is only a hole. It does not allocate.
func (t *Tree) SparseAt(i Ino, off int64) (e Extent, bodyOff int64, ok bool, err error) {
	p, err := t.extents(i)
	if err != nil {
		return Extent{}, 0, false, err
	}
	n := len(p) / extentSize
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if e, _ := extent(p, mid); e.Offset+e.Length <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == n {
		return Extent{}, 0, false, nil
	}
	e, bodyOff = extent(p, lo)
	if e.Offset < 0 || e.Length <= 0 || e.Offset > e.Offset+e.Length || bodyOff < 0 {
		return Extent{}, 0, false, fmt.Errorf("inode %d: wrong sparse map: %w", i, ErrDamaged)
	}
	return e, bodyOff, true, nil
}

// LowerLinks returns the number of distinct files of lower layers that the layer
// links to.
func (t *Tree) LowerLinks() uint32 { return uint32(len(t.bytes[secLinks]) / linkSize) }

// link returns the record of link number i.
func (t *Tree) link(i uint32) ([]byte, error) {
	if i >= t.LowerLinks() {
		return nil, fmt.Errorf("link %d: %w", i, ErrNoInode)
	}
	return t.bytes[secLinks][linkSize*int(i):], nil
}

// LowerLink returns the path in the lower layers that link number i leads to.
func (t *Tree) LowerLink(i uint32) (target []byte, err error) {
	p, err := t.link(i)
	if err != nil {
		return nil, err
	}
	return t.cut(secPaths, uint64(le.Uint32(p)), uint64(le.Uint32(p[4:])))
}

// LowerLinkNames returns how many names of this layer are link number i.
func (t *Tree) LowerLinkNames(i uint32) (uint32, error) {
	p, err := t.link(i)
	if err != nil {
		return 0, err
	}
	return le.Uint32(p[8:]), nil
}

// LowerCopy returns the copy of the lower file that link number i leads to, made
// for the view of this layer alone; false when there is none.
func (t *Tree) LowerCopy(i uint32) (Ino, bool, error) {
	p, err := t.link(i)
	if err != nil {
		return 0, false, err
	}
	ino := le.Uint32(p[12:])
	if ino == 0 {
		return 0, false, nil
	}
	if ino-1 < t.dirs || ino-1 >= t.Inodes() {
		return 0, false, fmt.Errorf("link %d: wrong copy: %w", i, ErrDamaged)
	}
	return Ino(ino - 1), true, nil
}
