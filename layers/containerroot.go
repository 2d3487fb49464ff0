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
	v := &view{stack: st}
	root := &viewFile{low: st.Root(), hasLow: true}
	return errors.Join(copyMeta(form, upper.At{Dir: int(dir.Fd())}, v, root), dir.Close())
}

// copyMeta gives a directory of a writable layer the attributes of a file of a view.
func copyMeta(form *upper.Format, at upper.At, v *view, f *viewFile) error {
	m, err := v.meta(f)
	if err != nil {
		return err
	}
	have, err := form.Read(at)
	if err != nil {
		return err
	}
	if err := form.SetMeta(at, &have, &upper.Override{UID: m.UID, GID: m.GID, Mode: m.Mode}); err != nil {
		return err
	}
	xattrs, err := v.xattrs(f)
	if err != nil {
		return err
	}
	for _, x := range xattrs {
		if err := form.SetXattr(at, x.Name, x.Value, 0); err != nil {
			return err
		}
	}
	t := unix.Timespec{Sec: m.MtimeSec, Nsec: m.MtimeNsec}
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
