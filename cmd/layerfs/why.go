package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// whyOptions are the flags of why.
type whyOptions struct {
	item   string
	format string
	out    io.Writer
}

func whyCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "why", Category: "Answers",
		Usage:     "say what keeps something in the store",
		UsageText: "layerfs why IMAGE|LAYER|DIGEST",
		Description: `Tells what a digest is (an image, a layer, a manifest, a compressed layer, the content
of a file) and what keeps it: the images that need it with their names, the layers that
hold it, the processes that have it open. What lies in an additional store is marked with
that store, and so is what keeps it there. The exit code is 3 when there is nothing of
that digest. JSON has the fields digest, thing, store, images, layers, processes, others.

Examples:
   layerfs why 1f0c5ab93d27
   layerfs why sha256:$(sha256sum < libssl.so.3 | cut -c1-64)`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT`: text, json or a Go template"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 1, "an IMAGE, LAYER or DIGEST"); err != nil {
				return err
			}
			o := &whyOptions{item: c.Args().First(), format: c.String("format"), out: e.stdout}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return why(ctx, o, st)
			})
		},
	}
}

// why prints what keeps something.
func why(ctx context.Context, o *whyOptions, st *layers.Store) error {
	w, err := st.Why(ctx, o.item)
	if err != nil {
		return err
	}
	if o.format != "text" {
		return printOne(o.out, o.format, w)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", w.Digest, w.Thing)
	if w.Store != "" {
		fmt.Fprintf(&b, "  in the additional store %s\n", printable(w.Store))
	}
	for _, h := range w.Layers {
		fmt.Fprintf(&b, "  in layer %s%s\n", h.Layer, inStore(h.Store))
		for _, p := range h.Paths {
			fmt.Fprintf(&b, "    %s\n", printable(p))
		}
	}
	for _, r := range w.Images {
		for _, n := range r.Names {
			fmt.Fprintf(&b, "  kept by image %s  %s%s\n", short(string(r.ID), false), familiar(n), inStore(r.Store))
		}
		if len(r.Names) == 0 {
			fmt.Fprintf(&b, "  kept by image %s  (no name)%s\n", short(string(r.ID), false), inStore(r.Store))
		}
	}
	for _, text := range w.Others {
		fmt.Fprintf(&b, "  kept by %s\n", printable(text))
	}
	for _, p := range w.Processes {
		fmt.Fprintf(&b, "  open in process %d  %s\n", p.PID, printable(p.Command))
	}
	switch {
	case w.Kept():
	case w.Store != "":
		b.WriteString("  nothing keeps it; a collection there removes it\n")
	default:
		b.WriteString("  nothing keeps it; `layerfs gc` removes it\n")
	}
	_, err = io.WriteString(o.out, b.String())
	return err
}
