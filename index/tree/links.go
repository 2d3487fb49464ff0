package tree

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// Link adds a hard link. It binds to the inode that target has now; when target
// is not in this layer, or is deleted in it, the name becomes a link to the file
// that the lower layers have there. A link to itself changes nothing.
func (b *Builder) Link(path, target string) error {
	if err := b.start(); err != nil {
		return err
	}
	if path == target {
		_, name := splitPath(path)
		return checkName(name)
	}
	if err := b.link(path, target); err != nil {
		return fmt.Errorf("hard link %q to %q: %w", Clip(path), Clip(target), err)
	}
	return nil
}

// link does the work of Link.
func (b *Builder) link(path, target string) error {
	dir, name := splitPath(target)
	if err := checkName(name); err != nil {
		return err
	}
	from, rest, err := b.walk(dir, false)
	if err != nil {
		return err
	}
	inode := none
	if rest == "" {
		i, k, err := b.step(from, name)
		if err != nil {
			return err
		}
		if k == KindDirectory {
			return ErrLinkToDirectory
		}
		if k != KindUnset {
			inode = i
		}
	}
	if inode == none {
		if inode, err = b.lowerLink(from, rest, name); err != nil {
			return err
		}
	}
	return b.bindLink(path, inode)
}

// bindLink puts a link to an inode at a path, unless it leads to itself.
func (b *Builder) bindLink(path string, inode uint32) error {
	parent, name, err := b.place(path)
	if err != nil {
		return err
	}
	n := b.inodes.At(int(inode))
	if n.kind == KindLink && string(b.paths.Get(int(n.ref), int(n.aux))) == b.path(parent, name) {
		return nil
	}
	_, err = b.bind(parent, name, inode)
	return err
}

// lowerLink returns the inode that stands for a file of the lower layers: name
// below rest below directory dir.
func (b *Builder) lowerLink(dir uint32, rest, name string) (uint32, error) {
	path := name
	if rest != "" {
		path = rest + "/" + name
	}
	for part := range strings.SplitSeq(path, "/") {
		if len(part) > 255 {
			return 0, checkName(part)
		}
	}
	path = b.path(dir, path)
	key := sha256.Sum256([]byte(path))
	if i, ok := b.lower.Get(key); ok {
		return i, nil
	}
	off, err := appendText(b.paths, path, &b.scratch)
	if err != nil {
		return 0, err
	}
	i, err := b.newNode(node{kind: KindLink, ref: off, aux: uint32(len(path))})
	if err != nil {
		return 0, err
	}
	return i, b.lower.Put(key, i)
}

// LowerLinks calls fn for each file of lower layers that names of the finished
// tree link to: its number, the first of those names, and its path in the lower
// layers. That path may lead through symbolic links of the lower layers and may
// hold ".." behind them. Nothing can be added to the tree afterwards.
func (b *Builder) LowerLinks(fn func(i int, path, target string) error) error {
	if err := b.seal(); err != nil {
		return err
	}
	for i, l := range b.fin.links.Slice() {
		e := b.entries.At(int(l.entry))
		n := b.inodes.At(int(l.inode))
		path := b.path(e.parent, string(b.nameOf(e)))
		if err := fn(i, path, string(b.paths.Get(int(n.ref), int(n.aux)))); err != nil {
			return err
		}
	}
	return nil
}

// ResolveLower gives lower link i, as numbered by LowerLinks, a copy of what the
// lower layers have at its path: inode ino of from. Only the view of this layer
// alone shows the copy. The body and everything else is registered as of this
// layer too.
func (b *Builder) ResolveLower(i int, from *Tree, ino Ino) error {
	if b.fin == nil || i < 0 || i >= b.fin.links.Len() {
		return fmt.Errorf("lower link %d: %w", i, ErrNoInode)
	}
	if b.inodes.At(int(b.fin.links.At(i).inode)).num != 0 {
		return fmt.Errorf("lower link %d: resolved before: %w", i, ErrInvalid)
	}
	copied, err := b.copyOf(from, ino)
	if err != nil {
		return fmt.Errorf("lower link %d: %w", i, err)
	}
	l := b.fin.links.At(i)
	b.inodes.At(int(l.inode)).num = copied + 1
	b.inodes.At(int(copied)).names += b.inodes.At(int(l.inode)).names
	return nil
}

// copyOf returns the inode that is the copy of inode ino of from.
func (b *Builder) copyOf(from *Tree, ino Ino) (uint32, error) {
	tree := len(b.froms)
	for k, t := range b.froms {
		if t == from {
			tree = k
		}
	}
	if tree == len(b.froms) {
		b.froms = append(b.froms, from)
	}
	var key [8]byte
	le.PutUint32(key[:], uint32(tree))
	le.PutUint32(key[4:], uint32(ino))
	sum := sha256.Sum256(key[:])
	if i, ok := b.copies.Get(sum); ok {
		return i, nil
	}
	n, err := b.imported(from, ino)
	if err != nil {
		return 0, err
	}
	i, err := b.newNode(n)
	if err != nil {
		return 0, err
	}
	if err := b.fin.addCopy(b, i); err != nil {
		return 0, err
	}
	return i, b.copies.Put(sum, i)
}

// imported returns a node like inode ino of from.
func (b *Builder) imported(from *Tree, ino Ino) (node, error) {
	a, err := from.Attr(ino)
	if err != nil {
		return node{}, err
	}
	if a.Kind == KindDirectory {
		return node{}, ErrLinkToDirectory
	}
	m := Meta{Mode: a.Mode, UID: a.UID, GID: a.GID, MtimeSec: a.MtimeSec, MtimeNsec: a.MtimeNsec}
	err = from.EachXattr(ino, func(name, value []byte) bool {
		m.Xattrs = append(m.Xattrs, Xattr{Name: string(name), Value: value})
		return true
	})
	if err != nil {
		return node{}, err
	}
	n, err := b.plain(a.Kind, &m)
	if err != nil {
		return node{}, err
	}
	switch a.Kind {
	case KindRegular:
		err = b.importBody(&n, from, ino, a.Size)
	case KindSymlink:
		var target []byte
		if target, err = from.Symlink(ino); err == nil {
			err = b.setTarget(&n, string(target))
		}
	case KindChar, KindBlock:
		n.size = int64(a.Major)<<32 | int64(a.Minor)
	}
	return n, err
}

// importBody gives node n the content of a file of another tree.
func (b *Builder) importBody(n *node, from *Tree, ino Ino, size int64) error {
	body, _, err := from.Body(ino)
	if err != nil {
		return err
	}
	sparse, err := from.Sparse(ino)
	if err != nil {
		return err
	}
	return b.setContent(n, size, body.Sum, body.Size, sparse)
}
