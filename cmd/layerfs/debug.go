package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func debugCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "debug", Category: "The store",
		Usage:       "look into the store",
		UsageText:   "layerfs debug dump",
		Description: "For people who want to see what is in a store, and for reports of bugs.",
		Action:      needsVerb("dump"),
		Subcommands: []*cli.Command{{
			Name: "dump", Usage: "print the index as text, bucket by bucket", UsageText: "layerfs debug dump",
			Description: `The form is explained in the documentation of package index. It is no contract.

Example:
   layerfs debug dump | less -S`,
			Action: itemAction(e.viewStore, 0, 0, "", func(ctx context.Context, st *layers.Store, _ cli.Args) error {
				return st.Dump(ctx, e.stdout)
			}),
		}},
	}
}
