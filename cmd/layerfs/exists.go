package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func existsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "exists", Category: "Images",
		Usage:     "say by the exit code whether an image, layer or container is there",
		UsageText: "layerfs exists NAME",
		Description: `Prints nothing; the exit code is 0 when NAME is an image, a layer, a layer record
or a container of the store, and 3 when it is not.

Example:
   layerfs exists debian:12 || podman save debian:12 | layerfs load`,
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "NAME of an image, layer or container"); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return exists(ctx, c.Args().First(), st)
			})
		},
	}
}

// exists returns an error that is not printed when there is no such item.
func exists(ctx context.Context, item string, st *layers.Store) error {
	_, err := st.Item(ctx, item)
	if errors.Is(err, layers.ErrNotAnID) {
		_, _, err = find(ctx, st, item) // a layer by its DiffID
	}
	if exitCode(err) == exitNotFound {
		return &quietError{err}
	}
	return err
}
