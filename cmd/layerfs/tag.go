package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func tagCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "tag", Category: "Images",
		Usage:     "give an image more names",
		UsageText: "layerfs tag IMAGE NAME...",
		Description: `A name that another image has moves to this one. Names are completed as in docker:
me/web becomes docker.io/me/web:latest.

Examples:
   layerfs tag alpine alpine:3.20 localhost/base
   layerfs tag 1f0c me/web:2`,
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 2, -1, "IMAGE and at least one NAME"); err != nil {
				return err
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return st.Tag(ctx, c.Args().First(), c.Args().Tail()...)
			})
		},
	}
}
