package main

import (
	"context"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// imagesOptions are the flags of images.
type imagesOptions struct {
	patterns []string
	format   string
	quiet    bool
	noTrunc  bool
	digests  bool
	layer    string
	sizes    bool
	tree     bool
	heads    bool
	out      io.Writer
}

func imagesCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "images", Category: "Images",
		Usage:     "list the images",
		UsageText: "layerfs images [flags] [NAME]",
		Description: `One line per name; an image without a name is shown as <none>. NAME is a
repository (debian), a name (debian:12) or a pattern ('*deb*').

JSON is an array of images with the fields id, names, layers (DiffIDs, bottom first),
manifests, config, platform, created, loaded, size and, for an image of an additional
store, store. A template is applied to each line and has the fields .ID .Repository
.Tag .Digest .Created .CreatedSince .Size .Bytes .Names .ReadOnly .Store. Where there
are images of additional stores, the column R/O marks them.

Examples:
   layerfs images
   layerfs images -q --no-trunc debian
   layerfs images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
   layerfs images --tree
   layerfs images --format json | jq '.[].layers | length'`,
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print IDs only"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print whole IDs"},
			&cli.BoolFlag{Name: "digests", Usage: "print the digests of the manifests too"},
			&cli.StringSliceFlag{Name: "filter", Aliases: []string{"f"}, Usage: "list what matches `reference=PATTERN`, or stands on layer=LAYER (a layer record or ChainID); can be repeated"},
			&cli.BoolFlag{Name: "sizes", Usage: "print how much of each image others share"},
			&cli.BoolFlag{Name: "tree", Usage: "show which image stands on which"},
			&cli.BoolFlag{Name: "heads", Usage: "list only images that no other stands on"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 1, ""); err != nil {
				return err
			}
			patterns, layer, err := imageFilters(c.StringSlice("filter"))
			if err != nil {
				return err
			}
			o := &imagesOptions{
				patterns: append(patterns, c.Args().Slice()...), format: c.String("format"), quiet: c.Bool("quiet"),
				noTrunc: c.Bool("no-trunc"), digests: c.Bool("digests"), out: e.stdout,
				layer: layer, sizes: c.Bool("sizes"), tree: c.Bool("tree"), heads: c.Bool("heads"),
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return images(ctx, o, st)
			})
		},
	}
}

// An imageLine is one line of the list: an image under one of its names.
type imageLine struct {
	ID, Repository, Tag string
	Digest              digest.Digest
	Created             *time.Time
	CreatedSince, Size  string
	Bytes               int64
	Unique, Shared      string
	Names               []string
	ReadOnly            bool
	Store               string // that of an image of an additional store
}

// images lists the images that match.
func images(ctx context.Context, o *imagesOptions, st *layers.Store) error {
	all, err := o.list(ctx, st)
	if err != nil {
		return err
	}
	if o.tree {
		return o.printTree(ctx, all, st)
	}
	chosen := []layers.Image{}
	var lines []imageLine
	for _, img := range all {
		l := o.lines(img)
		if len(l) > 0 {
			chosen = append(chosen, img)
			lines = append(lines, l...)
		}
	}
	if o.quiet {
		return o.printIDs(chosen)
	}
	if o.format == "json" {
		return printJSON(o.out, chosen)
	}
	return printList(o.out, o.format, lines, o.table(lines))
}

// lines returns the lines of an image whose names match; an image without names
// matches only when nothing is asked for.
func (o *imagesOptions) lines(img layers.Image) []imageLine {
	line := imageLine{
		ID: short(string(img.ID), o.noTrunc), Created: img.Created, CreatedSince: ago(img.Created),
		Size: size(img.Size), Bytes: img.Size, Unique: size(img.Unique), Shared: size(img.Shared), Repository: "<none>", Tag: "<none>", Digest: "<none>",
		ReadOnly: img.ReadOnly(), Store: img.Store,
	}
	for _, n := range img.Names {
		line.Names = append(line.Names, n.Name)
	}
	if len(img.Names) == 0 {
		if len(o.patterns) > 0 {
			return nil
		}
		if len(img.Manifests) > 0 {
			line.Digest = img.Manifests[0].Descriptor.Digest
		}
		return []imageLine{line}
	}
	var out []imageLine
	for _, n := range img.Names {
		if len(o.patterns) > 0 && !slices.ContainsFunc(o.patterns, func(p string) bool { return matchName(p, n.Name) }) {
			continue
		}
		l := line
		repository, tag, _ := layers.SplitName(n.Name)
		l.Repository, l.Digest = repository, n.Manifest.Digest
		if tag != "" {
			l.Tag = tag
		}
		out = append(out, l)
	}
	return out
}

// table has the columns that are asked for, and R/O where it says something.
func (o *imagesOptions) table(lines []imageLine) table[imageLine] {
	readOnly := slices.ContainsFunc(lines, func(l imageLine) bool { return l.ReadOnly })
	columns := []struct {
		name string
		show bool
		cell func(imageLine) string
	}{
		{"REPOSITORY", true, func(l imageLine) string { return l.Repository }},
		{"TAG", true, func(l imageLine) string { return l.Tag }},
		{"DIGEST", o.digests, func(l imageLine) string { return string(l.Digest) }},
		{"IMAGE ID", true, func(l imageLine) string { return l.ID }},
		{"CREATED", !o.sizes, func(l imageLine) string { return l.CreatedSince }},
		{"SIZE", true, func(l imageLine) string { return l.Size }},
		{"SHARED", o.sizes, func(l imageLine) string { return l.Shared }},
		{"UNIQUE", o.sizes, func(l imageLine) string { return l.Unique }},
		{"R/O", readOnly, func(l imageLine) string { return strconv.FormatBool(l.ReadOnly) }},
	}
	var t table[imageLine]
	for _, c := range columns {
		if c.show {
			t.header = append(t.header, c.name)
		}
	}
	t.row = func(l imageLine) (row []string) {
		for _, c := range columns {
			if c.show {
				row = append(row, c.cell(l))
			}
		}
		return row
	}
	return t
}

func (o *imagesOptions) printIDs(list []layers.Image) error {
	for _, img := range list {
		if _, err := io.WriteString(o.out, short(string(img.ID), o.noTrunc)+"\n"); err != nil {
			return err
		}
	}
	return nil
}
