package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// diffOptions are the flags of diff.
type diffOptions struct {
	item   string
	output string
	out    io.Writer
}

func diffCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "diff", Category: "Images in and out",
		Usage:     "write the tar of a layer, bit for bit as it came in",
		UsageText: "layerfs diff [-o FILE] LAYER|IMAGE",
		Description: `The tar is uncompressed; its sha256 is the layer's DiffID. For an image it is the
tar of its topmost layer.

Examples:
   layerfs diff sha256:1f0c… | sha256sum
   layerfs diff -o top.tar alpine`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "LAYER or IMAGE"); err != nil {
				return err
			}
			o := &diffOptions{item: c.Args().First(), output: c.String("output"), out: e.stdout}
			if o.output == "" && terminalWidth(e.stdout) > 0 {
				return usagef("a tar is nothing for a terminal; redirect the output or use -o FILE")
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return diff(ctx, o, st)
			})
		},
	}
}

// diff writes the tar of a layer.
func diff(ctx context.Context, o *diffOptions, st *layers.Store) (err error) {
	d, err := findLayer(ctx, st, o.item)
	if err != nil {
		return err
	}
	l, err := st.OpenLayer(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return writeOutput(o.output, o.out, func(w io.Writer) error { return l.WriteTar(ctx, w) })
}

// findLayer returns the layer that is meant, of an image the topmost one.
func findLayer(ctx context.Context, st *layers.Store, item string) (layers.DiffID, error) {
	img, layer, err := find(ctx, st, item)
	if err != nil {
		return "", err
	}
	if layer != nil {
		return layers.DiffID(layer.DiffID), nil
	}
	if len(img.Layers) == 0 {
		return "", fmt.Errorf("%w: image %s has no layers", layers.ErrLayerUnknown, item)
	}
	return layers.DiffID(img.Layers[len(img.Layers)-1]), nil
}
