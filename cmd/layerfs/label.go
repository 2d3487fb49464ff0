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

// labelOptions are the flags and arguments of label.
type labelOptions struct {
	container string
	set       map[string]string
	remove    []string
	format    string
	out       io.Writer
}

func labelCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "label", Category: "Containers",
		Usage:     "list, set and remove the labels of a container",
		UsageText: "layerfs label [flags] CONTAINER [KEY=VALUE...]",
		Description: `Without KEY=VALUE and --remove the labels are listed. All changes of one call are
made together.

Examples:
   layerfs label web                            # list
   layerfs label web tier=front owner=me        # set
   layerfs label --remove tier web              # remove
   layerfs label --format json web`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "remove", Usage: "remove the label `KEY`; may be given several times"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT` of the list: text, json or a Go template over the map"},
		},
		BashComplete: completeContainers(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "CONTAINER"); err != nil {
				return err
			}
			set, err := parseLabels(c.Args().Tail())
			if err != nil {
				return err
			}
			o := &labelOptions{container: c.Args().First(), set: set, remove: c.StringSlice("remove"), format: c.String("format"), out: e.stdout}
			open := e.viewStore
			if len(o.set)+len(o.remove) > 0 {
				open = e.openStore
			}
			return withStore(c, open, func(ctx context.Context, st *layers.Store) error {
				return label(ctx, o, st)
			})
		},
	}
}

func label(ctx context.Context, o *labelOptions, st *layers.Store) error {
	if len(o.set)+len(o.remove) > 0 {
		return st.SetContainerLabels(ctx, o.container, o.set, o.remove)
	}
	c, err := st.Container(ctx, o.container)
	if err != nil {
		return err
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	if o.format != "text" {
		return printOne(o.out, o.format, c.Labels)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
		if _, err := fmt.Fprintf(o.out, "%s=%s\n", key, printable(c.Labels[key])); err != nil {
			return err
		}
	}
	return nil
}
