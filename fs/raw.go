package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
)

// rawFS is the file system as go-fuse's ProtocolServer sees it. It answers what is asked rarely; package wire asks
// fileSystem itself for the rest.
type rawFS struct {
	fuse.RawFileSystem
	f *fileSystem
}

func newRaw(f *fileSystem) rawFS { return rawFS{fuse.NewDefaultRawFileSystem(), f} }

// String names the file system.
func (r rawFS) String() string { return "layerfs" }

// Open refuses to hear of opened files at all, unless passthrough needs it.
func (r rawFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if r.f.backing == nil {
		return fuse.ENOSYS
	}
	return fuse.Status(r.f.backing.open(r.f, in.NodeId, out))
}

// Release lets the backing file of a passthrough go.
func (r rawFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if r.f.backing != nil && in.Fh != 0 {
		r.f.backing.release(in.NodeId)
	}
}

// StatFs answers for the file system that the store lies on.
func (r rawFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return r.f.statFs(out)
}

func (f *fileSystem) statFs(out *fuse.StatfsOut) fuse.Status {
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.store.Root(), &st); err != nil {
		return fuse.Status(f.errno(err))
	}
	out.FromStatfsT(&st)
	out.NameLen = 255
	return fuse.OK
}

// Lseek finds data and holes of sparse files.
func (r rawFS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	off, errno := r.f.seek(in.NodeId, int64(in.Offset), in.Whence)
	out.Offset = uint64(off)
	return fuse.Status(errno)
}

// seek is lseek(2) for SEEK_DATA and SEEK_HOLE.
func (f *fileSystem) seek(node uint64, off int64, whence uint32) (int64, syscall.Errno) {
	s := f.snap.Load()
	var a fuse.Attr
	if errno := f.attr(s, node, &a); errno != 0 {
		return 0, errno
	}
	size := int64(a.Size)
	switch {
	case whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE:
		return 0, syscall.EINVAL
	case off < 0 || off >= size:
		return 0, syscall.ENXIO
	}
	t, i, errno := f.metaOf(s, node)
	if errno != 0 {
		return 0, errno
	}
	if t != nil {
		at, err := seekTree(t, i, off, size, whence)
		if errno, ok := err.(syscall.Errno); ok {
			return 0, errno
		}
		return at, f.errno(err)
	}
	if whence == unix.SEEK_HOLE {
		return size, 0
	}
	return off, 0
}

// seekTree finds data or a hole in a file of a tree; without a map of extents all of it is data.
func seekTree(t *tree.Tree, i tree.Ino, off, size int64, whence uint32) (int64, error) {
	a, err := t.Attr(i)
	if err != nil {
		return 0, err
	}
	if !a.Sparse {
		if whence == unix.SEEK_HOLE {
			return size, nil
		}
		return off, nil
	}
	if whence == unix.SEEK_DATA {
		e, _, ok, err := t.SparseAt(i, off)
		if err == nil && !ok {
			err = syscall.ENXIO
		}
		return max(off, e.Offset), err
	}
	for {
		e, _, ok, err := t.SparseAt(i, off)
		if err != nil || !ok || e.Offset > off {
			return min(off, size), err
		}
		off = e.Offset + e.Length
	}
}
