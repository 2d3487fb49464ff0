package spool

import (
	"errors"
	"fmt"
	"os"
	"reflect"

	"golang.org/x/sys/unix"
)

// heapMax is the number of bytes that a spool keeps on the heap before it makes
// a file.
const heapMax = 256 << 10

const (
	minGrow = 512 << 10 // a file grows by at least this much,
	maxGrow = 64 << 20  // and by half of its size up to this much
)

// region is an unlinked temporary file, mapped whole. Its zero value, with dir
// set, has no file yet.
type region struct {
	dir string
	f   *os.File
	mem []byte
}

// reserve makes the region at least n bytes long and may move it. New bytes are
// zero.
func (r *region) reserve(n int) error {
	if n <= len(r.mem) {
		return nil
	}
	size := len(r.mem) + min(max(len(r.mem)/2, minGrow), maxGrow)
	return r.resize(max(n, size))
}

// resize makes the region n bytes long, rounded up to whole pages.
// Preconditions: n > len(r.mem).
func (r *region) resize(n int) error {
	page := os.Getpagesize()
	n = (n + page - 1) / page * page
	if r.f == nil {
		f, err := tempFile(r.dir)
		if err != nil {
			return err
		}
		r.f = f
	}
	if err := allocate(r.f, int64(len(r.mem)), int64(n-len(r.mem))); err != nil {
		return fmt.Errorf("temporary file in %s: %w", r.dir, err)
	}
	return r.remap(n)
}

// remap maps the first n bytes of the file.
func (r *region) remap(n int) error {
	var mem []byte
	var err error
	if r.mem == nil {
		mem, err = unix.Mmap(int(r.f.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	} else {
		mem, err = unix.Mremap(r.mem, n, unix.MREMAP_MAYMOVE)
	}
	if err != nil {
		return fmt.Errorf("temporary file in %s: map %d bytes: %w", r.dir, n, err)
	}
	r.mem = mem
	return nil
}

// close gives everything back. A second call does nothing.
func (r *region) close() error {
	var err error
	if r.mem != nil {
		err = unix.Munmap(r.mem)
		r.mem = nil
	}
	if r.f != nil {
		err = errors.Join(err, r.f.Close())
		r.f = nil
	}
	return err
}

// tempFile returns a new file in dir that has no name.
func tempFile(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	f, err = os.CreateTemp(dir, ".spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// allocate makes the file system promise the space of n bytes at off.
func allocate(f *os.File, off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, off, n)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return writeZeros(f, off, n)
		default:
			return os.NewSyscallError("fallocate", err)
		}
	}
}

// writeZeros is allocate for file systems without fallocate.
func writeZeros(f *os.File, off, n int64) error {
	zeros := make([]byte, min(n, 256<<10))
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if _, err := f.WriteAt(zeros[:k], off); err != nil {
			return err
		}
		off += k
		n -= k
	}
	return nil
}

// mustBePlain panics when values of t hold pointers, which the garbage
// collector would not find in a mapping, or no bytes at all.
func mustBePlain(t reflect.Type) {
	if t.Size() == 0 || !plain(t) {
		panic(fmt.Sprintf("spool: records of type %v must have a size and no pointers", t))
	}
}

// plain says whether values of t are free of pointers.
func plain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return plain(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !plain(t.Field(i).Type) {
				return false
			}
		}
		return true
	}
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128 && t.Kind() != reflect.Uintptr
}
