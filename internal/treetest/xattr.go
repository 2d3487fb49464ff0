package treetest

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrs records the extended attributes of a file that proc, a path through
// /proc/self/fd, names. The last component is not followed.
func (w *walker) xattrs(e *Entry, path, proc string) error {
	names, err := listXattrs(proc)
	if err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return nil
		}
		return fmt.Errorf("listxattr: %w", err)
	}
	for _, name := range names {
		value, err := getXattr(proc, name)
		if err != nil {
			// The kernel hides trusted ones from ordinary users, and user
			// ones of files they may not read.
			if os.Geteuid() != 0 {
				continue
			}
			w.problem("%s: xattr %s is listed, but: %v", path, name, err)
			continue
		}
		if Private(name) {
			continue
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		if _, twice := e.Xattrs[name]; twice {
			w.problem("%s: xattr %s is listed twice", path, name)
		}
		e.Xattrs[name] = string(value)
	}
	if e.Kind == Directory {
		for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
			if v, err := getXattr(proc, name); err == nil && string(v) == "y" {
				e.Opaque = true
			}
		}
	}
	return nil
}

func listXattrs(path string) ([]string, error) {
	for {
		size, err := unix.Llistxattr(path, nil)
		if errors.Is(err, unix.ENOTSUP) || size == 0 && err == nil {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		buf := make([]byte, size)
		n, err := unix.Llistxattr(path, buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }), nil
	}
}

func getXattr(path, name string) ([]byte, error) {
	for {
		size, err := unix.Lgetxattr(path, name, nil)
		if err != nil {
			return nil, err
		}
		if size == 0 {
			return nil, nil
		}
		buf := make([]byte, size)
		n, err := unix.Lgetxattr(path, name, buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
