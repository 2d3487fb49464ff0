package overlay

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

// Opened says how a file was opened.
type Opened struct {
	// Up: it has a descriptor, which Release gives back. Otherwise it is below, and
	// nothing is kept.
	Up bool
	// Fd is the descriptor, -1 while the content is still below.
	Fd int
}

// Open opens a regular file; flags are those of open(2), of which the access mode and
// O_TRUNC count. killPriv says that truncating takes set-user-ID bits away.
func (f *FS) Open(id ID, flags uint32, killPriv bool) (Opened, error) {
	n := f.get(id)
	if flags&unix.O_ACCMODE == unix.O_RDONLY && flags&unix.O_TRUNC == 0 {
		if n == nil || !n.up.Load() {
			if _, ok := f.lowerNode(id); !ok {
				return Opened{}, unix.ESTALE
			}
			return Opened{Fd: -1}, nil
		}
	} else {
		how := all
		if flags&unix.O_TRUNC != 0 {
			how = noContent
		}
		var err error
		if n, err = f.copyUp(id, how); err != nil {
			return Opened{}, err
		}
	}
	fd, err := f.pin(n)
	if err != nil {
		return Opened{}, err
	}
	f.fds.open(n)
	if flags&unix.O_TRUNC != 0 {
		if err := f.truncate(n, fd, 0, killPriv); err != nil {
			f.fds.release(n)
			return Opened{}, err
		}
	}
	if n.metacopy.Load() {
		fd = -1
	}
	return Opened{Up: true, Fd: fd}, nil
}

// Release undoes an Open or Create whose result was Up.
func (f *FS) Release(id ID) {
	if n := f.get(id); n != nil {
		f.fds.release(n)
	}
}

// descriptor pins the descriptor of a file whose content is up; nil when the content
// is below.
func (f *FS) descriptor(id ID) (*node, int, error) {
	n := f.get(id)
	if n == nil || !n.up.Load() || n.metacopy.Load() {
		return nil, -1, nil
	}
	if n.kind != unix.S_IFREG {
		return nil, -1, unix.EINVAL
	}
	fd, err := f.pin(n)
	return n, fd, err
}

// Read reads from a file. The result is the beginning of buf or memory that stays
// readable as long as the layers are open; it is shorter only at the end of the file.
func (f *FS) Read(id ID, buf []byte, off int64) ([]byte, error) {
	n, fd, err := f.descriptor(id)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return f.readBelow(id, buf, off)
	}
	defer f.fds.unpin(n)
	got := 0
	for got < len(buf) {
		k, err := unix.Pread(fd, buf[got:], off+int64(got))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if k == 0 {
			break
		}
		got += k
	}
	return buf[:got], nil
}

// belowOf returns the file below that the content of a node is.
func (f *FS) belowOf(id ID) (union.Node, error) {
	n := f.get(id)
	if n != nil && n.hasLower {
		return n.lower, nil
	}
	l, ok := f.lowerNode(id)
	if !ok {
		return l, unix.ESTALE
	}
	return l, nil
}

func (f *FS) readBelow(id ID, buf []byte, off int64) ([]byte, error) {
	l, err := f.belowOf(id)
	if err != nil {
		return nil, err
	}
	layer := f.layers[l.Layer]
	if b, ok := layer.Bytes(l.Ino, off, int64(len(buf))); ok {
		return b, nil
	}
	k, err := layer.ReadAt(l.Ino, buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf[:k], nil
}

// Write writes to a file that was opened for it. killPriv says that this takes
// set-user-ID bits away.
func (f *FS) Write(id ID, data []byte, off int64, killPriv bool) error {
	n, fd, err := f.descriptor(id)
	if err != nil {
		return err
	}
	if n == nil {
		return unix.EBADF
	}
	defer f.fds.unpin(n)
	if err := f.dropPriv(n, killPriv); err != nil {
		return err
	}
	return writeAll(fd, data, off)
}

// dropPriv takes away what a file loses when it is written: capabilities, and with
// kill the set-user-ID bits. Capabilities that the host knows of it takes itself. The kernel says so of every write
// of an ordinary user: the mode that is known decides whether the host is asked.
func (f *FS) dropPriv(n *node, kill bool) error {
	n.mu.RLock()
	caps := f.format.User() && n.e.HasXattrs
	kill = kill && n.e.Mode&(unix.S_ISUID|unix.S_ISGID) != 0
	n.mu.RUnlock()
	if !caps && !kill {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	defer done()
	if caps {
		if err := f.format.RemoveXattr(at, capability); err != nil && err != unix.ENODATA {
			return err
		}
	}
	if !kill {
		return nil
	}
	have, err := f.format.Read(at)
	if err != nil {
		return err
	}
	return f.setMeta(n, at, &have, withoutPriv(&have))
}

// withoutPriv returns what is left of owner and mode after a write.
func withoutPriv(e *upper.Entry) upper.Override {
	o := upper.Override{UID: e.UID, GID: e.GID, Mode: e.Mode &^ unix.S_ISUID, Major: e.Major, Minor: e.Minor}
	if o.Mode&unix.S_IXGRP != 0 {
		o.Mode &^= unix.S_ISGID
	}
	return o
}

// truncate sets the size of a file that is up.
func (f *FS) truncate(n *node, fd int, size int64, killPriv bool) error {
	if err := f.dropPriv(n, killPriv); err != nil {
		return err
	}
	for {
		if err := unix.Ftruncate(fd, size); err != unix.EINTR {
			return err
		}
	}
}

// Fsync makes sure that a file or directory is on the disk. The name of one that was
// copied up has been there for ever as far as programs can see, so it is too.
func (f *FS) Fsync(id ID, dataOnly bool) error {
	n := f.get(id)
	if n == nil || !n.up.Load() {
		return nil
	}
	if err := f.syncPlace(n); err != nil {
		return err
	}
	if n.isDir() {
		return f.syncDir(n)
	}
	if n.kind != unix.S_IFREG {
		return nil
	}
	fd, err := f.pin(n)
	if err != nil {
		return err
	}
	defer f.fds.unpin(n)
	if dataOnly {
		return f.slow(func() error { return unix.Fdatasync(fd) })
	}
	return f.slow(func() error { return unix.Fsync(fd) })
}

// syncPlace makes the place of a node durable that was copied up, and those of the
// directories above it that were.
func (f *FS) syncPlace(n *node) error {
	for n.unsynced.Load() {
		n.place.RLock()
		parent := n.parent
		n.place.RUnlock()
		if parent == nil {
			return nil
		}
		if err := f.syncDir(parent); err != nil {
			return err
		}
		n.unsynced.Store(false)
		n = parent
	}
	return nil
}

// syncDir makes the names in a directory durable.
func (f *FS) syncDir(n *node) error {
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	fd, err := at.Open(unix.O_RDONLY | unix.O_DIRECTORY)
	done()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.slow(func() error { return unix.Fsync(fd) })
}

// Fallocate is fallocate(2); killPriv as in Write.
func (f *FS) Fallocate(id ID, mode uint32, off, length int64, killPriv bool) error {
	n, fd, err := f.descriptor(id)
	if err != nil {
		return err
	}
	if n == nil {
		return unix.EBADF
	}
	defer f.fds.unpin(n)
	if err := f.dropPriv(n, killPriv); err != nil {
		return err
	}
	return f.slow(func() error {
		return upper.IgnoringEINTR(func() error { return unix.Fallocate(fd, mode, off, length) })
	})
}

// Seek is lseek(2) for SEEK_DATA and SEEK_HOLE.
func (f *FS) Seek(id ID, off int64, whence int) (int64, error) {
	n, fd, err := f.descriptor(id)
	if err != nil {
		return 0, err
	}
	if n != nil {
		defer f.fds.unpin(n)
		return unix.Seek(fd, off, whence)
	}
	l, err := f.belowOf(id)
	if err != nil {
		return 0, err
	}
	a, err := f.below.Attr(l)
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= a.Size {
		return 0, unix.ENXIO
	}
	if whence == unix.SEEK_DATA {
		from, _, err := f.dataFrom(l, off, a.Size)
		if err == nil && from >= a.Size {
			err = unix.ENXIO
		}
		return from, err
	}
	return f.holeFrom(l, off, a.Size)
}

// holeFrom returns where the next hole of a file below begins: the end at the latest.
func (f *FS) holeFrom(l union.Node, off, size int64) (int64, error) {
	for off < size {
		from, to, err := f.dataFrom(l, off, size)
		if err != nil || from > off {
			return off, err
		}
		off = min(to, size)
	}
	return off, nil
}

// CopyRange copies a part of a file to another that was opened for writing, and
// returns how much; killPriv as in Write.
func (f *FS) CopyRange(from ID, fromOff int64, to ID, toOff, length int64, killPriv bool) (int64, error) {
	dst, dstFd, err := f.descriptor(to)
	if err != nil {
		return 0, err
	}
	if dst == nil {
		return 0, unix.EBADF
	}
	defer f.fds.unpin(dst)
	if err := f.dropPriv(dst, killPriv); err != nil {
		return 0, err
	}
	src, srcFd, err := f.descriptor(from)
	if err != nil {
		return 0, err
	}
	if src == nil {
		return f.copyRangeBelow(from, fromOff, dstFd, toOff, length)
	}
	defer f.fds.unpin(src)
	err = f.slow(func() error {
		n, err := unix.CopyFileRange(srcFd, &fromOff, dstFd, &toOff, int(length), 0)
		length = int64(n)
		return err
	})
	return max(length, 0), err
}

// copyRangeBelow may copy less than is asked for; the caller asks for the rest.
func (f *FS) copyRangeBelow(from ID, off int64, fd int, to, length int64) (int64, error) {
	l, err := f.belowOf(from)
	if err != nil {
		return 0, err
	}
	a, err := f.below.Attr(l)
	if err != nil || off >= a.Size {
		return 0, err
	}
	length = min(length, a.Size-off)
	if b, ok := f.layers[l.Layer].Bytes(l.Ino, off, length); ok {
		return int64(len(b)), writeAll(fd, b, to)
	}
	err = f.slow(func() (err error) {
		length, err = f.copyRangeOf(l, off, fd, to, length)
		return err
	})
	return length, err
}

// copyRangeOf lets the host copy a part of a file of the store, or copies at most one buffer.
func (f *FS) copyRangeOf(l union.Node, off int64, fd int, to, length int64) (int64, error) {
	layer := f.layers[l.Layer]
	body, ok, err := layer.OpenBody(l.Ino)
	if err != nil {
		return 0, err
	}
	if ok {
		defer body.Close() // it was only read
		in, out := off, to
		if n, err := unix.CopyFileRange(int(body.Fd()), &in, fd, &out, int(length), 0); err == nil && n > 0 {
			return int64(n), nil
		}
	}
	buf := make([]byte, min(length, copyBuffer))
	n, err := layer.ReadAt(l.Ino, buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return int64(n), writeAll(fd, buf[:n], to)
}

// Readlink returns the target of a symbolic link.
func (f *FS) Readlink(id ID) ([]byte, error) {
	n := f.get(id)
	if n == nil || !n.up.Load() {
		l, ok := f.lowerNode(id)
		if !ok {
			return nil, unix.ESTALE
		}
		if l.Kind != kindSymlink {
			return nil, unix.EINVAL
		}
		return f.below.Layer(l.Layer).Symlink(l.Ino)
	}
	if n.kind != unix.S_IFLNK {
		return nil, unix.EINVAL
	}
	n.mu.RLock()
	e := n.e
	n.mu.RUnlock()
	at, done, err := f.at(n)
	if err != nil {
		return nil, err
	}
	defer done()
	return f.format.Readlink(at, &e)
}

// Statfs is statfs(2) of the file system that the upper directory is on.
func (f *FS) Statfs() (st unix.Statfs_t, err error) {
	fd, err := f.pin(f.root)
	if err != nil {
		return st, err
	}
	defer f.fds.unpin(f.root)
	return st, unix.Fstatfs(fd, &st)
}
