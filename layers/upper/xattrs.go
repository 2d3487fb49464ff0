package upper

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// kept reports whether an attribute of the container's is kept under another name
// on the host. The lists of access control are, because they name IDs of the
// container, and because the host would act on them.
func (f *Format) kept(name string) bool {
	return f.user && !strings.HasPrefix(name, "user.")
}

// hostName returns the name on the host of an attribute of the container's.
func (f *Format) hostName(name string) string {
	if f.kept(name) {
		return f.prefix + nameKept + name
	}
	return name
}

// insideName undoes hostName; false for what the container does not see.
func (f *Format) insideName(name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, f.prefix+nameKept); ok {
		return rest, f.kept(rest)
	}
	return name, !Private(name) && !f.kept(name)
}

// EachXattr calls fn for the name of each extended attribute that the container sees.
func (f *Format) EachXattr(at At, fn func(name string)) error {
	names, err := at.list()
	if err != nil || len(names) == 0 {
		return err
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		if inside, ok := f.insideName(string(name)); ok {
			fn(inside)
		}
	}
	return nil
}

// Xattr returns the value of an extended attribute as the container sees it; false
// when there is none.
func (f *Format) Xattr(at At, name string) ([]byte, bool, error) {
	if Private(name) {
		return nil, false, nil
	}
	v, err := at.get(f.hostName(name))
	return v, v != nil, err
}

// SetXattr sets an extended attribute of the container's; flags are those of
// setxattr(2). The attributes of overlayfs are refused with EPERM.
func (f *Format) SetXattr(at At, name string, value []byte, flags int) error {
	if Private(name) {
		return unix.EPERM
	}
	if f.kept(name) {
		if err := f.guard(); err != nil {
			return err
		}
	}
	return at.set(f.hostName(name), value, flags)
}

// RemoveXattr removes an extended attribute of the container's; ENODATA when there
// is none.
func (f *Format) RemoveXattr(at At, name string) error {
	if Private(name) {
		return unix.ENODATA
	}
	err := at.remove(f.hostName(name))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return unix.ENODATA
	}
	return err
}
