package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// checkOptions are the flags of check.
type checkOptions struct {
	fast     bool
	quiet    bool
	format   string
	out      io.Writer
	progress io.Writer
}

func checkCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "check", Category: "The store",
		Usage:     "verify everything in the store",
		UsageText: "layerfs check [--fast]",
		Description: `Reads the records, the trees and every layer's tar, which covers the content of every
file, and compares the digests. It changes nothing and may run while the store is
used. Each problem is a line that says which files of which images it touches; the
exit code is then 5. JSON has the fields problems, images, layers, bodies, bytes.

Examples:
   layerfs check
   layerfs check --fast            # without reading the contents of files`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "fast", Usage: "leave out what needs reading the contents of all files"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT`: text, json or a Go template"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			o := &checkOptions{
				fast: c.Bool("fast"), quiet: c.Bool("quiet"), format: c.String("format"),
				out: e.stdout, progress: e.stderr,
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return check(ctx, o, st)
			})
		},
	}
}

// check prints what is wrong and returns an error when anything is.
func check(ctx context.Context, o *checkOptions, st *layers.Store) error {
	co := &layers.CheckOptions{Fast: o.fast}
	width := terminalWidth(o.progress)
	if width > 0 && !o.quiet {
		co.Progress = func(done, total int64) {
			fmt.Fprintf(o.progress, "\r\x1b[K%s of %s", size(done), size(total))
		}
	}
	r, err := st.Check(ctx, co)
	if co.Progress != nil {
		fmt.Fprint(o.progress, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	if r.Problems == nil {
		r.Problems = []layers.Problem{} // [] in JSON
	}
	if o.format != "text" {
		if err := printOne(o.out, o.format, r); err != nil {
			return err
		}
	} else {
		o.print(r)
	}
	if n := len(r.Problems); n > 0 {
		return &quietError{fmt.Errorf("%w: %d problems", layers.ErrDamaged, n)}
	}
	return nil
}

func (o *checkOptions) print(r *layers.CheckReport) {
	for _, p := range r.Problems {
		fmt.Fprintln(o.out, printable(p.String()))
		for _, img := range p.Images {
			fmt.Fprintf(o.out, "   in image %s  %s\n", short(string(img.ID), false), names(img))
		}
	}
	verdict := "no problems"
	if n := len(r.Problems); n > 0 {
		verdict = count(int64(n), "problem")
	}
	fmt.Fprintf(o.out, "%s, %s, %s checked: %s\n", count(int64(r.Images), "image"),
		count(int64(r.Layers), "layer"), count(r.Bodies, "file content"), verdict)
}
