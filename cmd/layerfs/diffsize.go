package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func diffsizeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "diffsize", Category: "Containers",
		Usage:     "print the size of what diff would write",
		UsageText: "layerfs diffsize X [Y]",
		Description: `The number of bytes of the uncompressed tar of "layerfs diff X [Y]". No file is read
for it.

Examples:
   layerfs diffsize web
   layerfs diffsize alpine`,
		BashComplete: completeContainers(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 2, "CONTAINER, IMAGE or LAYER"); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				n, err := st.DiffSize(ctx, c.Args().Get(0), c.Args().Get(1))
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(e.stdout, n)
				return err
			})
		},
	}
}
