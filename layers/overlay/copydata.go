package overlay

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

// fill gives a new copy of a regular file its content, or marks it as a metacopy.
func (f *FS) fill(fd int, n *node, how extent) error {
	a, err := f.below.Attr(n.lower)
	if err != nil || a.Size == 0 || how == noContent {
		return err
	}
	if how == metaOnly && (!f.format.User() || a.Size >= userMetacopy) {
		return f.makeMetacopy(fd, a.Size)
	}
	return f.copyContent(fd, n.lower, a.Size)
}

func (f *FS) makeMetacopy(fd int, size int64) error {
	if f.format.User() {
		if err := f.markFuseOnly(); err != nil {
			return err
		}
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return err
	}
	return f.format.SetMetacopy(upper.At{Dir: fd})
}

// completeCopy gives a metacopy its content. Preconditions: n.mu is held.
func (f *FS) completeCopy(n *node, how extent) error {
	fd, err := f.pin(n)
	if err != nil {
		return err
	}
	defer f.fds.unpin(n)
	at := upper.At{Dir: fd}
	st, err := at.Stat()
	if err != nil {
		return err
	}
	if how != noContent {
		err := f.keepingCaps(n, at, func() error { return f.copyContent(fd, n.lower, st.Size) })
		if err = errors.Join(err, at.SetTimes(st.Atim, st.Mtim)); err == nil {
			// The mark must not be gone before the content is there.
			err = unix.Fsync(fd)
		}
		if err != nil {
			// It stays a metacopy, and takes no space.
			_ = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, st.Size)
			_ = at.SetTimes(st.Atim, st.Mtim)
			return plainErrno("copy up", err)
		}
	} else if err := unix.Ftruncate(fd, 0); err != nil {
		return err
	}
	if err := f.format.DropMetacopy(at); err != nil {
		return err
	}
	if n.e.Redirect != "" {
		if err := f.format.DropRedirect(at); err != nil {
			return err
		}
		n.e.Redirect = ""
	}
	n.e.Metacopy = false
	n.metacopy.Store(false)
	return nil
}

// keepingCaps calls fn, which writes, and gives the file back the capabilities that
// this costs it: a writer may not have come yet.
func (f *FS) keepingCaps(n *node, at upper.At, fn func() error) error {
	if !n.e.HasXattrs || f.format.User() {
		return fn()
	}
	caps, ok, err := f.format.Xattr(at, capability)
	if err == nil {
		err = fn()
	}
	if err == nil && ok {
		err = f.format.SetXattr(at, capability, caps, 0)
	}
	return err
}

// copyContent copies the content of a file below, as the host does it fastest.
func (f *FS) copyContent(fd int, n union.Node, size int64) error {
	layer := f.layers[n.Layer]
	if body, ok, err := layer.OpenBody(n.Ino); err != nil {
		return err
	} else if ok {
		defer body.Close() // it was only read
		if done, err := copyFileRange(fd, int(body.Fd()), size); done || err != nil {
			return err
		}
	}
	if b, ok := layer.Bytes(n.Ino, 0, size); ok && int64(len(b)) == size {
		return writeAll(fd, b, 0)
	}
	return f.copyRead(fd, n, size)
}

// copyFileRange lets the host copy: by sharing the blocks where it can. false means
// that it cannot.
func copyFileRange(to, from int, size int64) (bool, error) {
	if unix.IoctlFileClone(to, from) == nil {
		return true, unix.Ftruncate(to, size)
	}
	var off int64
	for off < size {
		in, out := off, off
		n, err := unix.CopyFileRange(from, &in, to, &out, int(min(size-off, 1<<30)), 0)
		switch {
		case err == unix.EINTR:
		case err == unix.ENOSPC || err == unix.EDQUOT || err == unix.EIO:
			return false, err
		case err != nil || n == 0:
			return false, nil
		}
		off += int64(n)
	}
	return true, nil
}

// copyBuffer is how much is copied at a time, and the grain of holes.
const copyBuffer = 1 << 20

func (f *FS) copyRead(fd int, n union.Node, size int64) error {
	if err := unix.Ftruncate(fd, size); err != nil {
		return err
	}
	buf := make([]byte, min(copyBuffer, size))
	for off := int64(0); off < size; {
		next, _, err := f.dataFrom(n, off, size)
		if err != nil || next >= size {
			return err
		}
		off = next
		k, err := f.layers[n.Layer].ReadAt(n.Ino, buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if k == 0 {
			return io.ErrUnexpectedEOF
		}
		if err := writeAll(fd, buf[:k], off); err != nil {
			return err
		}
		off += int64(k)
	}
	return nil
}

// dataFrom returns where the next data of a file below begins and ends.
func (f *FS) dataFrom(n union.Node, off, size int64) (from, to int64, err error) {
	a, err := f.below.Attr(n)
	if err != nil || !a.Sparse {
		return off, size, err
	}
	e, _, ok, err := f.below.Layer(n.Layer).SparseAt(n.Ino, off)
	if err != nil || !ok {
		return size, size, err
	}
	return max(off, e.Offset), e.Offset + e.Length, nil
}

func writeAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}
