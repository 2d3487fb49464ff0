package tree

import "fmt"

// File adds a regular file of the given logical size. Its content is the body of
// bodySize bytes, none when that is 0. For a sparse file, sparse lists the
// extents that the body holds; nil means a file that is not sparse.
func (b *Builder) File(path string, m Meta, size int64, body Sum, bodySize int64, sparse []Extent) error {
	if err := b.start(); err != nil {
		return err
	}
	n, err := b.plain(KindRegular, &m)
	if err == nil {
		err = b.setContent(&n, size, body, bodySize, sparse)
	}
	if err == nil {
		err = b.add(path, n)
	}
	if err != nil {
		return fmt.Errorf("file %q: %w", Clip(path), err)
	}
	return nil
}

// Body adds a body to the table that no file of the tree has: the layer's tar
// holds it nevertheless, for example as the content of a whiteout.
func (b *Builder) Body(sum Sum, size int64) error {
	if err := b.start(); err != nil {
		return err
	}
	if size <= 0 || size > low48 {
		return fmt.Errorf("body of %d bytes: %w", size, ErrInvalid)
	}
	_, err := b.addBody(sum, size)
	return err
}

// addBody adds a body and returns its index.
func (b *Builder) addBody(sum Sum, size int64) (uint32, error) {
	if uint64(b.bodies.Len()) >= maxIno {
		return 0, fmt.Errorf("%d bodies: %w", b.bodies.Len(), ErrTooLarge)
	}
	i, err := b.bodies.Append(content{sum: sum, size: size})
	return uint32(i), err
}

// setContent gives node n a content.
func (b *Builder) setContent(n *node, size int64, body Sum, bodySize int64, sparse []Extent) error {
	if size < 0 || bodySize < 0 || bodySize > low48 || sparse == nil && size != bodySize {
		return fmt.Errorf("size %d, body of %d bytes: %w", size, bodySize, ErrInvalid)
	}
	n.size = size
	if sparse != nil {
		if err := b.setSparse(n, bodySize, sparse); err != nil {
			return err
		}
	}
	if bodySize == 0 {
		return nil
	}
	i, err := b.addBody(body, bodySize)
	n.ref = i + 1
	return err
}

// setSparse gives node n a sparse map.
func (b *Builder) setSparse(n *node, bodySize int64, sparse []Extent) error {
	var end, sum int64
	for _, e := range sparse {
		if e.Offset < end || e.Length < 0 || e.Length > n.size-e.Offset {
			return fmt.Errorf("sparse extent %d+%d: %w", e.Offset, e.Length, ErrInvalid)
		}
		end, sum = e.Offset+e.Length, sum+e.Length
	}
	if sum != bodySize {
		return fmt.Errorf("sparse map of %d bytes, body of %d: %w", sum, bodySize, ErrInvalid)
	}
	head, err := b.sparse.Append(0)
	if err != nil {
		return err
	}
	if uint64(head) > maxIno-1-3*uint64(len(sparse)) {
		return fmt.Errorf("sparse maps: %w", ErrTooLarge)
	}
	n.flags |= flagSparse
	n.aux = uint32(head)
	count, at := 0, int64(0)
	for _, e := range sparse {
		if e.Length == 0 {
			continue // GNU tar ends every map with one
		}
		for _, v := range [3]int64{e.Offset, e.Length, at} {
			if _, err := b.sparse.Append(uint64(v)); err != nil {
				return err
			}
		}
		count, at = count+1, at+e.Length
	}
	*b.sparse.At(head) = uint64(count)
	return nil
}

// Symlink adds a symbolic link.
func (b *Builder) Symlink(path, target string, m Meta) error {
	if err := b.start(); err != nil {
		return err
	}
	n, err := b.plain(KindSymlink, &m)
	if err == nil {
		err = b.setTarget(&n, target)
	}
	if err == nil {
		err = b.add(path, n)
	}
	if err != nil {
		return fmt.Errorf("symbolic link %q: %w", Clip(path), err)
	}
	return nil
}

// setTarget gives node n, a symbolic link, its target.
func (b *Builder) setTarget(n *node, target string) error {
	if len(target) == 0 || len(target) > maxTarget {
		return fmt.Errorf("target of %d bytes, of at most %d: %w", len(target), maxTarget, ErrInvalid)
	}
	off, err := appendText(b.targets, target, &b.scratch)
	n.size, n.ref = int64(len(target)), off
	return err
}

// Node adds a device, named pipe or socket; major and minor are for devices.
func (b *Builder) Node(path string, k Kind, m Meta, major, minor uint32) error {
	if err := b.start(); err != nil {
		return err
	}
	n, err := b.plain(k, &m)
	switch k {
	case KindChar, KindBlock:
		n.size = int64(major)<<32 | int64(minor)
	case KindFIFO, KindSocket:
	default:
		err = fmt.Errorf("kind %v: %w", k, ErrInvalid)
	}
	if err == nil {
		err = b.add(path, n)
	}
	if err != nil {
		return fmt.Errorf("%v %q: %w", k, Clip(path), err)
	}
	return nil
}
