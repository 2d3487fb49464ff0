package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func renameCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "rename", Category: "Containers",
		Usage:     "give a container another name",
		UsageText: "layerfs rename CONTAINER NAME",
		Description: `The name changes in every mount at once; who works in the container is not disturbed.
In a mount "mv DIR/containers/OLD DIR/containers/NEW" does the same.

Example:
   layerfs rename web web-old`,
		BashComplete: completeContainers(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 2, 2, "CONTAINER and NAME"); err != nil {
				return err
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return st.RenameContainer(ctx, c.Args().Get(0), c.Args().Get(1))
			})
		},
	}
}
