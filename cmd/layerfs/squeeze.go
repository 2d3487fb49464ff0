package main

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// squeezeOptions are the flags of squeeze.
type squeezeOptions struct {
	again  bool
	jobs   int
	format string
	out    io.Writer
}

func squeezeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "squeeze", Category: "The store",
		Usage:     "replace kept compressed layers by small corrections",
		UsageText: "layerfs squeeze [--jobs N] [--again]",
		Description: `A compressed layer is kept as it came, beside its content, so that its image goes out
with the digest that it came in with. This command finds for each gzip layer a small
correction with which the same bytes can be made again from the content, proves it by
the digest, and only then drops the layer as it came. Saving and pushing such an image
takes more time afterwards, the mount and everything else none.

It may be interrupted at any time and goes on where it stopped. zstd layers and what
has no small correction stay. JSON has a list of digest, layer, size, stored, kept,
predictor.

Examples:
   layerfs squeeze
   nice layerfs squeeze --jobs 1            # beside other work
   layerfs gc --squeeze                     # collect first`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "again", Usage: "also try what has had no correction before"},
			&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Value: 2, Usage: "work on `N` layers at once"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT`: text, json or a Go template"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			o := &squeezeOptions{again: c.Bool("again"), jobs: c.Int("jobs"), format: c.String("format"), out: e.stdout}
			if o.jobs < 1 {
				return usagef("--jobs %d: at least 1", o.jobs)
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return squeeze(ctx, o, st)
			})
		},
	}
}

// squeeze squeezes and says what was gained, a line per layer as they are done.
func squeeze(ctx context.Context, o *squeezeOptions, st *layers.Store) error {
	so := &layers.SqueezeOptions{Again: o.again, Parallel: o.jobs}
	if o.format == "text" {
		var mu sync.Mutex
		so.Progress = func(q layers.Squeezed) {
			mu.Lock()
			defer mu.Unlock()
			o.line(q)
		}
	}
	done, err := st.Squeeze(ctx, so)
	if o.format != "text" {
		if err != nil {
			return err
		}
		if done == nil {
			done = []layers.Squeezed{} // [] in JSON
		}
		return printOne(o.out, o.format, done)
	}
	var before, after int64
	for _, q := range done {
		before += q.Size
		after += q.Stored
	}
	fmt.Fprintf(o.out, "%s: %s before, %s now\n", count(int64(len(done)), "compressed layer"), size(before), size(after))
	return err
}

func (o *squeezeOptions) line(q layers.Squeezed) {
	if q.Kept != "" {
		fmt.Fprintf(o.out, "%s stays %s: %s\n", short(string(q.Layer), false), size(q.Size), printable(q.Kept))
		return
	}
	fmt.Fprintf(o.out, "%s %s is now %s (like %s)\n", short(string(q.Layer), false), size(q.Size), size(q.Stored), q.Predictor)
}
