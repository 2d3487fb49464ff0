package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/layerfs/layerfs/internal/flock"
)

// A Counted is a mount in a place that the registry chooses, with a number of users:
// who wants it first mounts it, and who lets go of it last unmounts it. It lies at
//
//	<runroot>/counted/<key>/mnt     the mount point
//	<runroot>/counted/<key>/users   the number
//	<runroot>/counted/<key>/lock    flocked while one of them changes
//
// The number of a mount that does not live any more, after a kill or a reboot, does
// not count.
type Counted struct {
	reg  *Registry
	dir  string
	lock *os.File
}

func (r *Registry) countedDir() string { return filepath.Join(r.runroot, "counted") }

// Counted opens the counted mount that what stands for, a text that tells it from all
// others, and keeps everybody else from it until Close.
func (r *Registry) Counted(ctx context.Context, what string) (*Counted, error) {
	return r.counted(ctx, filepath.Join(r.countedDir(), key(what)))
}

// CountedAt opens the counted mount at a mount point; ErrNotMounted says that it is
// none.
func (r *Registry) CountedAt(ctx context.Context, mountpoint string) (*Counted, error) {
	dir := filepath.Dir(mountpoint)
	if filepath.Base(mountpoint) != "mnt" || !sameDir(filepath.Dir(dir), r.countedDir()) {
		return nil, fmt.Errorf("%s: %w by count", mountpoint, ErrNotMounted)
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%s: %w by count", mountpoint, ErrNotMounted)
	}
	return r.counted(ctx, dir)
}

// sameDir compares two directories that may be written with symbolic links.
func sameDir(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func (r *Registry) counted(ctx context.Context, dir string) (*Counted, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("counted mount: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("counted mount: %w", err)
	}
	if err := flock.Wait(ctx, f); err != nil {
		f.Close()
		return nil, err
	}
	return &Counted{r, dir, f}, nil
}

// Close lets others in.
func (c *Counted) Close() error { return c.lock.Close() }

// Dir makes the mount point, unless it is there, and returns it without symbolic
// links.
func (c *Counted) Dir() (string, error) {
	dir, err := filepath.EvalSymlinks(c.dir)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}

// Users returns the number of users, 0 when the mount does not live.
func (c *Counted) Users() (int, error) {
	dir, err := filepath.EvalSymlinks(c.dir)
	if err != nil {
		return 0, err
	}
	if _, err := c.reg.Find(filepath.Join(dir, "mnt")); err != nil {
		if errors.Is(err, ErrNotMounted) {
			err = nil
		}
		return 0, err
	}
	return users(c.dir), nil
}

// users reads a number; one that cannot be read stands for one user.
func users(dir string) int {
	raw, err := os.ReadFile(filepath.Join(dir, "users"))
	n, nerr := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || nerr != nil || n < 1 {
		return 1
	}
	return n
}

// SetUsers changes the number.
func (c *Counted) SetUsers(n int) error {
	return os.WriteFile(filepath.Join(c.dir, "users"), []byte(strconv.Itoa(n)+"\n"), 0o600)
}

// withUsers adds the number of users to the record of a counted mount.
func (r *Registry) withUsers(rec Record) Record {
	dir := filepath.Dir(rec.Mountpoint)
	if filepath.Base(rec.Mountpoint) == "mnt" && filepath.Base(filepath.Dir(dir)) == "counted" && sameDir(filepath.Dir(dir), r.countedDir()) {
		rec.Users = users(dir)
	}
	return rec
}
