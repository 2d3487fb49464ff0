package faultfs

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What the kernel has seen stays so: nobody else changes the file system.
const forever = time.Hour

// String is the name of the file system in messages of the FUSE library.
func (f *FS) String() string { return "faultfs" }

func now() int64 { return time.Now().UnixNano() }

func (i *inode) fill(a *fuse.Attr) {
	split := func(t int64) (uint64, uint32) { return uint64(t / 1e9), uint32(t % 1e9) }
	*a = fuse.Attr{
		Ino: i.ino, Mode: i.mode, Nlink: i.nlink, Owner: fuse.Owner{Uid: i.uid, Gid: i.gid}, Rdev: i.rdev,
		Size: uint64(len(i.data)), Blocks: uint64(len(i.data)+511) / 512, Blksize: 4096,
	}
	if i.target != "" {
		a.Size = uint64(len(i.target))
	}
	a.Atime, a.Atimensec = split(i.atime)
	a.Mtime, a.Mtimensec = split(i.mtime)
	a.Ctime, a.Ctimensec = split(i.ctime)
}

func (i *inode) entry(out *fuse.EntryOut) fuse.Status {
	out.NodeId, out.Generation = i.ino, 1
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	i.fill(&out.Attr)
	return fuse.OK
}

// Lookup implements fuse.RawFileSystem.
func (f *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(name) > 255 {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	i := f.child(h.NodeId, name)
	if i == nil {
		out.SetEntryTimeout(forever)
		return fuse.ENOENT
	}
	return i.entry(out)
}

func (f *FS) child(dir uint64, name string) *inode {
	d := f.state.inodes[dir]
	if d == nil {
		return nil
	}
	return f.state.inodes[d.entries[name]]
}

// GetAttr implements fuse.RawFileSystem.
func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[in.NodeId]
	if i == nil {
		return fuse.Status(unix.ESTALE)
	}
	out.SetTimeout(forever)
	i.fill(&out.Attr)
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem.
func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[in.NodeId]
	if i == nil {
		return fuse.Status(unix.ESTALE)
	}
	c := &attrChange{}
	if v, ok := in.GetMode(); ok {
		c.mode = &v
	}
	if v, ok := in.GetUID(); ok {
		c.uid = &v
	}
	if v, ok := in.GetGID(); ok {
		c.gid = &v
	}
	if v, ok := in.GetATime(); ok {
		ns := v.UnixNano()
		c.atime = &ns
	}
	if v, ok := in.GetMTime(); ok {
		ns := v.UnixNano()
		c.mtime = &ns
	}
	if size, ok := in.GetSize(); ok {
		if s := f.do(&Op{Kind: Truncate, ino: i.ino, length: int64(size)}); !s.Ok() {
			return s
		}
		i.mtime = now()
	}
	if *c != (attrChange{}) {
		if s := f.do(&Op{Kind: Setattr, ino: i.ino, attr: c}); !s.Ok() {
			return s
		}
	}
	i.ctime = now()
	out.SetTimeout(forever)
	i.fill(&out.Attr)
	return fuse.OK
}

// make makes something new; without a name when o.Kind is Tmpfile.
func (f *FS) make(h *fuse.InHeader, o *Op, mode, rdev uint32, target string) (*inode, fuse.Status) {
	d := f.state.inodes[h.NodeId]
	if d == nil || d.nlink == 0 {
		return nil, fuse.ENOENT
	}
	if o.Kind == Create {
		if _, ok := d.entries[o.name]; ok {
			return nil, fuse.Status(unix.EEXIST)
		}
		o.Path = strings.TrimSuffix(f.state.path(d.ino), "/") + "/" + o.name
	}
	t := now()
	i := &inode{ino: f.state.next, mode: mode, uid: h.Uid, gid: h.Gid, rdev: rdev, target: target, atime: t, mtime: t, ctime: t}
	if d.mode&unix.S_ISGID != 0 {
		i.gid = d.gid
		if i.isDir() {
			i.mode |= unix.S_ISGID
		}
	}
	o.made, o.ino, o.dir = i, i.ino, d.ino
	if o.Kind == Tmpfile {
		o.dir = 0
	}
	if s := f.do(o); !s.Ok() {
		return nil, s
	}
	i = f.state.inodes[i.ino]
	if o.Kind == Create {
		i.nlink = 1
		d.mtime, d.ctime = t, t
	}
	if i.isDir() {
		i.nlink, i.parent = 2, d.ino
		d.nlink++
	}
	return i, fuse.OK
}

func (f *FS) makeEntry(h *fuse.InHeader, name string, mode, rdev uint32, target string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, s := f.make(h, &Op{Kind: Create, name: name}, mode, rdev, target)
	if !s.Ok() {
		return s
	}
	return i.entry(out)
}

// Mknod implements fuse.RawFileSystem.
func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(&in.InHeader, name, in.Mode, in.Rdev, "", out)
}

// Mkdir implements fuse.RawFileSystem.
func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(&in.InHeader, name, in.Mode&0o7777|unix.S_IFDIR, 0, "", out)
}

// Symlink implements fuse.RawFileSystem.
func (f *FS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.makeEntry(h, name, unix.S_IFLNK|0o777, 0, target, out)
}

// Create implements fuse.RawFileSystem.
func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return f.makeEntry(&in.InHeader, name, in.Mode&0o7777|unix.S_IFREG, 0, "", &out.EntryOut)
}

// Tmpfile implements fuse.RawFileSystem.
func (f *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, s := f.make(&in.InHeader, &Op{Kind: Tmpfile}, in.Mode&0o7777|unix.S_IFREG, 0, "")
	if !s.Ok() {
		return s
	}
	return i.entry(&out.EntryOut)
}

// Link implements fuse.RawFileSystem.
func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, d := f.state.inodes[in.Oldnodeid], f.state.inodes[in.NodeId]
	if i == nil || d == nil || d.nlink == 0 {
		return fuse.ENOENT
	}
	if _, ok := d.entries[name]; ok {
		return fuse.Status(unix.EEXIST)
	}
	path := strings.TrimSuffix(f.state.path(d.ino), "/") + "/" + name
	if s := f.do(&Op{Kind: Link, Path: path, ino: i.ino, dir: d.ino, name: name}); !s.Ok() {
		return s
	}
	i.nlink++
	i.ctime, d.mtime = now(), now()
	return i.entry(out)
}

// Unlink implements fuse.RawFileSystem.
func (f *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h, name, Unlink)
}

// Rmdir implements fuse.RawFileSystem.
func (f *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h, name, Rmdir)
}

func (f *FS) remove(h *fuse.InHeader, name string, kind Kind) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.child(h.NodeId, name)
	switch {
	case i == nil:
		return fuse.ENOENT
	case i.isDir() && kind == Unlink:
		return fuse.Status(unix.EISDIR)
	case !i.isDir() && kind == Rmdir:
		return fuse.ENOTDIR
	case len(i.entries) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	}
	if s := f.do(&Op{Kind: kind, ino: i.ino, dir: h.NodeId, name: name}); !s.Ok() {
		return s
	}
	f.unnamed(i, f.state.inodes[h.NodeId])
	return fuse.OK
}

// unnamed counts a name that a file has lost.
func (f *FS) unnamed(i, dir *inode) {
	i.nlink--
	i.ctime, dir.mtime = now(), now()
	if i.isDir() {
		i.nlink = 0
		dir.nlink--
	}
}

// Rename implements fuse.RawFileSystem.
func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, name2 string) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, d2 := f.state.inodes[in.NodeId], f.state.inodes[in.Newdir]
	i := f.child(in.NodeId, name)
	if i == nil || d2 == nil || d2.nlink == 0 {
		return fuse.ENOENT
	}
	there := f.child(in.Newdir, name2)
	switch {
	case in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0:
		return fuse.EINVAL
	case there != nil && in.Flags&unix.RENAME_NOREPLACE != 0:
		return fuse.Status(unix.EEXIST)
	case there == nil && in.Flags&unix.RENAME_EXCHANGE != 0:
		return fuse.ENOENT
	case there == i:
		return fuse.OK
	case there != nil && in.Flags&unix.RENAME_EXCHANGE == 0 && len(there.entries) > 0:
		return fuse.Status(unix.ENOTEMPTY)
	}
	o := &Op{Kind: Rename, ino: i.ino, dir: d.ino, name: name, dir2: d2.ino, name2: name2}
	if there != nil {
		o.other = there.ino
	}
	if in.Flags&unix.RENAME_EXCHANGE != 0 {
		o.Kind = Exchange
	}
	if in.Flags&unix.RENAME_WHITEOUT != 0 {
		t := now()
		o.left = &inode{ino: f.state.next, mode: unix.S_IFCHR, uid: in.Uid, gid: in.Gid, nlink: 1, atime: t, mtime: t, ctime: t}
	}
	if s := f.do(o); !s.Ok() {
		return s
	}
	f.renamed(o, i, there, d, d2)
	return fuse.OK
}

// renamed counts names and sets parents after a rename.
func (f *FS) renamed(o *Op, i, there, d, d2 *inode) {
	t := now()
	d.mtime, d2.mtime, i.ctime = t, t, t
	if o.Kind == Rename && there != nil {
		f.unnamed(there, d2)
	}
	move := func(i, from, to *inode) {
		if i.isDir() {
			i.parent = to.ino
			from.nlink--
			to.nlink++
		}
	}
	move(i, d, d2)
	if o.Kind == Exchange {
		move(there, d2, d)
	}
}

// Readlink implements fuse.RawFileSystem.
func (f *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[h.NodeId]
	if i == nil || i.target == "" {
		return nil, fuse.EINVAL
	}
	return []byte(i.target), fuse.OK
}

// GetXAttr implements fuse.RawFileSystem.
func (f *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[h.NodeId]
	if i == nil {
		return 0, fuse.ENOENT
	}
	v, ok := i.xattrs[name]
	if !ok {
		return 0, fuse.ENOATTR
	}
	return answer(dest, v)
}

func answer(dest, v []byte) (uint32, fuse.Status) {
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// ListXAttr implements fuse.RawFileSystem.
func (f *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[h.NodeId]
	if i == nil {
		return 0, fuse.ENOENT
	}
	var list []byte
	for _, name := range slices.Sorted(maps.Keys(i.xattrs)) {
		list = append(append(list, name...), 0)
	}
	return answer(dest, list)
}

// SetXAttr implements fuse.RawFileSystem.
func (f *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[in.NodeId]
	if i == nil {
		return fuse.ENOENT
	}
	_, there := i.xattrs[name]
	switch {
	case there && in.Flags&unix.XATTR_CREATE != 0:
		return fuse.Status(unix.EEXIST)
	case !there && in.Flags&unix.XATTR_REPLACE != 0:
		return fuse.ENOATTR
	}
	i.ctime = now()
	return f.do(&Op{Kind: Setxattr, ino: i.ino, xattr: name, data: append([]byte{}, data...)})
}

// RemoveXAttr implements fuse.RawFileSystem.
func (f *FS) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[h.NodeId]
	if i == nil {
		return fuse.ENOENT
	}
	if _, ok := i.xattrs[name]; !ok {
		return fuse.ENOATTR
	}
	i.ctime = now()
	return f.do(&Op{Kind: Setxattr, ino: i.ino, xattr: name})
}

// Open implements fuse.RawFileSystem.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.inodes[in.NodeId] == nil {
		return fuse.ENOENT
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	if s := f.do(&Op{Kind: Open, ino: in.NodeId}); !s.Ok() || in.Flags&unix.O_TRUNC == 0 {
		return s
	}
	return f.do(&Op{Kind: Truncate, ino: in.NodeId})
}

// Read implements fuse.RawFileSystem.
func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[in.NodeId]
	if i == nil {
		return nil, fuse.ENOENT
	}
	off := min(in.Offset, uint64(len(i.data)))
	return fuse.ReadResultData(buf[:copy(buf, i.data[off:])]), fuse.OK
}

// Write implements fuse.RawFileSystem.
func (f *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[in.NodeId]
	if i == nil {
		return 0, fuse.ENOENT
	}
	o := &Op{Kind: Write, ino: i.ino, off: int64(in.Offset), data: append([]byte{}, data...)}
	if err := f.ask(o); err != nil {
		if !errors.Is(err, ErrShort) || len(data) < 2 {
			return 0, toStatus(err)
		}
		o.data = o.data[:len(data)/2]
	}
	f.done(o)
	i.mtime, i.ctime = now(), now()
	return uint32(len(o.data)), fuse.OK
}

// Flush implements fuse.RawFileSystem: it is close(2).
func (f *FS) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.do(&Op{Kind: Close, ino: in.NodeId})
}

// Release implements fuse.RawFileSystem.
func (f *FS) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// Forget implements fuse.RawFileSystem: what was removed stays in memory.
func (f *FS) Forget(uint64, uint64) {}

// Fsync implements fuse.RawFileSystem.
func (f *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &Op{Kind: Fsync, ino: in.NodeId}
	if in.FsyncFlags&1 != 0 {
		o.Kind = Datasync
	}
	return f.do(o)
}

// FsyncDir implements fuse.RawFileSystem.
func (f *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.do(&Op{Kind: Fsync, ino: in.NodeId})
}

// Fallocate implements fuse.RawFileSystem.
func (f *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.state.inodes[in.NodeId]
	if i == nil {
		return fuse.ENOENT
	}
	if in.Mode&^(unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	o := &Op{Kind: Punch, ino: i.ino, off: int64(in.Offset), length: int64(in.Length), attr: &attrChange{mode: &in.Mode}}
	mode := in.Mode // in is used again after the call
	o.attr.mode = &mode
	return f.do(o)
}

// OpenDir implements fuse.RawFileSystem.
func (f *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.state.inodes[in.NodeId]
	if d == nil {
		return fuse.ENOENT
	}
	if s := f.do(&Op{Kind: Opendir, ino: d.ino}); !s.Ok() {
		return s
	}
	f.handle++
	out.Fh = f.handle
	f.dirs[out.Fh] = nil
	return fuse.OK
}

// list returns what a directory holds now.
func (f *FS) list(ino uint64) []fuse.DirEntry {
	d := f.state.inodes[ino]
	list := []fuse.DirEntry{{Name: ".", Ino: d.ino, Mode: unix.S_IFDIR}, {Name: "..", Ino: d.parent, Mode: unix.S_IFDIR}}
	for _, name := range slices.Sorted(maps.Keys(d.entries)) {
		i := f.state.inodes[d.entries[name]]
		list = append(list, fuse.DirEntry{Name: name, Ino: i.ino, Mode: i.mode})
	}
	return list
}

// ReadDir implements fuse.RawFileSystem.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if in.Offset == 0 {
		f.dirs[in.Fh] = f.list(in.NodeId)
	}
	list := f.dirs[in.Fh]
	for n := in.Offset; n < uint64(len(list)); n++ {
		e := list[n]
		e.Off = n + 1
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (f *FS) ReleaseDir(in *fuse.ReleaseIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.dirs, in.Fh)
}

// StatFs implements fuse.RawFileSystem.
func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail = 1<<20, 1<<19, 1<<19
	out.Files, out.Ffree = 1<<20, 1<<19
	return fuse.OK
}
