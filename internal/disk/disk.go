package disk

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Op names a kind of operation for [Disk.Hook].
type Op string

// The operations that a hook sees.
const (
	OpCreate   Op = "create"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpClose    Op = "close"
	OpMkdir    Op = "mkdir"
	OpRename   Op = "rename" // the path is the new name
	OpLink     Op = "link"   // the path is the new name
	OpRemove   Op = "remove"
	OpSyncDir  Op = "syncdir"
	OpSyncFS   Op = "syncfs" // the path is the directory the [Syncer] was opened with
	OpPunch    Op = "punch"
)

// ErrShort makes a write short: when the error that a hook returns for
// [OpWrite] wraps ErrShort, half of the bytes are written before the error is
// returned, as on a disk that becomes full.
var ErrShort = errors.New("short write")

// Disk changes files. A nil *Disk is valid and has no hook.
type Disk struct {
	// Hook runs before each operation. When it returns an error, the operation
	// is not done and the error is returned instead (see ErrShort for writes);
	// a file whose close fails this way is closed all the same.
	// It is called from many goroutines at once.
	Hook func(op Op, path string) error

	// ForceSyncFS makes a Syncer use syncfs on every file system, so that a
	// recorded order of operations is the same on all of them.
	ForceSyncFS bool
}

// before asks the hook whether op may happen.
func (d *Disk) before(op Op, path string) error {
	if d == nil || d.Hook == nil {
		return nil
	}
	if err := d.Hook(op, path); err != nil {
		return &fs.PathError{Op: string(op), Path: path, Err: err}
	}
	return nil
}

// Create makes a new file for reading and writing. It is an error wrapping
// fs.ErrExist when the path exists. The caller closes the file.
func (d *Disk) Create(path string, perm fs.FileMode) (*File, error) {
	if err := d.before(OpCreate, path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, perm)
	if err != nil {
		return nil, err
	}
	return &File{disk: d, f: f, path: path}, nil
}

// Adopt opens a file that is there already for reading and writing, as if Create had
// made it. The caller closes the file.
func (d *Disk) Adopt(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &File{disk: d, f: f, path: path}, nil
}

// Mkdir makes one directory.
func (d *Disk) Mkdir(path string, perm fs.FileMode) error {
	if err := d.before(OpMkdir, path); err != nil {
		return err
	}
	return os.Mkdir(path, perm)
}

// MkdirAll makes a directory and the parents it lacks; an existing one is no
// error, and no operation for the hook. The new names are not synced.
func (d *Disk) MkdirAll(path string, perm fs.FileMode) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil
	}
	if err := d.before(OpMkdir, path); err != nil {
		return err
	}
	return os.MkdirAll(path, perm)
}

// Rename gives the file or directory oldpath the name newpath and replaces a
// file of that name.
func (d *Disk) Rename(oldpath, newpath string) error {
	if err := d.before(OpRename, newpath); err != nil {
		return err
	}
	return os.Rename(oldpath, newpath)
}

// Link gives the file oldpath a second name. It is an error wrapping
// fs.ErrExist when newpath exists.
func (d *Disk) Link(oldpath, newpath string) error {
	if err := d.before(OpLink, newpath); err != nil {
		return err
	}
	return os.Link(oldpath, newpath)
}

// Remove removes a file or an empty directory. A missing one is an error
// wrapping fs.ErrNotExist.
func (d *Disk) Remove(path string) error {
	if err := d.before(OpRemove, path); err != nil {
		return err
	}
	return os.Remove(path)
}

// RemoveAll removes a file, or a directory with all it holds. A missing one is
// no error. It is one operation for the hook.
func (d *Disk) RemoveAll(path string) error {
	if err := d.before(OpRemove, path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// SyncDir makes the names in a directory durable.
func (d *Disk) SyncDir(path string) error {
	if err := d.before(OpSyncDir, path); err != nil {
		return err
	}
	return syncPath(path)
}

// syncPath opens a file or directory and syncs it. A file opened after a failed
// write-back still learns about it as long as nobody else was told.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // read only: nothing can be lost
	return f.Sync()
}

// Punch gives the space of n bytes at off back to the file system; they read as
// zeros afterwards and the size stays. It reports false when the file system
// cannot do that: then nothing has changed, and it is no error.
func (d *Disk) Punch(f *os.File, off, n int64) (bool, error) {
	if err := d.before(OpPunch, f.Name()); err != nil {
		return false, err
	}
	err := retry(func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return false, nil
	}
	return false, &fs.PathError{Op: "punch", Path: f.Name(), Err: err}
}

// retry repeats a system call that a signal has interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
