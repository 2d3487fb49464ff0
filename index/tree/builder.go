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

// Inodes returns how many inodes were made so far, those that were replaced included.
func (b *Builder) Inodes() int {
	if b.inodes == nil {
		return 0
	}
	return b.inodes.Len()
}

// Clip shortens a name of a layer for an error: a hostile one has a megabyte.
func Clip(name string) string {
	const most = 300
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
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
		return fmt.Errorf("directory %q: %w", Clip(path), err)
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
		return fmt.Errorf("directory %q: %w", Clip(path), err)
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
