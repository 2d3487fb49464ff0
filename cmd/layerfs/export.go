package main

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func exportCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "export", Category: "Containers",
		Usage:     "write all files of a container or an image as one tar",
		UsageText: "layerfs export [flags] X",
		Description: `The merged tree as a root file system tar, which "layerfs import" reads again. X is a
container, an image or a layer with those below it. What "layerfs diff --help" says
about containers that are being written holds here.

Examples:
   layerfs export web | tar tv
   layerfs export -o rootfs.tar.zst --compress zstd debian
   layerfs export web | layerfs import - flat:1`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
			&cli.StringFlag{Name: "compress", Value: "none", Usage: "`HOW`: none, gzip or zstd"},
		},
		BashComplete: completeContainers(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "CONTAINER or IMAGE"); err != nil {
				return err
			}
			o := &diffOptions{x: c.Args().First(), output: c.String("output"), compress: c.String("compress"), out: e.stdout, warn: e.warn}
			if err := o.check(e); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return export(ctx, o, st)
			})
		},
	}
}

func export(ctx context.Context, o *diffOptions, st *layers.Store) error {
	return o.write(func(w io.Writer) (*layers.Written, error) { return st.Export(ctx, w, o.x) })
}
