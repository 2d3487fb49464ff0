package fs

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/layers/overlay"
)

// treeBacking lets the kernel read and write files of containers itself. It accepts one backing file per inode at a
// time, and none while the file is open in another way.
type treeBacking struct {
	conn     *wire.Conn
	counters *counters

	mu    sync.Mutex
	files map[uint64]*treeUse // by node
}

// treeUse is how a file is open.
type treeUse struct {
	id     int32 // of the backing file, when passed is not 0
	passed int   // open files that the kernel serves
	others int   // open files that we serve
}

// opened decides how a file is served that was just opened; fd is -1 when its content is the image's.
func (b *treeBacking) opened(node uint64, fd int, report func(string)) (id int32, passed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.files[node]
	if u == nil {
		u = &treeUse{}
		b.files[node] = u
	}
	defer b.note(node, u)
	if fd >= 0 && u.others == 0 {
		if u.passed == 0 {
			got, err := b.conn.RegisterBacking(fd)
			if err != nil {
				report(fmt.Sprintf("passthrough: %v; the file is served as without it", err))
				u.others++
				return 0, false
			}
			u.id = got
		}
		u.passed++
		return u.id, true
	}
	u.others++
	return 0, false
}

// released undoes opened.
func (b *treeBacking) released(node uint64, passed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.files[node]
	switch {
	case u == nil:
		return
	case !passed:
		u.others--
	default:
		if u.passed--; u.passed == 0 {
			_ = b.conn.UnregisterBacking(u.id) // the kernel forgets it with the connection at the latest
		}
	}
	b.note(node, u)
}

// answer fills in how a file is open. fh is what it would be without passthrough.
func (r treeRaw) answer(c *container, o *openTree, node uint64, fh uint64, fd int, out *fuse.OpenOut) {
	c.handles.Add(1)
	out.Fh, out.OpenFlags = fh, fuse.FOPEN_KEEP_CACHE
	if o.lock == nil {
		out.OpenFlags = 0
	}
	if r.t.passed == nil {
		return
	}
	if id, passed := r.t.passed.opened(node, fd, r.t.f.report); passed {
		out.Fh, out.BackingID, out.OpenFlags = fhPassed, id, fuse.FOPEN_PASSTHROUGH
	}
}

// Open implements fuse.RawFileSystem.
func (r treeRaw) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if kind, _, _ := splitTree(r.t.meant(in.NodeId)); !isTree(kind) {
		return r.openOwn(in, out)
	}
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	got, err := o.Open(id, in.Flags, in.Mode&fuse.OPEN_KILL_SUIDGID != 0)
	if err != nil {
		return result(r.t.errno(err))
	}
	fh := uint64(fhBelow)
	switch {
	case got.Up && got.Fd < 0:
		fh = fhBelowUp
	case got.Up:
		fh = fhUp
	}
	r.answer(c, o, in.NodeId, fh, got.Fd, out)
	return fuse.OK
}

// openOwn opens a file that is not part of a tree.
func (r treeRaw) openOwn(in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c, number, errno := r.t.object(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return result(syscall.EROFS)
	}
	if number == treeChanges || number == treeDiff {
		return result(r.t.openMade(c, number, out))
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// Create implements fuse.RawFileSystem.
func (r treeRaw) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	a, fd, err := o.Create(id, name, in.Mode, r.t.caller(c, &in.InHeader, in.Umask))
	return r.created(c, o, &a, fd, err, out)
}

// Tmpfile implements fuse.RawFileSystem.
func (r treeRaw) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	a, fd, err := o.Tmpfile(id, in.Mode, r.t.caller(c, &in.InHeader, in.Umask))
	return r.created(c, o, &a, fd, err, out)
}

func (r treeRaw) created(c *container, o *openTree, a *overlay.Attr, fd int, err error, out *fuse.CreateOut) fuse.Status {
	if err != nil {
		return result(r.t.errno(err))
	}
	r.t.entry(&out.EntryOut, c, o, a)
	r.answer(c, o, out.NodeId, fhUp, fd, &out.OpenOut)
	return fuse.OK
}

// Release implements fuse.RawFileSystem.
func (r treeRaw) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if in.Fh > fhMade {
		r.t.removeDir(in.Fh)
		return
	}
	if !r.t.memory.released.first(in.Unique) {
		return
	}
	kind, slot, id := splitTree(r.t.meant(in.NodeId))
	c := r.t.list.Load().bySlot[slot]
	if !isTree(kind) || c == nil || in.Fh == 0 {
		return
	}
	if r.t.passed != nil {
		r.t.passed.released(in.NodeId, in.Fh == fhPassed)
	}
	if o := c.open.Load(); o != nil && in.Fh != fhBelow {
		o.Release(id)
	}
	c.handles.Add(-1)
}

// Write implements fuse.RawFileSystem.
func (r treeRaw) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	_, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return 0, result(errno)
	}
	if err := o.Write(id, data, int64(in.Offset), in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0); err != nil {
		return 0, result(r.t.errno(err))
	}
	return uint32(len(data)), fuse.OK
}

// dataOnly is the flag of a request for fdatasync(2).
const dataOnly = 1

// Fsync implements fuse.RawFileSystem.
func (r treeRaw) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if kind, _, _ := splitTree(r.t.meant(in.NodeId)); !isTree(kind) {
		return fuse.OK
	}
	_, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	return result(r.t.errno(o.Fsync(id, in.FsyncFlags&dataOnly != 0)))
}

// FsyncDir implements fuse.RawFileSystem.
func (r treeRaw) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return r.Fsync(cancel, in)
}

// Fallocate implements fuse.RawFileSystem.
func (r treeRaw) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	return result(r.t.errno(o.Fallocate(id, in.Mode, int64(in.Offset), int64(in.Length), r.t.ordinary(c, &in.InHeader))))
}

// CopyFileRange implements fuse.RawFileSystem.
func (r treeRaw) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	c, o, from, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return 0, result(errno)
	}
	other, _, to, errno := r.t.tree(in.NodeIdOut)
	if errno != 0 {
		return 0, result(errno)
	}
	if other != c {
		return 0, result(syscall.EXDEV)
	}
	n, err := o.CopyRange(from, int64(in.OffIn), to, int64(in.OffOut), int64(min(in.Len, maxCopy)), r.t.ordinary(c, &in.InHeader))
	return uint32(n), result(r.t.errno(err))
}

// maxCopy is how much is copied per request.
const maxCopy = 1 << 30

// Lseek implements fuse.RawFileSystem.
func (r treeRaw) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	_, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	off, err := o.Seek(id, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return result(r.t.errno(err))
}

// OpenDir implements fuse.RawFileSystem.
func (r treeRaw) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if kind, _, _ := splitTree(r.t.meant(in.NodeId)); !isTree(kind) {
		entries, errno := r.t.ownEntries(in.NodeId)
		if errno == 0 {
			out.Fh = r.t.dirs.add(&treeDir{entries: entries}, in.NodeId)
		}
		return result(errno)
	}
	c, o, id, errno := r.t.tree(in.NodeId)
	if errno != 0 {
		return result(errno)
	}
	d, err := o.OpenDir(id)
	if err != nil {
		return result(r.t.errno(err))
	}
	out.Fh = r.t.dirs.add(&treeDir{c: c, dir: d}, in.NodeId)
	if o.lock != nil {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR
		if !d.Moved() {
			out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
		}
	}
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (r treeRaw) ReleaseDir(in *fuse.ReleaseIn) { r.t.removeDir(in.Fh) }

// removeDir gives up what was opened under a handle.
func (t *trees) removeDir(fh uint64) {
	if h := t.dirs.remove(fh); h != nil && h.file != nil {
		t.memory.keeper.Drop(keptTreesMade + strconv.FormatUint(fh, 10))
		h.file.Close() // it has no name
	}
}

// ReadHandle implements wire.HandleReader.
func (t *trees) ReadHandle(node, fh uint64, buf []byte, off int64) ([]byte, syscall.Errno) {
	if fh <= fhMade {
		return t.Read(node, buf, off)
	}
	h := t.dirs.get(fh)
	if h == nil {
		return nil, syscall.EBADF
	}
	if err := t.reopen(h); err != nil {
		return nil, t.errno(err)
	}
	if h.file == nil {
		return nil, syscall.EBADF
	}
	n, err := h.file.ReadAt(buf, off)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return nil, t.errno(err)
	}
	return buf[:n], 0
}
