package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// diffOptions are the flags of diff.
type diffOptions struct {
	x, y     string
	output   string
	compress string
	out      io.Writer
	warn     func(format string, args ...any)
}

func diffCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "diff", Category: "Images in and out",
		Usage:     "write the changes of a container, an image or a layer as a tar",
		UsageText: "layerfs diff [flags] X [Y]",
		Description: `The tar has the form of an image layer: applied on Y it gives X. Without Y it is what
X was made of, as with "layerfs changes". For a layer, and for an image its topmost
one, it is the tar that the layer came in with, bit for bit; its sha256 is the layer's
DiffID.

Somebody may be writing into a container meanwhile. Every file is then as it was at
one moment; those of which that cannot be said are named on standard error.

Examples:
   layerfs diff web | tar tv
   layerfs diff --compress zstd -o web.tar.zst web
   layerfs diff sha256:1f0c… | sha256sum
   layerfs diff -o top.tar alpine`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
			&cli.StringFlag{Name: "compress", Value: "none", Usage: "`HOW`: none, gzip or zstd"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 2, "CONTAINER, IMAGE or LAYER"); err != nil {
				return err
			}
			o := &diffOptions{
				x: c.Args().Get(0), y: c.Args().Get(1), output: c.String("output"), compress: c.String("compress"),
				out: e.stdout, warn: e.warn,
			}
			if err := o.check(e); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return diff(ctx, o, st)
			})
		},
	}
}

// check refuses what cannot be written.
func (o *diffOptions) check(e *env) error {
	switch o.compress {
	case "none", "gzip", "zstd":
	default:
		return usagef("--compress %q: want none, gzip or zstd", o.compress)
	}
	if o.output == "" && terminalWidth(e.stdout) > 0 {
		return usagef("a tar is nothing for a terminal; redirect the output or use -o FILE")
	}
	return nil
}

// diff writes the tar of the changes.
func diff(ctx context.Context, o *diffOptions, st *layers.Store) error {
	return o.write(func(w io.Writer) (*layers.Written, error) { return st.Diff(ctx, w, o.x, o.y) })
}

// write calls fn with where the tar is to go, and says what is to be said of it.
func (o *diffOptions) write(fn func(io.Writer) (*layers.Written, error)) error {
	var result *layers.Written
	err := writeOutput(o.output, o.out, func(w io.Writer) (err error) {
		w, end, err := compressor(w, o.compress)
		if err != nil {
			return err
		}
		result, err = fn(w)
		return errors.Join(err, end())
	})
	if err == nil {
		warnTorn(o.warn, result.Torn)
	}
	return err
}

// warnTorn names files that were being written while they were read.
func warnTorn(warn func(format string, args ...any), torn []string) {
	if len(torn) == 0 {
		return
	}
	rest := ""
	if len(torn) > 5 {
		rest = fmt.Sprintf(" and %d more", len(torn)-5)
		torn = torn[:5]
	}
	warn("being written at this moment, and perhaps torn: %s%s; stop the writer to be sure", printable(strings.Join(torn, ", ")), rest)
}

// compressor compresses what is written to w until end is called.
func compressor(w io.Writer, how string) (_ io.Writer, end func() error, err error) {
	switch how {
	case "gzip":
		z := gzip.NewWriter(w)
		return z, z.Close, nil
	case "zstd":
		z, err := zstd.NewWriter(w)
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return w, func() error { return nil }, nil
}
