package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/overlay"
)

// treeRaw is the file system of containers as go-fuse's ProtocolServer sees it: what is asked rarely, and all that
// changes something.
type treeRaw struct {
	fuse.RawFileSystem
	t *trees
}

func newTreeRaw(t *trees) treeRaw { return treeRaw{fuse.NewDefaultRawFileSystem(), t} }

// String names the file system.
func (r treeRaw) String() string { return "layerfs containers" }

// Handles of open files. Larger numbers are of what treeDirs holds.
const (
	fhBelow   = 1 // the content is the image's
	fhUp      = 2 // the container's
	fhPassed  = 3 // the container's, and the kernel reads and writes it itself
	fhBelowUp = 4 // the image's still, of a file whose metadata is the container's
	fhMade    = 1 << 32
)

func result(errno syscall.Errno) fuse.Status { return fuse.Status(errno) }

// caller says who asks, in IDs of the container.
func (t *trees) caller(c *container, h *fuse.InHeader, umask uint32) overlay.Caller {
	who := overlay.Caller{Umask: umask, Again: isResent(h.Unique)}
	who.UID, who.GID = t.ownersOf(c).unshift(h.Uid, h.Gid)
	return who
}

// ordinary reports whether a request comes from somebody other than root of the container, whose changes take
// set-user-ID bits away. Where the kernel says so itself, that counts.
func (t *trees) ordinary(c *container, h *fuse.InHeader) bool { return t.caller(c, h, 0).UID != 0 }

// made answers with something new.
func (r treeRaw) made(out *fuse.EntryOut, c *container, o *openTree, a *overlay.Attr, err error) fuse.Status {
	if err != nil {
		return result(r.t.errno(err))
	}
	r.t.entry(out, c, o, a)
	return fuse.OK
}

// Mknod implements fuse.RawFileSystem.
func (r treeRaw) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	dev := uint64(in.Rdev)
	major, minor := uint32(dev>>8&0xfff), uint32(dev&0xff|dev>>12&0xfff00)
	a, err := o.Mknod(id, name, in.Mode, major, minor, r.t.caller(c, &in.InHeader, in.Umask))
	return r.made(out, c, o, &a, err)
}

// Mkdir implements fuse.RawFileSystem.
func (r treeRaw) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	a, err := o.Mkdir(id, name, in.Mode, r.t.caller(c, &in.InHeader, in.Umask))
	return r.made(out, c, o, &a, err)
}

// Symlink implements fuse.RawFileSystem. In the directory of containers it makes a container.
func (r treeRaw) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if r.t.meant(in.NodeId) == rootID {
		return result(r.t.createContainer(target, name, isResent(in.Unique), out))
	}
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	a, err := o.Symlink(id, name, target, r.t.caller(c, in, 0))
	return r.made(out, c, o, &a, err)
}

// Link implements fuse.RawFileSystem.
func (r treeRaw) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	from, _, old, errno := r.t.tree(in.Oldnodeid)
	if errno != 0 {
		return result(errno)
	}
	if from != c {
		return result(syscall.EXDEV)
	}
	link := o.Link
	if isResent(in.Unique) {
		link = o.LinkAgain
	}
	a, err := link(old, id, name)
	return r.made(out, c, o, &a, err)
}

// Unlink implements fuse.RawFileSystem.
func (r treeRaw) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	_, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	if isResent(in.Unique) {
		return result(r.t.errno(o.RemoveAgain(id, name, false)))
	}
	return result(r.t.errno(o.Unlink(id, name)))
}

// Rmdir implements fuse.RawFileSystem. In the directory of containers it removes one without changes.
func (r treeRaw) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if r.t.meant(in.NodeId) == rootID {
		return result(r.t.removeContainer(name, isResent(in.Unique)))
	}
	_, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	if isResent(in.Unique) {
		return result(r.t.errno(o.RemoveAgain(id, name, true)))
	}
	return result(r.t.errno(o.Rmdir(id, name)))
}

// Rename implements fuse.RawFileSystem. In the directory of containers it renames one.
func (r treeRaw) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if from, to := r.t.meant(in.NodeId), r.t.meant(in.Newdir); from == rootID && to == rootID {
		return result(r.t.renameContainer(oldName, newName, in.Flags, isResent(in.Unique)))
	}
	c, o, from, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	other, _, to, errno := r.t.tree(in.Newdir)
	if errno != 0 {
		return result(errno)
	}
	if other != c {
		return result(syscall.EXDEV)
	}
	rename := o.Rename
	if isResent(in.Unique) {
		rename = o.RenameAgain
	}
	return result(r.t.errno(rename(from, oldName, to, newName, in.Flags)))
}

// SetAttr implements fuse.RawFileSystem.
func (r treeRaw) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	change, errno := r.t.change(c, in)
	if errno != 0 {
		return result(errno)
	}
	a, err := o.SetAttr(id, change)
	if err != nil {
		return result(r.t.errno(err))
	}
	r.t.fill(&out.Attr, c, &a)
	out.AttrValid = ttl(o)
	return fuse.OK
}

// change translates a request to change attributes.
func (t *trees) change(of *container, in *fuse.SetAttrIn) (*overlay.Change, syscall.Errno) {
	c := &overlay.Change{KillPriv: in.Valid&fuse.FATTR_KILL_SUIDGID != 0}
	if in.Valid&fuse.FATTR_MODE != 0 {
		mode := in.Mode & 0o7777
		c.Mode = &mode
	}
	uid, gid := t.ownersOf(of).unshift(in.Uid, in.Gid)
	var ok bool
	if in.Valid&fuse.FATTR_UID != 0 {
		if c.UID, ok = t.given(uid, in.Uid); !ok {
			return nil, syscall.EINVAL
		}
	}
	if in.Valid&fuse.FATTR_GID != 0 {
		if c.GID, ok = t.given(gid, in.Gid); !ok {
			return nil, syscall.EINVAL
		}
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		size := int64(in.Size)
		c.Size = &size
	}
	if in.Valid&fuse.FATTR_ATIME != 0 {
		c.Atime = timeOf(in.Atime, in.Atimensec, in.Valid&fuse.FATTR_ATIME_NOW != 0)
	}
	if in.Valid&fuse.FATTR_MTIME != 0 {
		c.Mtime = timeOf(in.Mtime, in.Mtimensec, in.Valid&fuse.FATTR_MTIME_NOW != 0)
	}
	return c, 0
}

// given returns the ID that somebody has meant who gives a file to shown, which is inside to the container. What the
// host does not know as the ID of anybody in it has no meaning, but an ordinary user, who is root in his containers and
// sees none of the IDs that his files get, has taken it from inside: chown 33:33.
func (t *trees) given(inside, shown uint32) (*uint32, bool) {
	if inside != overflowID || shown == overflowID {
		return &inside, true
	}
	return &shown, t.unchecked
}

func timeOf(sec uint64, nsec uint32, now bool) *unix.Timespec {
	if now {
		return &unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return &unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

// SetXAttr implements fuse.RawFileSystem.
func (r treeRaw) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	if isACL(name) {
		value = mapACL(value, r.t.ownersOf(c).unshift)
	}
	kill := in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0
	flags := int(in.Flags)
	if isResent(in.Unique) {
		flags = 0 // it may be there, or gone, because of this very request
	}
	return result(r.t.errno(o.SetXattr(id, name, value, flags, kill)))
}

// RemoveXAttr implements fuse.RawFileSystem.
func (r treeRaw) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	_, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	err := o.RemoveXattr(id, name)
	if err == unix.ENODATA && isResent(in.Unique) {
		err = nil // removed already
	}
	return result(r.t.errno(err))
}

// StatFs answers for the file system that the store, and with it every container, lies on.
func (r treeRaw) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return r.t.f.statFs(out)
}
