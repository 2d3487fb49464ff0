package fs

import (
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/layers/overlay"
)

// errno translates an error of a container's tree. What the host says is passed on.
func (t *trees) errno(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	}
	return t.f.errno(err)
}

// tree returns the tree that a node is in, and its ID there.
func (t *trees) tree(node uint64) (*container, *openTree, overlay.ID, syscall.Errno) {
	kind, slot, id := splitTree(t.meant(node))
	if !isTree(kind) {
		return nil, nil, 0, syscall.EPERM
	}
	c := t.list.Load().bySlot[slot]
	if c == nil {
		return nil, nil, 0, syscall.ESTALE
	}
	o, err := t.use(c)
	if err != nil {
		return nil, nil, 0, t.errno(err)
	}
	return c, o, id, 0
}

// meant returns the node that the root of the mount stands for.
func (t *trees) meant(node uint64) uint64 {
	if t.single != nil && node == rootID {
		return treeNode(t.single.slot, overlay.Root)
	}
	return node
}

// nodeOf undoes meant.
func (t *trees) nodeOf(c *container, id overlay.ID) uint64 {
	if t.single != nil && id == overlay.Root {
		return rootID
	}
	return treeNode(c.slot, id)
}

// Times that the kernel may believe a tree: for ever, since every change goes through the mount; a second when another
// process may be writing.
func ttl(o *openTree) uint64 {
	if o.lock == nil {
		return 1
	}
	return forever
}

// fill translates attributes.
func (t *trees) fill(out *fuse.Attr, c *container, a *overlay.Attr) {
	out.Ino = treeNode(c.ino, a.Ino)
	if t.single != nil && a.ID == overlay.Root {
		out.Ino = rootID
	}
	out.Mode, out.Nlink, out.Size, out.Blocks, out.Blksize = a.Mode, a.Nlink, a.Size, a.Blocks, blockSize
	out.Uid, out.Gid = t.ownersOf(c).shift(a.UID, a.GID)
	out.Rdev = rdev(a.Major, a.Minor)
	out.Atime, out.Atimensec = uint64(a.Atime.Sec), uint32(a.Atime.Nsec)
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), uint32(a.Mtime.Nsec)
	out.Ctime, out.Ctimensec = uint64(a.Ctime.Sec), uint32(a.Ctime.Nsec)
}

// entry fills out with something that was looked up or made.
func (t *trees) entry(out *fuse.EntryOut, c *container, o *openTree, a *overlay.Attr) {
	t.fill(&out.Attr, c, a)
	out.NodeId, out.Generation = t.nodeOf(c, a.ID), generation
	out.EntryValid, out.AttrValid = ttl(o), ttl(o)
	c.lookups.Add(1)
}

// Lookup implements wire.Handler.
func (t *trees) Lookup(parent uint64, name []byte, out *fuse.EntryOut) syscall.Errno {
	parent = t.meant(parent)
	if kind, _, _ := splitTree(parent); !isTree(kind) {
		return t.lookupOwn(parent, string(name), out)
	}
	c, o, id, errno := t.tree(parent)
	if errno != 0 {
		return errno
	}
	a, err := o.Lookup(id, string(name))
	if err == unix.ENOENT {
		out.EntryValid = ttl(o)
		return 0
	}
	if err != nil {
		return t.errno(err)
	}
	t.entry(out, c, o, &a)
	return 0
}

// GetAttr implements wire.Handler.
func (t *trees) GetAttr(node uint64, out *fuse.AttrOut) syscall.Errno {
	if kind, _, _ := splitTree(t.meant(node)); !isTree(kind) {
		out.AttrValid = forever
		return t.ownAttr(node, &out.Attr)
	}
	c, o, id, errno := t.tree(node)
	if errno != 0 {
		return errno
	}
	a, err := o.GetAttr(id)
	if err != nil {
		return t.errno(err)
	}
	out.AttrValid = ttl(o)
	t.fill(&out.Attr, c, &a)
	return 0
}

// Read implements wire.Handler.
func (t *trees) Read(node uint64, buf []byte, off int64) ([]byte, syscall.Errno) {
	if kind, _, _ := splitTree(t.meant(node)); !isTree(kind) {
		return t.readOwn(node, buf, off)
	}
	_, o, id, errno := t.tree(node)
	if errno != 0 {
		return nil, errno
	}
	data, err := o.Read(id, buf, off)
	return data, t.errno(err)
}

// Readlink implements wire.Handler.
func (t *trees) Readlink(node uint64) ([]byte, syscall.Errno) {
	if kind, _, _ := splitTree(t.meant(node)); !isTree(kind) {
		return t.readlinkOwn(node)
	}
	_, o, id, errno := t.tree(node)
	if errno != 0 {
		return nil, errno
	}
	target, err := o.Readlink(id)
	return target, t.errno(err)
}

// GetXattr implements wire.Handler.
func (t *trees) GetXattr(node uint64, name []byte) ([]byte, syscall.Errno) {
	attr := string(name)
	if kind, _, _ := splitTree(t.meant(node)); !isTree(kind) {
		return nil, absent(attr)
	}
	c, o, id, errno := t.tree(node)
	if errno != 0 {
		return nil, errno
	}
	v, err := o.GetXattr(id, attr)
	if err == unix.ENODATA && attr == "security.selinux" {
		return nil, syscall.EOPNOTSUPP // see unsupported
	}
	if isACL(attr) && err == nil {
		v = mapACL(v, t.ownersOf(c).shift)
	}
	return v, t.errno(err)
}

// ListXattr implements wire.Handler.
func (t *trees) ListXattr(node uint64, buf []byte) ([]byte, syscall.Errno) {
	if kind, _, _ := splitTree(t.meant(node)); !isTree(kind) {
		return buf, 0
	}
	_, o, id, errno := t.tree(node)
	if errno != 0 {
		return nil, errno
	}
	err := o.EachXattr(id, func(name string) {
		if t.f.listed(name) && cap(buf)-len(buf) > len(name) {
			buf = append(append(buf, name...), 0)
		}
	})
	return buf, t.errno(err)
}

// Forget implements wire.Handler.
func (t *trees) Forget(node, n uint64) {
	kind, slot, id := splitTree(node)
	if !isTree(kind) {
		return
	}
	c := t.list.Load().bySlot[slot]
	if c == nil {
		return
	}
	if o := c.open.Load(); o != nil {
		o.Forget(id, n)
	}
	c.lookups.Add(-int64(n))
}

// isACL reports whether an attribute is an access list, which names owners.
func isACL(name string) bool {
	return name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// mapACL translates the owners in an access list: a version, then tag, permissions and ID of each entry.
func mapACL(v []byte, ids func(uid, gid uint32) (uint32, uint32)) []byte {
	const head, size, named, group = 4, 8, 0x02, 0x08
	if len(v) < head || (len(v)-head)%size != 0 {
		return v
	}
	out := append([]byte(nil), v...)
	for e := out[head:]; len(e) >= size; e = e[size:] {
		id := binary.LittleEndian.Uint32(e[4:])
		switch binary.LittleEndian.Uint16(e) {
		case named:
			id, _ = ids(id, 0)
		case group:
			_, id = ids(0, id)
		}
		binary.LittleEndian.PutUint32(e[4:], id)
	}
	return out
}

// number returns the inode number of a directory of a tree, as stat shows it.
func (t *trees) number(c *container, o *openTree, id overlay.ID) uint64 {
	a, err := o.GetAttr(id)
	if err != nil {
		return treeNode(c.ino, id)
	}
	var out fuse.Attr
	t.fill(&out, c, &a)
	return out.Ino
}

// ReadDir implements wire.Handler.
func (t *trees) ReadDir(node uint64, out *wire.Dir) syscall.Errno {
	h := t.dirs.get(out.Fh)
	if h == nil {
		return syscall.EBADF
	}
	if err := t.reopen(h); err != nil {
		return t.errno(err)
	}
	if h.dir == nil {
		return t.listOwn(h, node, out)
	}
	c, o, id, errno := t.tree(node)
	if errno != 0 {
		return errno
	}
	if out.Offset == 0 {
		if err := h.dir.Rewind(); err != nil {
			return t.errno(err)
		}
	}
	if out.Offset < dotCount && !dots(out, t.number(c, o, id), t.number(c, o, o.Parent(id))) {
		return 0
	}
	err := h.dir.Each(int(out.Offset-dotCount), out.Plus, func(e overlay.DirEntry, a *overlay.Attr, next int) bool {
		offset := uint64(next) + dotCount
		ino := treeNode(c.ino, e.Ino)
		if a == nil {
			return out.Add([]byte(e.Name), ino, e.Mode, offset)
		}
		p := out.AddPlus([]byte(e.Name), ino, e.Mode, offset)
		if p == nil {
			return false
		}
		t.entry(p, c, o, a)
		return true
	})
	h.mark()
	if err != nil && len(out.Bytes()) > 0 {
		return 0 // it comes with the next request; what was listed is counted
	}
	return t.errno(err)
}
