package main

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/changes"
)

// changesOptions are the flags of changes.
type changesOptions struct {
	x, y   string
	format string
	out    io.Writer
}

func changesCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "changes", Category: "Containers",
		Usage:     "list what was changed in a container, an image or a layer",
		UsageText: "layerfs changes [flags] X [Y]",
		Description: `Prints a line for each path that must be added (A), modified (C) or deleted (D) to get
from Y to X. Both may be containers, images or layers; without Y it is what X was made
of: of a container its image, of an image all layers but the topmost. For a container
only its changes are looked at, never the files of the image.

Examples:
   layerfs changes web
   layerfs changes web debian:12
   layerfs changes app:2 app:1`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT`: text or json"},
		},
		BashComplete: completeContainers(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 2, "CONTAINER, IMAGE or LAYER"); err != nil {
				return err
			}
			o := &changesOptions{x: c.Args().Get(0), y: c.Args().Get(1), format: c.String("format"), out: e.stdout}
			if o.format != "text" && o.format != "json" {
				return usagef("--format %q: want text or json", o.format)
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return listChanges(ctx, o, st)
			})
		},
	}
}

// A changeLine is a change in the list that --format json prints.
type changeLine struct {
	Kind string
	Path string
}

func listChanges(ctx context.Context, o *changesOptions, st *layers.Store) error {
	if o.format == "json" {
		list := []changeLine{}
		err := st.Changes(ctx, o.x, o.y, func(c changes.Change) error {
			list = append(list, changeLine{c.Kind.String(), c.Path})
			return nil
		})
		return errors.Join(err, printJSON(o.out, list))
	}
	w := bufio.NewWriter(o.out)
	err := st.Changes(ctx, o.x, o.y, func(c changes.Change) error {
		_, err := w.WriteString(c.Kind.String() + " " + printable(c.Path) + "\n")
		return err
	})
	return errors.Join(err, w.Flush())
}
