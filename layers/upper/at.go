package upper

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// At is a place on the host: the entry Name of the directory that Dir is open on
// (O_PATH is enough), or what Dir itself is open on when Name is empty. Symbolic
// links are never followed.
type At struct {
	Dir  int
	Name string
}

// Path names the place for calls that take no directory. /proc leads to what the
// descriptor is open on, wherever that has been moved.
func (a At) Path() string {
	fd := "/proc/self/fd/" + strconv.Itoa(a.Dir)
	if a.Name == "" {
		return fd
	}
	return fd + "/" + a.Name
}

// Stat is lstat(2).
func (a At) Stat() (st unix.Stat_t, err error) {
	err = IgnoringEINTR(func() error {
		return unix.Fstatat(a.Dir, a.Name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	})
	return st, err
}

// get reads an attribute of the host; nil and no error when there is none.
func (a At) get(name string) ([]byte, error) {
	fn := unix.Lgetxattr
	if a.Name == "" {
		fn = unix.Getxattr
	}
	v, err := sized(func(buf []byte) (int, error) { return fn(a.Path(), name, buf) })
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err == nil && v == nil {
		v = []byte{}
	}
	return v, err
}

// list returns the names of the attributes of the host, each with a zero behind it.
func (a At) list() ([]byte, error) {
	fn := unix.Llistxattr
	if a.Name == "" {
		fn = unix.Listxattr
	}
	v, err := sized(func(buf []byte) (int, error) { return fn(a.Path(), buf) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return v, err
}

func (a At) set(name string, value []byte, flags int) error {
	fn := unix.Lsetxattr
	if a.Name == "" {
		fn = unix.Setxattr
	}
	return IgnoringEINTR(func() error { return fn(a.Path(), name, value, flags) })
}

func (a At) remove(name string) error {
	fn := unix.Lremovexattr
	if a.Name == "" {
		fn = unix.Removexattr
	}
	return IgnoringEINTR(func() error { return fn(a.Path(), name) })
}

// drop removes an attribute that need not be there.
func (a At) drop(name string) error {
	if err := a.remove(name); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return nil
}

// sized calls fn with a buffer that is large enough.
func sized(fn func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	n, err := fn(small[:])
	if err == nil {
		return append([]byte(nil), small[:n]...), nil
	}
	for errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EINTR) {
		if n, err = fn(nil); err != nil {
			continue
		}
		buf := make([]byte, n+64) // something may be added between the calls
		if n, err = fn(buf); err == nil {
			return buf[:n], nil
		}
	}
	return nil, err
}

// IgnoringEINTR calls fn until something else comes of it.
func IgnoringEINTR(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}
