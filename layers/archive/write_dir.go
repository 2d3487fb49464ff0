package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteDir writes images as an OCI layout directory, which must not exist yet or be
// empty; otherwise the error wraps fs.ErrExist. The directory appears whole and synced
// or not at all: it is written beside its place and renamed. The same images give
// the same files; o.TempDir is not used.
func WriteDir(ctx context.Context, dir string, images []SaveImage, o *WriteOptions) error {
	if o == nil {
		o = &WriteOptions{}
	}
	if len(images) == 0 {
		return fmt.Errorf("%w to write", ErrNoImage)
	}
	return writeWholeDir(dir, []string{"blobs/sha256", "blobs"}, func(s *dirSink) error {
		return writeOCI(ctx, s, images, o)
	})
}

// writeWholeDir has fill write the files of a directory that nobody knows, with the
// directories subs in it, the deepest first, and gives it its name when all is on the
// disk.
func writeWholeDir(dir string, subs []string, fill func(s *dirSink) error) (err error) {
	dir = filepath.Clean(dir)
	if err := wantFree(dir); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	s := &dirSink{root: filepath.Join(temp, "layout")}
	for _, d := range append(subs, ".") {
		if err := os.MkdirAll(filepath.Join(s.root, d), 0o777); err != nil {
			return err
		}
	}
	if err := fill(s); err != nil {
		return err
	}
	for _, d := range append(subs, ".") {
		if err := syncDir(filepath.Join(s.root, d)); err != nil {
			return err
		}
	}
	// Unlike os.Rename, the system call replaces an empty directory.
	if err := unix.Rename(s.root, dir); err != nil {
		return &os.LinkError{Op: "rename", Old: s.root, New: dir, Err: err}
	}
	return syncDir(filepath.Dir(dir))
}

// wantFree returns an error unless a directory can be renamed to path.
func wantFree(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s: the directory is not empty; remove it or give another name: %w", path, fs.ErrExist)
	}
	return nil
}

// A dirSink writes files below a directory that nobody else knows.
type dirSink struct {
	root string
	temp int // files made so far
}

func (s *dirSink) put(name string, size int64, from io.WriterTo) error {
	f, err := s.temporary()
	if err != nil {
		return err
	}
	n, err := from.WriteTo(f)
	if err == nil && n != size {
		err = fmt.Errorf("%s: %w: it has %d bytes instead of %d", name, ErrVerification, n, size)
	}
	if err != nil {
		f.Close()
		return err
	}
	return s.adopt(name, n, f)
}

func (s *dirSink) temporary() (*os.File, error) {
	s.temp++
	return os.OpenFile(filepath.Join(s.root, fmt.Sprintf(".blob-%d", s.temp)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

func (s *dirSink) adopt(name string, _ int64, f *os.File) error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(s.root, filepath.FromSlash(name)))
}

// syncDir makes the names in a directory durable. Some file systems cannot, and
// then need not.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}
