package tree

import (
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/layerfs/layerfs/internal/spool"
)

// Builder plays the members of a layer's tar and writes the layer's table. What
// it keeps lies in spools: its memory does not grow with the layer.
//
// The result is what extracting the tar into an empty directory gives: a later
// member replaces an earlier one of the same path, what is no directory removes
// what was below it, a directory over a directory only brings new attributes,
// missing parents appear by themselves (as implied directories, 0755, 0:0, time
// 0), and symbolic links on the way to a path are followed inside the layer.
//
// Whiteouts concern lower layers only, so a whiteout beside a member of the same
// name is not seen, in either order, but makes a directory opaque.
//
// Paths are clean and relative; "" is the root. A Builder is for one goroutine.
// After an error that is none of this package the only useful call is Close.
type Builder struct {
	seed    maphash.Seed
	inodes  *spool.Array[node]
	entries *spool.Array[entry]
	slots   *spool.Array[slot]
	names   *spool.Bytes
	targets *spool.Bytes
	xattrs  *spool.Bytes
	sets    *spool.Map[uint32] // sha256 of an encoded set -> its reference
	sparse  *spool.Array[uint64]
	bodies  *spool.Array[content]
	paths   *spool.Bytes
	lower   *spool.Map[uint32] // sha256 of a path in lower layers -> inode of the link
	copies  *spool.Map[uint32] // sha256 of (tree, inode) -> inode of the copy
	froms   []*Tree            // the trees that copies came from
	dir     string
	scratch []byte

	// The directory that the last member was put in: tar archives are mostly in
	// the order of a walk. Forgotten when a directory or symlink is replaced.
	lastPath string
	lastDir  uint32
	lastOK   bool

	fin *finish // made by seal
}

// node is an inode while the tree is built.
type node struct {
	size   int64 // as in record, but for directories first dirent<<32 | count, by seal
	sec    int64
	nsec   uint32
	uid    uint32
	gid    uint32
	mode   uint16
	kind   Kind
	flags  uint8
	xattrs uint32
	ref    uint32 // regular: 1 + content; symlink: offset; directory: entry that names it; link: offset of path
	aux    uint32 // sparse: index of the map; directory: parent; link: length of the path
	num    uint32 // directory: depth; link: 1 + inode of the copy; by seal: number in the table
	names  uint32 // by seal: names; directory: subdirectories
}

// Flags of a node beyond those of the record.
const (
	flagLive     = 1 << 6 // the directory is part of the tree
	flagNumbered = 1 << 7 // num is the number in the table
	recordFlags  = flagImplied | flagOpaque | flagSpecial | flagSparse
)

// entry is a name in a directory. Entries are never removed: those of a directory
// that was replaced are simply never reached again.
type entry struct {
	parent uint32 // inode of the directory
	inode  uint32 // none: a whiteout and nothing else
	name   uint32 // offset in names
	len    uint8
	white  bool // a whiteout of this name was seen
}

// content is a body that a file has.
type content struct {
	sum  Sum
	size int64
	num  uint32 // by seal
}

// none is the inode of a name that has none.
const none = ^uint32(0)

// maxDepth is the number of directories on the way to a name.
const maxDepth = 4096

// maxTarget is the longest target of a symbolic link that Linux can read.
const maxTarget = 4095

// NewBuilder returns a builder of an empty tree that keeps its spools in dir. The
// caller closes it.
func NewBuilder(dir string) *Builder {
	return &Builder{
		seed:    maphash.MakeSeed(),
		inodes:  spool.NewArray[node](dir),
		entries: spool.NewArray[entry](dir),
		slots:   spool.NewArray[slot](dir),
		names:   spool.NewBytes(dir),
		targets: spool.NewBytes(dir),
		xattrs:  spool.NewBytes(dir),
		sets:    spool.NewMap[uint32](dir),
		sparse:  spool.NewArray[uint64](dir),
		bodies:  spool.NewArray[content](dir),
		paths:   spool.NewBytes(dir),
		lower:   spool.NewMap[uint32](dir),
		copies:  spool.NewMap[uint32](dir),
		dir:     dir,
	}
}

// Close gives the spools back. A second call does nothing.
func (b *Builder) Close() error {
	err := errors.Join(b.inodes.Close(), b.entries.Close(), b.slots.Close(), b.names.Close(),
		b.targets.Close(), b.xattrs.Close(), b.sets.Close(), b.sparse.Close(), b.bodies.Close(),
		b.paths.Close(), b.lower.Close(), b.copies.Close())
	if b.fin != nil {
		err = errors.Join(err, b.fin.close())
	}
	return err
}

// start makes the root when there is none yet, and refuses changes after seal.
func (b *Builder) start() error {
	if b.fin != nil {
		return errors.New("tree: changed after it was finished")
	}
	if b.inodes.Len() != 0 {
		return nil
	}
	_, err := b.newNode(node{kind: KindDirectory, mode: 0o755, flags: flagImplied, ref: none})
	return err
}

// newNode adds an inode.
func (b *Builder) newNode(n node) (uint32, error) {
	if uint64(b.inodes.Len()) >= maxIno {
		return 0, fmt.Errorf("%d inodes: %w", b.inodes.Len(), ErrTooLarge)
	}
	i, err := b.inodes.Append(n)
	return uint32(i), err
}

// plain returns a node with the attributes m.
func (b *Builder) plain(k Kind, m *Meta) (node, error) {
	set, err := b.xattrSet(m.Xattrs)
	return node{
		kind: k, mode: uint16(m.Mode & 0o7777), uid: m.UID, gid: m.GID,
		sec: m.MtimeSec, nsec: m.MtimeNsec, xattrs: set,
	}, err
}

// Dir adds a directory, or gives a directory that is there new attributes.
func (b *Builder) Dir(path string, m Meta) error {
	if err := b.start(); err != nil {
		return err
	}
	n, err := b.plain(KindDirectory, &m)
	if err != nil {
		return fmt.Errorf("directory %q: %w", path, err)
	}
	if path == "" {
		b.setAttributes(0, &n)
		return nil
	}
	parent, name, err := b.place(path)
	if err == nil {
		err = b.putDir(parent, name, &n)
	}
	if err != nil {
		return fmt.Errorf("directory %q: %w", path, err)
	}
	return nil
}

// setAttributes gives directory i the attributes of n and makes it explicit.
func (b *Builder) setAttributes(i uint32, n *node) {
	d := b.inodes.At(int(i))
	d.mode, d.uid, d.gid, d.sec, d.nsec, d.xattrs = n.mode, n.uid, n.gid, n.sec, n.nsec, n.xattrs
	d.flags &^= flagImplied
}

// putDir puts directory n at a name.
func (b *Builder) putDir(parent uint32, name string, n *node) error {
	e, ok := b.find(parent, name)
	if ok {
		if i := b.entries.At(int(e)).inode; i != none && b.inodes.At(int(i)).kind == KindDirectory {
			b.setAttributes(i, n)
			return nil
		}
	}
	_, err := b.newDir(parent, name, *n)
	return err
}

// newDir puts a new directory at a name where there is none, and returns its
// inode.
func (b *Builder) newDir(parent uint32, name string, n node) (uint32, error) {
	depth := b.inodes.At(int(parent)).num + 1
	if depth > maxDepth {
		return 0, ErrTooDeep
	}
	n.aux, n.num = parent, depth
	i, err := b.newNode(n)
	if err != nil {
		return 0, err
	}
	e, err := b.bind(parent, name, i)
	if err != nil {
		return 0, err
	}
	b.inodes.At(int(i)).ref = e
	return i, nil
}

// add puts a new inode that is no directory at a path.
func (b *Builder) add(path string, n node) error {
	parent, name, err := b.place(path)
	if err != nil {
		return err
	}
	i, err := b.newNode(n)
	if err != nil {
		return err
	}
	_, err = b.bind(parent, name, i)
	return err
}

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
		return fmt.Errorf("file %q: %w", path, err)
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
		return fmt.Errorf("symbolic link %q: %w", path, err)
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
		return fmt.Errorf("%v %q: %w", k, path, err)
	}
	return nil
}

// Drop takes a directory out of the layer, and all below it, as if it had never
// been there. Files below it that have other names keep those. What is no
// directory is left alone.
func (b *Builder) Drop(dir string) error {
	if err := b.start(); err != nil {
		return err
	}
	base, name := splitPath(dir)
	parent, err := b.directory(base)
	if err != nil {
		return fmt.Errorf("directory %q: %w", dir, err)
	}
	e, ok := b.find(parent, name)
	if !ok {
		return nil
	}
	at := b.entries.At(int(e))
	if at.inode == none || b.inodes.At(int(at.inode)).kind != KindDirectory {
		return nil
	}
	// The name moves into the directory itself, which nothing leads to any more.
	at.parent, at.inode = at.inode, none
	b.lastOK = false
	return nil
}

// Whiteout adds a whiteout: the name is deleted in the layers below.
func (b *Builder) Whiteout(path string) error {
	if err := b.start(); err != nil {
		return err
	}
	parent, name, err := b.place(path)
	if err == nil {
		err = b.whiteout(parent, name)
	}
	if err != nil {
		return fmt.Errorf("whiteout of %q: %w", path, err)
	}
	return nil
}

// whiteout marks a name as deleted below.
func (b *Builder) whiteout(parent uint32, name string) error {
	e, ok := b.find(parent, name)
	if !ok {
		var err error
		if e, err = b.newEntry(parent, name, none); err != nil {
			return err
		}
	}
	b.entries.At(int(e)).white = true
	return nil
}

// Opaque makes a directory hide what is below it, and makes the directory when it
// is not there.
func (b *Builder) Opaque(dir string) error {
	if err := b.start(); err != nil {
		return err
	}
	i, err := b.directory(dir)
	if err != nil {
		return fmt.Errorf("opaque directory %q: %w", dir, err)
	}
	b.inodes.At(int(i)).flags |= flagOpaque
	return nil
}
