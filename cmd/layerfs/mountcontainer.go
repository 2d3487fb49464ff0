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

var drivers = []string{driverAuto, driverOverlay}

// chooseDriver decides who shows what is mounted.
func (o *mountOptions) chooseDriver(ctx context.Context, st *layers.Store) error {
	if o.container == "" {
		o.driver = driverFuse
		return nil
	}
	c, err := st.Container(ctx, o.container)
	if err != nil {
		return err
	}
	if err := layerfs.OverlayPossible(st, c); err != nil {
		return err
	}
	o.driver = driverOverlay
	return nil
}

func (o *mountOptions) startContainer(st *layers.Store, dir string) (served, error) {
	c, err := st.Container(context.Background(), o.container)
	if err != nil {
		return nil, err
	}
	return layerfs.MountOverlay(st, c, dir, &o.fs)
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
