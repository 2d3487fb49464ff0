package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// diffImagesOptions are the flags of diff-images.
type diffImagesOptions struct {
	a, b   string
	ignore []string
	format string
	out    io.Writer
}

func diffImagesCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "diff-images", Category: "Answers",
		Usage:     "say what differs between two images",
		UsageText: "layerfs diff-images [flags] IMAGE IMAGE",
		Description: `One line for each path that must be added (A), changed (C) or deleted (D) to get from
the first image to the second, in the order of paths, with what has changed: kind,
content, target, mode, owner, mtime, xattrs, links, device. A deleted directory stands
for all that was in it. Contents are compared by their digests, nothing is read, and
what the images have in common is passed over. Like diff(1) without its exit code: that
is 0 whether there are differences or not.

JSON is an array that is written as it is found, with the fields kind, path, what, from
and to.

Examples:
   layerfs diff-images debian:12.5 debian:12.6
   layerfs diff-images --ignore mtime app:1 app:2
   layerfs diff-images --format '{{.Path}}' app:1 app:2`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "table", Usage: "`FORMAT`: table, json or a Go template for each change"},
			&cli.StringFlag{Name: "ignore", Usage: "`LIST` of what does not count as a change, such as mtime,owner"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 2, 2, "two images"); err != nil {
				return err
			}
			o := &diffImagesOptions{a: c.Args().Get(0), b: c.Args().Get(1), format: c.String("format"), out: e.stdout}
			if list := c.String("ignore"); list != "" {
				o.ignore = strings.Split(list, ",")
			}
			for _, word := range o.ignore {
				if !slices.Contains(changeWords, word) {
					return usagef("--ignore %q: want some of %s", word, strings.Join(changeWords, ", "))
				}
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return diffImages(ctx, o, st)
			})
		},
	}
}

// changeWords are what may have changed in a file.
var changeWords = []string{"kind", "content", "target", "mode", "owner", "mtime", "xattrs", "links", "device"}

// diffImages prints changes as they are found.
func diffImages(ctx context.Context, o *diffImagesOptions, st *layers.Store) error {
	a := &jsonArray{w: o.out}
	err := st.DiffImages(ctx, o.a, o.b, func(c *layers.ImageChange) error {
		if c.Kind == layers.ActionChanged {
			c.What = slices.DeleteFunc(c.What, func(word string) bool { return slices.Contains(o.ignore, word) })
			if len(c.What) == 0 {
				return nil
			}
		}
		switch o.format {
		case "json":
			return a.add(c)
		case "table", "":
			letter := strings.ToUpper(c.Kind[:1]) // added, changed, deleted
			note := ""
			if len(c.What) > 0 {
				note = "  (" + strings.Join(c.What, ", ") + ")"
			}
			_, err := fmt.Fprintf(o.out, "%s %s%s\n", letter, printable(c.Path), note)
			return err
		}
		return printTemplate(o.out, o.format, []*layers.ImageChange{c})
	})
	if err == nil && o.format == "json" {
		err = a.end()
	}
	return err
}
