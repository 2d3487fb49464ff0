package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// File is a file that [Disk.Create] made. It may be written by several
// goroutines at once with WriteAt.
type File struct {
	disk *Disk
	f    *os.File
	path string // a file without a name yet has the one that it will get
}

// Name returns the path that the file was created for.
func (f *File) Name() string { return f.path }

// OS returns the open file, for reading and for calls that change nothing.
func (f *File) OS() *os.File { return f.f }

// Write appends p at the file's position; less than len(p) is an error.
func (f *File) Write(p []byte) (int, error) {
	if err := f.disk.before(OpWrite, f.Name()); err != nil {
		return writeHalf(err, p, f.f.Write)
	}
	return f.f.Write(p)
}

// WriteAt writes p at off; less than len(p) is an error.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.disk.before(OpWrite, f.Name()); err != nil {
		return writeHalf(err, p, func(p []byte) (int, error) { return f.f.WriteAt(p, off) })
	}
	return f.f.WriteAt(p, off)
}

// writeHalf does what ErrShort promises to a hook.
func writeHalf(err error, p []byte, write func([]byte) (int, error)) (int, error) {
	if !errors.Is(err, ErrShort) {
		return 0, err
	}
	n, werr := write(p[:len(p)/2])
	return n, errors.Join(err, werr)
}

// Truncate sets the file's size; what is added reads as zeros.
func (f *File) Truncate(size int64) error {
	if err := f.disk.before(OpTruncate, f.Name()); err != nil {
		return err
	}
	return f.f.Truncate(size)
}

// Sync returns when the file's bytes and size are on the disk.
func (f *File) Sync() error {
	if err := f.disk.before(OpSync, f.Name()); err != nil {
		return err
	}
	return f.f.Sync()
}

// StartWriteback asks the kernel to begin writing n bytes at off (n 0: to the
// end) to the disk, so that a later sync has less to wait for. It promises
// nothing: errors are left to the sync, which reports them.
func (f *File) StartWriteback(off, n int64) {
	_ = unix.SyncFileRange(int(f.f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// Close closes the file. A second call is an error wrapping os.ErrClosed.
func (f *File) Close() error {
	err := f.disk.before(OpClose, f.Name())
	return errors.Join(err, f.f.Close())
}
