package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// historyOptions are the flags of history.
type historyOptions struct {
	image   string
	format  string
	quiet   bool
	noTrunc bool
	out     io.Writer
}

func historyCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "history", Category: "Images",
		Usage:     "show the steps that made an image",
		UsageText: "layerfs history [flags] NAME",
		Description: `The newest step comes first. LAYER is the DiffID of the layer that the step made, for
"layerfs diff"; a step that only changed the config has none. JSON and templates have
the fields layer, created, created_by, size, comment (.Layer .Created .CreatedBy
.Size .Comment).

Examples:
   layerfs history --no-trunc alpine
   layerfs history -q alpine | head -n 1       # the topmost layer`,
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print the DiffIDs only"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print whole DiffIDs and commands"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "NAME of an image"); err != nil {
				return err
			}
			o := &historyOptions{
				image: c.Args().First(), format: c.String("format"),
				quiet: c.Bool("quiet"), noTrunc: c.Bool("no-trunc"), out: e.stdout,
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return history(ctx, o, st)
			})
		},
	}
}

// A step is one entry of an image's history.
type step struct {
	Layer     digest.Digest `json:"layer,omitempty"`
	Created   *time.Time    `json:"created,omitempty"`
	CreatedBy string        `json:"created_by"`
	Size      int64         `json:"size"`
	Comment   string        `json:"comment,omitempty"`
}

// history prints the steps, the newest first.
func history(ctx context.Context, o *historyOptions, st *layers.Store) error {
	img, err := st.Image(ctx, o.image)
	if err != nil {
		return err
	}
	all, err := st.History(img)
	if err != nil {
		return err
	}
	known, err := layersByID(ctx, st)
	if err != nil {
		return err
	}
	var steps []step
	for _, s := range all {
		steps = append(steps, step{
			Layer: s.Layer, Created: s.Created, CreatedBy: s.CreatedBy, Size: known[s.Layer].Bytes, Comment: s.Comment,
		})
	}
	slices.Reverse(steps)
	if o.quiet {
		for _, s := range steps {
			if s.Layer != "" {
				fmt.Fprintln(o.out, short(string(s.Layer), o.noTrunc))
			}
		}
		return nil
	}
	return printList(o.out, o.format, steps, o.table())
}

// layersByID reads the records of all layers at once, which is cheaper than one
// after the other from a handful on.
func layersByID(ctx context.Context, st *layers.Store) (map[digest.Digest]layers.LayerInfo, error) {
	all, err := st.Layers(ctx)
	if err != nil {
		return nil, err
	}
	byID := make(map[digest.Digest]layers.LayerInfo, len(all))
	for _, l := range all {
		byID[l.DiffID] = l
	}
	return byID, nil
}

func (o *historyOptions) table() table[step] {
	return table[step]{
		header: []string{"LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"},
		row: func(s step) []string {
			id := "-"
			if s.Layer != "" {
				id = short(string(s.Layer), o.noTrunc)
			}
			return []string{id, ago(s.Created), command(s.CreatedBy, o.noTrunc), size(s.Size), s.Comment}
		},
	}
}
