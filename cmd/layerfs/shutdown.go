package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	layerfs "github.com/layerfs/layerfs/fs"
	"github.com/layerfs/layerfs/internal/control"
)

func shutdownCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "shutdown", Category: "Mounts",
		Usage:     "unmount everything of this store",
		UsageText: "layerfs shutdown [--force]",
		Description: `Refuses while something of the store is mounted, and lists it; with --force it is
unmounted: what is busy vanishes at once and ends when its users let go of it.

Examples:
   layerfs shutdown
   layerfs shutdown --force`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "unmount what is mounted"}},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			root, err := e.storeRoot()
			if err != nil {
				return err
			}
			reg, err := e.registry()
			if err != nil {
				return err
			}
			return shutdown(c.Context, reg, root, c.Bool("force"), e.stdout, e.stderr)
		},
	}
}

// shutdown ends the mounts of one store; the newest first, as one may lie in another.
func shutdown(ctx context.Context, reg *control.Registry, root string, force bool, out, warn io.Writer) error {
	all, err := reg.Mounts()
	if err != nil {
		return err
	}
	var mine []control.Record
	for _, r := range all {
		if r.Store == root {
			mine = append(mine, r)
		}
	}
	if len(mine) > 0 && !force {
		for _, r := range mine {
			fmt.Fprintf(out, "%s (process %d)\n", r.Mountpoint, r.PID)
		}
		return fmt.Errorf("%w: %s of %s; unmount them, or use --force", layerfs.ErrMountBusy, count(int64(len(mine)), "mount"), root)
	}
	var failed []error
	for i := len(mine) - 1; i >= 0; i-- {
		dir := mine[i].Mountpoint
		o := &umountOptions{warn: warn, reg: reg, grace: 10 * time.Second}
		err := o.one(ctx, dir)
		if errors.Is(err, syscall.EBUSY) {
			o.lazy = true
			err = o.one(ctx, dir)
		}
		if err != nil && !errors.Is(err, control.ErrNotMounted) {
			failed = append(failed, fmt.Errorf("%s: %w", dir, err))
			continue
		}
		fmt.Fprintf(out, "Unmounted: %s\n", dir)
	}
	return errors.Join(failed...)
}
