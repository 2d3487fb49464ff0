package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// whichOptions are the flags of which.
type whichOptions struct {
	image, path string
	format      string
	quiet       bool
	noTrunc     bool
	noFollow    bool
	out         io.Writer
}

func whichCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "which", Category: "Answers",
		Usage:     "say which layer of an image made, changed or removed a path",
		UsageText: "layerfs which [flags] IMAGE PATH",
		Description: `One line for each layer that did something to PATH, the topmost first: the first line
is the layer whose file the image shows, or the one that removed it. CREATED BY is the
line of the image's history that made the layer. Symbolic links are followed as in a
container; PATH may be written with or without its first slash. The exit code is 3 when
no layer ever had the path.

JSON has the fields image, path, links, exists and touches; each of those has index,
layer, created, created_by, action, note and file.

Examples:
   layerfs which debian /usr/bin/ld
   layerfs which -q myapp etc/passwd | xargs layerfs diff -o layer.tar
   layerfs which --no-follow alpine /bin/sh      # the link, not busybox`,
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print the DiffID of the first line only"},
			&cli.BoolFlag{Name: "no-follow", Usage: "do not follow PATH when it is a symbolic link itself"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print whole DiffIDs and commands"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 2, 2, "IMAGE and PATH"); err != nil {
				return err
			}
			o := &whichOptions{
				image: c.Args().Get(0), path: c.Args().Get(1), format: c.String("format"), quiet: c.Bool("quiet"),
				noTrunc: c.Bool("no-trunc"), noFollow: c.Bool("no-follow"), out: e.stdout,
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return which(ctx, o, st)
			})
		},
	}
}

// which prints what the layers did to a path.
func which(ctx context.Context, o *whichOptions, st *layers.Store) error {
	origin, err := st.Which(ctx, o.image, o.path, &layers.WhichOptions{NoFollow: o.noFollow})
	if err != nil {
		return err
	}
	switch {
	case o.quiet:
		_, err = fmt.Fprintln(o.out, origin.Touches[0].Layer)
		return err
	case o.format == "json":
		return printJSON(o.out, origin)
	case o.format == "table":
		for _, link := range origin.Links {
			fmt.Fprintln(o.out, "link:", printable(link))
		}
	}
	return printList(o.out, o.format, origin.Touches, table[layers.Touch]{
		header: []string{"LAYER", "ACTION", "PATH", "CREATED", "CREATED BY"},
		row: func(t layers.Touch) []string {
			path := origin.Path
			if t.Note != "" {
				path += " (" + t.Note + ")"
			}
			return []string{short(string(t.Layer), o.noTrunc), t.Action, path, ago(t.Created), command(t.CreatedBy, o.noTrunc)}
		},
	})
}

// command is the line of a history in one line of a table.
func command(text string, full bool) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 45 && !full {
		text = string(r[:44]) + "…"
	}
	return text
}
