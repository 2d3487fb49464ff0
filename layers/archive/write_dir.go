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
	return writeWholeDir(ctx, dir, []string{"blobs/sha256", "blobs"}, func(s *dirSink) error {
		return writeOCI(ctx, s, images, o)
	})
}

// writeWholeDir has fill write the files of a directory that nobody knows, with the
// directories subs in it, the deepest first, and gives it its name when all is on the
// disk.
func writeWholeDir(ctx context.Context, dir string, subs []string, fill func(s *dirSink) error) (err error) {
	dir = filepath.Clean(dir)
	if err := wantFree(dir); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	s := newDirSink(ctx, filepath.Join(temp, "layout"))
	defer s.close()
	for _, d := range append(subs, ".") {
		if err := os.MkdirAll(filepath.Join(s.root, d), 0o777); err != nil {
			return err
		}
	}
	if err := fill(s); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
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

// A dirSink writes files below a directory that nobody else knows. They have their names
// after flush.
type dirSink struct {
	root    string
	temp    int // files made so far
	check   *checker
	pending []pendingFile
}

// A pendingFile is a file that is written, but perhaps not checked.
type pendingFile struct {
	f    *os.File
	name string
}

// maxPending limits the files that are open.
const maxPending = 64

func newDirSink(ctx context.Context, root string) *dirSink {
	return &dirSink{root: root, check: newChecker(ctx)}
}

// close gives up what is pending.
func (s *dirSink) close() {
	s.check.close()
	for _, p := range s.pending {
		p.f.Close() // nobody will read it
	}
	s.pending = nil
}

func (s *dirSink) put(name string, size int64, from io.WriterTo) error {
	f, err := s.temporary()
	if err != nil {
		return err
	}
	var n int64
	if c, ok := from.(checkable); ok {
		n, err = s.check.write(f, c, size)
	} else {
		n, err = from.WriteTo(f)
	}
	if err == nil && n != size {
		err = fmt.Errorf("%s: %w: it has %d bytes instead of %d", name, ErrVerification, n, size)
	}
	s.pending = append(s.pending, pendingFile{f, name}) // also after an error: it may be being checked
	if err == nil && len(s.pending) >= maxPending {
		err = s.flush()
	}
	return err
}

func (s *dirSink) temporary() (*os.File, error) {
	s.temp++
	return os.OpenFile(filepath.Join(s.root, fmt.Sprintf(".blob-%d", s.temp)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

func (s *dirSink) begin() (part, error) {
	f, err := s.temporary()
	return &filePart{File: f, adopt: s.adopt, named: true}, err
}

func (s *dirSink) adopt(name string, _ int64, f *os.File) error {
	s.pending = append(s.pending, pendingFile{f, name})
	if len(s.pending) >= maxPending {
		return s.flush()
	}
	return nil
}

// flush waits until all files are right and on the disk, and gives them their names.
func (s *dirSink) flush() error {
	if err := s.check.wait(); err != nil {
		return err
	}
	for len(s.pending) > 0 {
		p := s.pending[0]
		s.pending = s.pending[1:]
		if err := errors.Join(p.f.Sync(), p.f.Close()); err != nil {
			return err
		}
		if err := os.Rename(p.f.Name(), filepath.Join(s.root, filepath.FromSlash(p.name))); err != nil {
			return err
		}
	}
	return nil
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
