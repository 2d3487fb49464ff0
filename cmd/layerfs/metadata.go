package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func metadataCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "metadata", Category: "Items",
		Usage:     "get and set the free text of an image, layer record or container",
		UsageText: "layerfs metadata get NAME | set NAME TEXT",
		Description: `NAME is whatever names an image, a layer record, a ChainID or a container.

Examples:
   layerfs metadata set debian:12 "reviewed by me"
   layerfs metadata get debian:12
   generate | layerfs metadata set web -`,
		Action: needsVerb("get or set"),
		Subcommands: []*cli.Command{
			{
				Name: "get", Usage: "print the text", UsageText: "layerfs metadata get NAME",
				BashComplete: completeNames(e),
				Action: itemAction(e.viewStore, 1, 1, "NAME", func(ctx context.Context, st *layers.Store, args cli.Args) error {
					it, err := st.Item(ctx, args.First())
					if err == nil {
						_, err = fmt.Fprintln(e.stdout, it.Metadata)
					}
					return err
				}),
			},
			{
				Name: "set", Usage: "replace the text; - reads it from standard input", UsageText: "layerfs metadata set NAME TEXT|-",
				BashComplete: completeNames(e),
				Action: itemAction(e.openStore, 2, 2, "NAME and TEXT", func(ctx context.Context, st *layers.Store, args cli.Args) error {
					text := args.Get(1)
					if text == "-" {
						raw, err := io.ReadAll(e.in)
						if err != nil {
							return err
						}
						text = string(raw)
					}
					return st.SetMetadata(ctx, args.First(), text)
				}),
			},
		},
	}
}

// itemAction is the action of a verb without flags.
func itemAction(open func() (*layers.Store, error), low, high int, what string, fn func(context.Context, *layers.Store, cli.Args) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := argCount(c, low, high, what); err != nil {
			return err
		}
		return withStore(c, open, func(ctx context.Context, st *layers.Store) error { return fn(ctx, st, c.Args()) })
	}
}

func flagCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "flag", Category: "Items",
		Usage:     "set, clear and list the flags of an image, layer record or container",
		UsageText: "layerfs flag set NAME FLAG [VALUE] | clear NAME FLAG | ls NAME",
		Description: `Examples:
   layerfs flag set debian:12 pinned
   layerfs flag set debian:12 stage test
   layerfs flag clear debian:12 pinned
   layerfs flag ls debian:12`,
		Action: needsVerb("set, clear or ls"),
		Subcommands: []*cli.Command{
			{
				Name: "set", Usage: "set a flag", UsageText: "layerfs flag set NAME FLAG [VALUE]",
				BashComplete: completeNames(e),
				Action: itemAction(e.openStore, 2, 3, "NAME and FLAG", func(ctx context.Context, st *layers.Store, args cli.Args) error {
					return st.SetFlag(ctx, args.Get(0), args.Get(1), args.Get(2))
				}),
			},
			{
				Name: "clear", Usage: "clear a flag", UsageText: "layerfs flag clear NAME FLAG",
				BashComplete: completeNames(e),
				Action: itemAction(e.openStore, 2, 2, "NAME and FLAG", func(ctx context.Context, st *layers.Store, args cli.Args) error {
					return st.ClearFlag(ctx, args.Get(0), args.Get(1))
				}),
			},
			{
				Name: "ls", Usage: "list the flags", UsageText: "layerfs flag ls NAME",
				BashComplete: completeNames(e),
				Action: itemAction(e.viewStore, 1, 1, "NAME", func(ctx context.Context, st *layers.Store, args cli.Args) error {
					it, err := st.Item(ctx, args.First())
					if err != nil {
						return err
					}
					for _, f := range slices.Sorted(maps.Keys(it.Flags)) {
						text := f
						if it.Flags[f] != "" {
							text += "=" + it.Flags[f]
						}
						fmt.Fprintln(e.stdout, printable(text))
					}
					return nil
				}),
			},
		},
	}
}
