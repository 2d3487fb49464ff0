package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// layersOptions are the flags of layers.
type layersOptions struct {
	format  string
	quiet   bool
	noTrunc bool
	digest  string
	out     io.Writer
}

func layersCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "layers", Category: "Images",
		Usage:     "list the layers",
		UsageText: "layerfs layers [flags]",
		Description: `A layer is named by its DiffID, the sha256 of its uncompressed tar. TAR is the size of
that tar, FILES the number of regular files, BODIES that of different contents among
them, IMAGES the number of images that have the layer.

JSON is an array with the fields diffid, size, blobs (the compressed forms it came
in), created, entries, files, whiteouts, bytes, bodies, body_bytes, meta_bytes and
images (their IDs); a template has the same, as .DiffID .Size .Blobs and so on.

Examples:
   layerfs layers
   layerfs layers --digest sha256:1f0c…
   layerfs diff $(layerfs layers -q --no-trunc | head -n 1) | tar -tv`,
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print DiffIDs only"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print whole DiffIDs"},
			&cli.StringFlag{Name: "digest", Usage: "list only the layer whose tar, or one of whose compressed forms, has the `DIGEST`"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			o := &layersOptions{format: c.String("format"), quiet: c.Bool("quiet"), noTrunc: c.Bool("no-trunc"), digest: c.String("digest"), out: e.stdout}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return listLayers(ctx, o, st)
			})
		},
	}
}

// listLayers prints all layers.
func listLayers(ctx context.Context, o *layersOptions, st *layers.Store) error {
	var all []layers.LayerInfo
	var err error
	if o.digest == "" {
		all, err = st.Layers(ctx)
	} else {
		all, err = st.LayersByDigest(ctx, digest.Digest(o.digest))
	}
	if err != nil {
		return err
	}
	if o.quiet {
		for _, l := range all {
			fmt.Fprintln(o.out, short(string(l.DiffID), o.noTrunc))
		}
		return nil
	}
	return printList(o.out, o.format, all, table[layers.LayerInfo]{
		header: []string{"DIFFID", "TAR", "FILES", "BODIES", "IMAGES"},
		row: func(l layers.LayerInfo) []string {
			return []string{
				short(string(l.DiffID), o.noTrunc), size(l.Size),
				strconv.FormatInt(l.Files, 10), strconv.FormatInt(l.Bodies, 10), strconv.Itoa(len(l.Images)),
			}
		},
	})
}
