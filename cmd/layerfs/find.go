package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// findOptions are the flags of find.
type findOptions struct {
	layers.FindOptions
	format  string
	noTrunc bool
	out     io.Writer
}

func findCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "find", Category: "Answers",
		Usage:     "find files in all images, by digest or by name",
		UsageText: "layerfs find --digest D|--name GLOB [flags] [IMAGE...]",
		Description: `Searches each layer once, without reading the contents of files, and prints the files
with the images that show them. The pattern of --name is compared with the last name of
a path, or with all of it when there is a slash in the pattern; * does not match a slash.
With --hidden it also finds what is in a layer of an image but was deleted or replaced by
a layer above: it is still in the image for whoever pulls it. Images of additional stores
are searched too, and marked with their store.

JSON is an array that is written as it is found; each file has layer, path, kind, mode,
uid, gid, size, mtime, target, digest, images (id, names, store), hidden_in.

Examples:
   layerfs find --name 'libssl.so*'
   layerfs find --name '/etc/cron.d/*' --type f debian
   layerfs find --digest $(sha256sum id_rsa | cut -c1-64) --hidden`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "digest", Usage: "sha256 `DIGEST` of the content of a file"},
			&cli.StringFlag{Name: "name", Usage: "`GLOB` for the name, or for the path when it has a slash"},
			&cli.StringFlag{Name: "type", Usage: "`LETTERS` of the types that count: f, d, l, c, b, p, s"},
			&cli.BoolFlag{Name: "hidden", Usage: "also what upper layers have deleted or replaced"},
			&cli.StringFlag{Name: "format", Value: "table", Usage: "`FORMAT`: table, json or a Go template for each file"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print whole DiffIDs"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			o := &findOptions{format: c.String("format"), noTrunc: c.Bool("no-trunc"), out: e.stdout}
			o.Name, o.Types, o.Hidden, o.Images = c.String("name"), strings.ReplaceAll(c.String("type"), ",", ""), c.Bool("hidden"), c.Args().Slice()
			if d := c.String("digest"); d != "" {
				o.Digest = digest.Digest("sha256:" + strings.TrimPrefix(d, "sha256:"))
				if o.Digest.Validate() != nil {
					return usagef("--digest %q: want the 64 hexadecimal digits of a sha256", d)
				}
			}
			if o.Digest == "" && o.Name == "" && o.Types == "" {
				return usagef("say what to find: --digest, --name or --type")
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return findFiles(ctx, o, st)
			})
		},
	}
}

// findFiles prints files as they are found.
func findFiles(ctx context.Context, o *findOptions, st *layers.Store) error {
	if o.format == "json" {
		a := &jsonArray{w: o.out}
		err := st.Find(ctx, &o.FindOptions, func(f *layers.Found) error { return a.add(f) })
		if err != nil && !errors.Is(err, layers.ErrStoreGone) {
			return err
		}
		return errors.Join(err, a.end())
	}
	return st.Find(ctx, &o.FindOptions, func(f *layers.Found) error {
		if o.format != "table" {
			return printTemplate(o.out, o.format, []*layers.Found{f})
		}
		return o.lines(f)
	})
}

// lines prints a file once for each image. The columns cannot be aligned: nobody
// knows what is to come.
func (o *findOptions) lines(f *layers.Found) error {
	path := printable(f.Path)
	if f.Target != "" {
		path += " -> " + printable(f.Target)
	}
	line := func(r layers.ImageRef, note string) error {
		name := short(string(r.ID), false)
		if len(r.Names) > 0 {
			name = familiar(r.Names[0])
		}
		_, err := fmt.Fprintf(o.out, "%s  %s  %s  %s%s%s\n", name, short(string(f.Layer), o.noTrunc), size(f.Size), path, note, inStore(r.Store))
		return err
	}
	for _, r := range f.Images {
		if err := line(r, ""); err != nil {
			return err
		}
	}
	for _, r := range f.HiddenIn {
		if err := line(r, "  (hidden by a layer above)"); err != nil {
			return err
		}
	}
	return nil
}

// A jsonArray writes an array whose elements come one by one.
type jsonArray struct {
	w     io.Writer
	begun bool
}

func (a *jsonArray) add(v any) error {
	raw, err := json.MarshalIndent(v, "  ", "  ")
	if err != nil {
		return err
	}
	before := "[\n  "
	if a.begun {
		before = ",\n  "
	}
	a.begun = true
	_, err = fmt.Fprintf(a.w, "%s%s", before, raw)
	return err
}

func (a *jsonArray) end() error {
	text := "\n]\n"
	if !a.begun {
		text = "[]\n"
	}
	_, err := io.WriteString(a.w, text)
	return err
}
