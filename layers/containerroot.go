package layers

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// initUpper gives the root of a new writable layer the attributes of the root below
// it: a mount shows those of the upper one.
func (s *Store) initUpper(path string, c *Container) error {
	if len(c.Layers) == 0 {
		return os.Chmod(path, 0o755)
	}
	form, err := s.UpperFormat()
	if err != nil {
		return err
	}
	if form.User() {
		form.Guard = func() error { return upper.MarkFuseOnly(filepath.Join(filepath.Dir(path), metaDir)) }
	}
	st, err := s.OpenStack(c.DiffIDs())
	if err != nil {
		return err
	}
	defer st.Close() // it was only read
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(copyRoot(form, upper.At{Dir: int(dir.Fd())}, st), dir.Close())
}

// copyRoot gives a directory of a writable layer the attributes of the root of a stack.
func copyRoot(form *upper.Format, at upper.At, st *Stack) error {
	a, err := st.Attr(st.Root())
	if err != nil {
		return err
	}
	have, err := form.Read(at)
	if err != nil {
		return err
	}
	if err := form.SetMeta(at, &have, &upper.Override{UID: a.UID, GID: a.GID, Mode: unix.S_IFDIR | a.Mode}); err != nil {
		return err
	}
	var failed error
	err = st.EachXattr(st.Root(), func(name, value []byte) bool {
		failed = form.SetXattr(at, string(name), value, 0)
		return failed == nil
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	t := unix.Timespec{Sec: a.MtimeSec, Nsec: int64(a.MtimeNsec)}
	return at.SetTimes(t, t)
}

// FuseOnly reports whether the writable layer of a container holds what the kernel's
// overlayfs would misread.
func (s *Store) FuseOnly(id string) (bool, error) { return upper.FuseOnly(s.MetaPath(id)) }

// UserUppers reports whether the marks in the writable layers of this store are those
// of an ordinary user, and UpperFormat returns their form.
func (s *Store) UserUppers() bool {
	form, err := s.UpperFormat()
	return err == nil && form.User()
}
