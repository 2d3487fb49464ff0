package main

import (
	"context"
	"errors"
	"fmt"

	layerfs "github.com/layerfs/layerfs/fs"
	"github.com/layerfs/layerfs/internal/overlayfs"
	"github.com/layerfs/layerfs/layers"
)

// Who shows a container.
const (
	driverAuto    = "auto"
	driverFuse    = "fuse"
	driverOverlay = "overlay"
)

var drivers = []string{driverAuto, driverFuse, driverOverlay}

// chooseDriver decides who shows what is mounted. The kernel's overlayfs is faster
// where it can be had; while another process writes into a container only layerfs can
// show it, for reading.
func (o *mountOptions) chooseDriver(ctx context.Context, st *layers.Store) error {
	if o.container == "" {
		o.driver = driverFuse
		return nil
	}
	c, err := st.Container(ctx, o.container)
	if err != nil {
		return err
	}
	if o.driver == driverFuse {
		return nil
	}
	err = layerfs.OverlayPossible(st, c)
	if err == nil && o.fs.UIDMap+o.fs.GIDMap != "" {
		err = fmt.Errorf("%w: the kernel's overlayfs cannot apply --uidmap and --gidmap", layerfs.ErrNoOverlay)
	}
	if o.driver == driverOverlay {
		return err
	}
	o.driver = driverFuse
	if _, taken := st.ContainerWriter(c.ID); err == nil && !taken {
		o.driver = driverOverlay
	}
	return nil
}

func (o *mountOptions) startContainer(st *layers.Store, dir string) (served, error) {
	c, err := st.Container(context.Background(), o.container)
	if err != nil {
		return nil, err
	}
	if o.driver == driverOverlay {
		return layerfs.MountOverlay(st, c, dir, &o.fs)
	}
	return layerfs.MountContainer(st, c.ID, dir, &o.fs)
}

// warnReadOnly says that a container that is about to be mounted can only be read.
func (e *env) warnReadOnly(ctx context.Context, o *mountOptions) error {
	if o.container == "" || o.driver == driverOverlay {
		return nil
	}
	st, err := e.viewStore()
	if err != nil {
		return err
	}
	c, err := st.Container(ctx, o.container)
	if err == nil {
		if who, taken := st.ContainerWriter(c.ID); taken {
			e.warn("container %s can only be read here: %s writes into it", c.Name(), who)
		}
	}
	return errors.Join(err, st.Close())
}

// cleanDeadOverlay takes away overlays on dir whose process has died: they still
// write, but what they read from is gone.
func cleanDeadOverlay(dir string) error {
	for {
		dead, err := overlayfs.Dead(dir)
		if err != nil || !dead {
			return err
		}
		if err := overlayfs.Unmount(dir, true); err != nil {
			return errors.Join(fmt.Errorf("%s: the dead mount of a killed layerfs is in the way", dir), err)
		}
	}
}
