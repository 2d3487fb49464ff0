package main

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// rmiOptions are the flags of rmi.
type rmiOptions struct {
	images []string
	force  bool
	dryRun bool
	out    io.Writer
}

func rmiCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "rmi", Category: "Images",
		Usage:     "remove images",
		UsageText: "layerfs rmi [flags] IMAGE...",
		Description: `Removes a name and, with its last name, the image and the layers that nothing else
needs. An image named by its ID goes only when it has at most one name, or with
--force with all its names. What a mount has open stays on disk until it is closed.
An image of which there are containers, or that a lease holds, stays.

--dry-run removes nothing and says exactly what would be removed and freed: what
other images share is not counted.

Examples:
   layerfs rmi alpine
   layerfs rmi --dry-run alpine
   layerfs rmi --force 1f0c9a`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "remove an image with all its names"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be removed"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "IMAGE"); err != nil {
				return err
			}
			o := &rmiOptions{images: c.Args().Slice(), force: c.Bool("force"), dryRun: c.Bool("dry-run"), out: e.stdout}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return rmi(ctx, o, st)
			})
		},
	}
}

// rmi removes the images; one that cannot be removed does not keep the others.
func rmi(ctx context.Context, o *rmiOptions, st *layers.Store) error {
	r, err := st.RemoveImages(ctx, &layers.RemoveOptions{Force: o.force, DryRun: o.dryRun}, o.images...)
	printRemoved(o.out, r, o.dryRun)
	return err
}
