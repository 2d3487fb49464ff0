package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// GetXattr returns an extended attribute; ENODATA when there is none.
func (f *FS) GetXattr(id ID, name string) ([]byte, error) {
	n := f.get(id)
	if n == nil || !n.up.Load() {
		l, ok := f.lowerNode(id)
		if !ok {
			return nil, unix.ESTALE
		}
		if upper.Private(name) {
			return nil, unix.ENODATA
		}
		v, ok, err := f.below.Xattr(l, name)
		if err == nil && !ok {
			err = unix.ENODATA
		}
		return v, err
	}
	n.mu.RLock()
	has := n.e.HasXattrs || f.readOnly
	n.mu.RUnlock()
	if !has {
		return nil, unix.ENODATA
	}
	at, done, err := f.at(n)
	if err != nil {
		return nil, err
	}
	defer done()
	v, ok, err := f.format.Xattr(at, name)
	if err == nil && !ok {
		err = unix.ENODATA
	}
	return v, err
}

// EachXattr calls fn for the name of each extended attribute.
func (f *FS) EachXattr(id ID, fn func(name string)) error {
	n := f.get(id)
	if n == nil || !n.up.Load() {
		l, ok := f.lowerNode(id)
		if !ok {
			return unix.ESTALE
		}
		return f.below.EachXattr(l, func(name, _ []byte) bool {
			if !upper.Private(string(name)) {
				fn(string(name))
			}
			return true
		})
	}
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	defer done()
	return f.format.EachXattr(at, fn)
}

// SetXattr sets an extended attribute; flags are those of setxattr(2). killGroup says
// that an access list takes the set-group-ID bit away.
func (f *FS) SetXattr(id ID, name string, value []byte, flags int, killGroup bool) error {
	if upper.Private(name) {
		return unix.EPERM
	}
	return f.changeXattr(id, func(n *node, at upper.At) error {
		if err := f.format.SetXattr(at, name, value, flags); err != nil {
			return err
		}
		n.e.HasXattrs = true
		switch name {
		case aclDefault:
			n.defaultACL = aclUnknown
		case aclAccess:
			return f.aclSet(n, at, value, killGroup)
		}
		return nil
	})
}

// aclSet makes the mode of a file follow the access list that it was given.
func (f *FS) aclSet(n *node, at upper.At, value []byte, killGroup bool) error {
	have, err := f.format.Read(at)
	if err != nil {
		return err
	}
	want := upper.Override{UID: have.UID, GID: have.GID, Mode: have.Mode, Major: have.Major, Minor: have.Minor}
	if list := acl(value); f.format.User() && list.valid() {
		want.Mode = want.Mode&^0o777 | list.mode()
		if list.minimal() {
			if err := f.format.RemoveXattr(at, aclAccess); err != nil {
				return err
			}
		}
	}
	if killGroup {
		want.Mode &^= unix.S_ISGID
	}
	if want.Mode == have.Mode {
		n.e = have
		return nil
	}
	return f.setMeta(n, at, &have, want)
}

// RemoveXattr removes an extended attribute; ENODATA when there is none.
func (f *FS) RemoveXattr(id ID, name string) error {
	if _, err := f.GetXattr(id, name); err != nil {
		return err
	}
	return f.changeXattr(id, func(n *node, at upper.At) error {
		if name == aclDefault {
			n.defaultACL = aclUnknown
		}
		return f.format.RemoveXattr(at, name)
	})
}

func (f *FS) changeXattr(id ID, fn func(n *node, at upper.At) error) error {
	n, err := f.copyUp(id, metaOnly)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	defer done()
	return fn(n, at)
}
