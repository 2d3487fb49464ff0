package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/fs/internal/mount"
	"github.com/layerfs/layerfs/internal/overlayfs"
	"github.com/layerfs/layerfs/layers"
)

// ErrNoOverlay is returned when a container cannot be mounted with the kernel's overlayfs; the text says why.
var ErrNoOverlay = overlayfs.ErrImpossible

// An Overlay is a container that the kernel's overlayfs shows: it reads the image from a mount of ours that nobody else
// sees, and writes the container's writable layer by itself.
type Overlay struct {
	dir   string
	lock  *layers.ContainerLock
	lower *Server // nil: the container has no image
}

// OverlayPossible returns nil when a container can be mounted with the kernel's overlayfs, else ErrNoOverlay.
func OverlayPossible(store *layers.Store, c *layers.Container) error {
	if err := overlayfs.Possible(); err != nil {
		return err
	}
	if c.UIDMap != "" || c.GIDMap != "" {
		return fmt.Errorf("%w: container %s has a map of IDs, which the kernel's overlayfs cannot apply", ErrNoOverlay, c.Name())
	}
	only, err := store.FuseOnly(c.ID)
	if err == nil && only {
		err = fmt.Errorf("%w: container %s has files that only layerfs can read, such as devices of an ordinary user", ErrNoOverlay, c.Name())
	}
	return err
}

// MountOverlay mounts a container at dir with the kernel's overlayfs. This process has the right to write into it until
// Serve returns. It returns layers.ErrInUse when somebody else has, and ErrNoOverlay where the kernel cannot be used.
func MountOverlay(store *layers.Store, c *layers.Container, dir string, o *Options) (*Overlay, error) {
	if o.resumes() {
		return resumeOverlay(store, c, dir, o)
	}
	dir, err := mount.Clean(dir)
	if err != nil {
		return nil, err
	}
	set, err := o.settle(store.Root())
	if err != nil {
		return nil, err
	}
	lock, err := store.LockContainer(c.ID, "mount "+dir)
	if err != nil {
		return nil, err
	}
	ov := &Overlay{dir: dir, lock: lock}
	err = OverlayPossible(store, c) // now that nobody else can change it
	if err == nil {
		err = ov.mount(store, c, o, set)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return ov, nil
}

// resumeOverlay goes on with an overlay that another process has mounted.
func resumeOverlay(store *layers.Store, c *layers.Container, dir string, o *Options) (*Overlay, error) {
	lock, err := store.LockContainer(c.ID, "mount "+dir)
	if err != nil {
		return nil, err
	}
	ov := &Overlay{dir: dir, lock: lock}
	if len(c.Layers) > 0 {
		ov.lower, err = MountImage(store, string(c.Image), dir, o)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return ov, nil
}

// mount mounts the image where nobody looks, the overlay over it, and takes the image out of sight: the overlay keeps
// it as long as it lives.
func (ov *Overlay) mount(store *layers.Store, c *layers.Container, o *Options, set *settings) error {
	below := filepath.Join(store.MetaPath(c.ID), "lower")
	if err := os.Mkdir(below, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if len(c.Layers) > 0 {
		lower, err := MountImage(store, string(c.Image), below, o)
		if err != nil {
			return fmt.Errorf("image of container %s: %w", c.Name(), err)
		}
		ov.lower = lower
	}
	err := overlayfs.Mount(ov.dir, &overlayfs.Options{
		Lower: below, Upper: store.UpperPath(c.ID), Work: store.WorkPath(c.ID), User: store.UserUppers(), Flags: flagsOf(set),
	})
	if ov.lower != nil {
		if err != nil {
			return errors.Join(err, ov.lower.Detach())
		}
		if err := mount.Unmount(below, true); err != nil {
			return errors.Join(err, overlayfs.Unmount(ov.dir, true), ov.lower.Detach())
		}
	}
	return err
}

func flagsOf(set *settings) uintptr {
	var flags uintptr
	for _, f := range []struct {
		set  bool
		flag uintptr
	}{{!set.mount.Suid, unix.MS_NOSUID}, {!set.mount.Dev, unix.MS_NODEV}, {set.mount.NoExec, unix.MS_NOEXEC}} {
		if f.set {
			flags |= f.flag
		}
	}
	return flags
}

// Serve returns when the overlay is unmounted, by whomever, and nobody uses it any more.
func (ov *Overlay) Serve() error {
	err := overlayfs.Wait(context.Background(), ov.dir)
	if ov.lower != nil {
		err = errors.Join(err, ov.lower.Serve())
	}
	return errors.Join(err, ov.lock.Close())
}

// Handover is that of the image below; the kernel goes on with the rest by itself.
func (ov *Overlay) Handover() error {
	if ov.lower == nil {
		return nil
	}
	return ov.lower.Handover()
}

// Stop is that of the image below.
func (ov *Overlay) Stop(wait time.Duration) {
	if ov.lower != nil {
		ov.lower.Stop(wait)
	}
}

// Detach takes the overlay out of sight; Serve returns when its last user has gone.
func (ov *Overlay) Detach() error {
	if ours, err := overlayfs.Ours(ov.dir); err != nil || !ours {
		return err
	}
	return overlayfs.Unmount(ov.dir, true)
}
