package fs

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers/overlay"
	"github.com/layerfs/layerfs/layers/upper"
)

// TestUserWriteTakesPriv writes to files that run with the rights of their owner or group, in the store of root and of an
// ordinary user: however they came by that, and also when the union was opened after it.
func TestUserWriteTakesPriv(t *testing.T) {
	testenv.Require(t, "root", "user")
	defer syscall.Umask(syscall.Umask(0))
	account := testenv.User(t)
	user := &unionSide{dir: account.TempDir(t), owners: upper.Owners{UID: uint32(account.UID), GID: uint32(account.GID)}}
	root := &unionSide{dir: t.TempDir()}
	user.start(t, &account)
	root.start(t, nil)
	for who, s := range map[string]*unionSide{"user": user, "root": root} {
		if err := s.do(func() error { return s.open(true) }); err != nil {
			t.Fatal(err)
		}
		for mode, want := range map[uint32]uint32{0o4755: 0o755, 0o2755: 0o755, 0o6711: 0o711, 0o2744: 0o2744, 0o755: 0o755} {
			for _, how := range []string{"created", "changed", "opened again"} {
				got, err := s.modeAfterWrite(mode, how)
				if err != nil || got != want {
					t.Errorf("%s: %#o, %s: %#o after a write, %v; want %#o", who, mode, how, got, err, want)
				}
			}
		}
		s.do(s.fs.Close)
		close(s.calls)
	}
}

// modeAfterWrite gives a file a mode, writes to it as somebody whose writes count, and returns the mode that it has then,
// also after the union was opened again.
func (s *unionSide) modeAfterWrite(mode uint32, how string) (got uint32, err error) {
	err = s.do(func() error {
		first := mode
		if how == "changed" {
			first = 0o644
		}
		a, _, err := s.fs.Create(overlay.Root, "f", first, overlay.Caller{})
		if err != nil {
			return err
		}
		if how == "changed" {
			if _, err := s.fs.SetAttr(a.ID, &overlay.Change{Mode: &mode}); err != nil {
				return err
			}
		}
		if how == "opened again" {
			s.fs.Release(a.ID)
			if err := errors.Join(s.fs.Close(), s.open(false)); err != nil {
				return err
			}
			if a, err = s.fs.Lookup(overlay.Root, "f"); err != nil {
				return err
			}
			if _, err := s.fs.Open(a.ID, unix.O_WRONLY, true); err != nil {
				return err
			}
		}
		if err := s.fs.Write(a.ID, []byte("x"), 0, true); err != nil {
			return err
		}
		now, err := s.fs.GetAttr(a.ID)
		if err != nil {
			return err
		}
		s.fs.Release(a.ID)
		if err := errors.Join(s.fs.Close(), s.open(false)); err != nil {
			return err
		}
		kept, err := s.fs.Lookup(overlay.Root, "f")
		if err == nil && kept.Mode != now.Mode {
			err = os.ErrInvalid
		}
		got = now.Mode & 0o7777
		return errors.Join(err, s.fs.Unlink(overlay.Root, "f"))
	})
	return got, err
}
