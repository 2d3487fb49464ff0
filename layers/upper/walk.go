package upper

import (
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Walk calls fn for everything below an upper directory, whiteouts included:
// directories before what is in them, and the names of each in byte order. at is
// valid during the call only. When fn returns [fs.SkipDir] for a directory, what is
// below it is left out. What vanishes while the walk is on its way is skipped.
func (f *Format) Walk(root string, fn func(path string, at At, e *Entry) error) error {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: root, Err: err}
	}
	return f.walk(os.NewFile(uintptr(fd), root), "", fn)
}

// walk visits what is in a directory, which it closes.
func (f *Format) walk(dir *os.File, path string, fn func(path string, at At, e *Entry) error) error {
	defer dir.Close() // it was only read
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	fd := int(dir.Fd())
	for _, name := range names {
		at, full := At{fd, name}, name
		if path != "" {
			full = path + "/" + name
		}
		e, err := f.Read(at)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
		err = fn(full, at, &e)
		if err == fs.SkipDir {
			continue
		}
		if err == nil && e.Mode&unix.S_IFMT == unix.S_IFDIR && !e.Whiteout {
			err = f.walkInto(at, full, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Format) walkInto(at At, path string, fn func(path string, at At, e *Entry) error) error {
	fd, err := at.Open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return f.walk(os.NewFile(uintptr(fd), path), path, fn)
}
