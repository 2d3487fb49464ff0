package main

import (
	"cmp"
	"strconv"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/internal/control"
	"github.com/layerfs/layerfs/internal/overlayfs"
)

func mountsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "mounts", Category: "Mounts",
		Usage:     "list the mounts",
		UsageText: "layerfs mounts [--format json]",
		Description: `JSON is an array with the fields mountpoint, pid (of the serving process), holder (the
process that starts another one should it die), takeovers (how often), store,
driver ("fuse", or "overlay" where the kernel does the writing), since, and, where they
apply, image, container and log.

Examples:
   layerfs mounts
   layerfs mounts --format json | jq -r '.[].mountpoint'`,
		Flags: []cli.Flag{formatFlag()},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			return e.listMounts(c)
		},
	}
}

// listMounts prints the records of all living processes.
func (e *env) listMounts(c *cli.Context) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	records, err := reg.Mounts()
	if err != nil {
		return err
	}
	return printList(e.stdout, c.String("format"), records, table[control.Record]{
		header: []string{"MOUNTPOINT", "PID", "DRIVER", "STORE", "SHOWS", "SINCE"},
		row: func(r control.Record) []string {
			shown := cmp.Or(r.Image, r.Container, r.Layer, "<all>")
			return []string{r.Mountpoint, strconv.Itoa(r.PID), r.Driver, r.Store, shown, r.Since.Format(time.DateTime)}
		},
	})
}

// mountedHere says whether the topmost mount on dir is one of ours, whoever serves
// it. It reads the mount table and does not touch dir, which may hang.
func mountedHere(dir string) (bool, error) {
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	if err != nil {
		return false, err
	}
	for _, m := range list {
		if m.FSType == "fuse.layerfs" || m.FSType == "overlay" && m.Source == overlayfs.Source {
			return true, nil
		}
	}
	return false, nil
}
