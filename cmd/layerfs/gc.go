package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// gcOptions are the flags of gc.
type gcOptions struct {
	dryRun  bool
	squeeze bool
	format  string
	out     io.Writer
}

func gcCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "gc", Category: "The store",
		Usage:     "free the space of what nothing needs any more",
		UsageText: "layerfs gc [--dry-run] [--squeeze]",
		Description: `Removes what no image, mount or running load needs: leftovers of killed commands and
content that was in use when its image was removed. Mounts and readers go on
undisturbed. JSON has the fields layers, bodies, objects, packs, blobs, bytes, in_use.

Examples:
   layerfs gc --dry-run
   layerfs gc
   layerfs gc --squeeze       # and then replace compressed layers by corrections`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be removed"},
			&cli.BoolFlag{Name: "squeeze", Usage: "squeeze afterwards, see layerfs squeeze"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT`: text, json or a Go template"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			o := &gcOptions{dryRun: c.Bool("dry-run"), squeeze: c.Bool("squeeze"), format: c.String("format"), out: e.stdout}
			if o.squeeze && (o.dryRun || o.format != "text") {
				return usagef("--squeeze goes neither with --dry-run nor with --format; use layerfs squeeze")
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				if err := gc(ctx, o, st); err != nil || !o.squeeze {
					return err
				}
				return squeeze(ctx, &squeezeOptions{jobs: 2, format: "text", out: o.out}, st)
			})
		},
	}
}

// gc collects and says what was freed.
func gc(ctx context.Context, o *gcOptions, st *layers.Store) error {
	r, err := st.GC(ctx, o.dryRun)
	if err != nil {
		return err
	}
	if o.format != "text" {
		return printOne(o.out, o.format, r)
	}
	verb := "Freed"
	if o.dryRun {
		verb = "Would free"
	}
	fmt.Fprintf(o.out, "%s %s: %s, %s in %s and %s, %s\n", verb, size(r.Bytes),
		count(int64(len(r.Layers)), "layer"), count(r.Bodies, "file content"),
		count(r.Objects, "object"), count(r.Packs, "pack"), count(r.Blobs, "blob"))
	if n := len(r.Containers); n > 0 {
		fmt.Fprintf(o.out, "%s %s that no record leads to\n", verb, count(int64(n), "container"))
	}
	if n := len(r.InUse); n > 0 {
		fmt.Fprintf(o.out, "%s still in use; run layerfs gc again when the mount or reader has gone\n", count(int64(n), "layer"))
	}
	return nil
}

// count puts a number and a noun together.
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
