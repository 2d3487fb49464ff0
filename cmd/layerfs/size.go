package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func sizeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "size", Category: "Items",
		Usage:     "print the size of an image, layer or container in bytes",
		UsageText: "layerfs size NAME",
		Description: `Of an image and of a container's image it is the sum of the sizes of the files in the
layers, of a layer the size of its uncompressed tar; -1 when that is not known, for
example because nothing was applied to a layer record yet.

Examples:
   layerfs size debian:12
   layerfs size base`,
		BashComplete: completeNames(e),
		Action: itemAction(e.viewStore, 1, 1, "NAME", func(ctx context.Context, st *layers.Store, args cli.Args) error {
			n, err := st.Size(ctx, args.First())
			if err == nil {
				_, err = fmt.Fprintln(e.stdout, n)
			}
			return err
		}),
	}
}
