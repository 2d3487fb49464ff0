package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of files that are not finished.
const tempPrefix = ".tmp-"

// IsTemp says whether a file name is one that WriteFile or WriteNew may leave
// behind when the process is killed in the middle. Who knows that no writer is
// at work may remove such files.
func IsTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// tempName returns a fresh temporary path next to path.
func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix+rand.Text())
}

// WriteFile makes path hold data, durably, whether it existed or not: readers
// see the old content or the new one, and so does the time after a crash.
func (d *Disk) WriteFile(path string, data []byte, perm fs.FileMode) error {
	tmp := tempName(path)
	f, err := d.Create(tmp, perm)
	if err != nil {
		return err
	}
	if err := fill(f, data); err != nil {
		return errors.Join(err, d.Remove(tmp))
	}
	if err := d.Rename(tmp, path); err != nil {
		return errors.Join(err, d.Remove(tmp))
	}
	return d.SyncDir(filepath.Dir(path))
}

// fill writes, syncs and closes f.
func fill(f *File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// WriteNew makes a new file that holds data, durably; it is an error wrapping
// fs.ErrExist when path exists. Where the file system has files without a name
// (O_TMPFILE), nothing is left behind even when the process is killed.
func (d *Disk) WriteNew(path string, data []byte, perm fs.FileMode) error {
	f, err := d.createUnnamed(path, perm)
	if err == nil {
		err = errors.Join(f.writeAndLink(path, data), f.Close())
	}
	if noUnnamed(err) {
		return d.writeNewNamed(path, data, perm)
	}
	if err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}

// noUnnamed says whether err means that files without a name cannot be made
// here (EISDIR: an old kernel) or cannot be named (ENOENT: no /proc).
func noUnnamed(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT)
}

// createUnnamed makes a file without a name in the directory of path.
func (d *Disk) createUnnamed(path string, perm fs.FileMode) (*File, error) {
	if err := d.before(OpCreate, path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Dir(path), unix.O_TMPFILE|os.O_RDWR, perm)
	if err != nil {
		return nil, err
	}
	return &File{disk: d, f: f, path: path}, nil
}

// writeAndLink fills a file without a name and names it path.
func (f *File) writeAndLink(path string, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.disk.before(OpLink, path); err != nil {
		return err
	}
	proc := fmt.Sprintf("/proc/self/fd/%d", f.f.Fd())
	if err := unix.Linkat(unix.AT_FDCWD, proc, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &fs.PathError{Op: "link", Path: path, Err: err}
	}
	return nil
}

// writeNewNamed is WriteNew for file systems without O_TMPFILE.
func (d *Disk) writeNewNamed(path string, data []byte, perm fs.FileMode) error {
	tmp := tempName(path)
	f, err := d.Create(tmp, perm)
	if err != nil {
		return err
	}
	err = fill(f, data)
	if err == nil {
		err = d.Link(tmp, path)
	}
	if err := errors.Join(err, d.Remove(tmp)); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(path))
}
