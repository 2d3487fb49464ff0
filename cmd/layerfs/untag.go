package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func untagCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "untag", Category: "Images",
		Usage:     "take names from images",
		UsageText: "layerfs untag NAME...",
		Description: `The image stays, also without any name; "layerfs rmi" removes it. Either all names
are taken or none.

Example:
   layerfs untag alpine:3.20`,
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "NAME"); err != nil {
				return err
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return untag(ctx, c.Args().Slice(), e.stdout, st)
			})
		},
	}
}

// untag takes names and says which.
func untag(ctx context.Context, names []string, out io.Writer, st *layers.Store) error {
	removed, err := st.Untag(ctx, names...)
	if err != nil {
		return err
	}
	for _, name := range removed {
		fmt.Fprintf(out, "Untagged: %s\n", name)
	}
	return nil
}
