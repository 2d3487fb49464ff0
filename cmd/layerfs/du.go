package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// duOptions are the flags of du.
type duOptions struct {
	format  string
	noTrunc bool
	images  bool
	out     io.Writer
}

func duCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "du", Category: "Answers",
		Usage:     "say where the space goes: a tree of layers, and what they share",
		UsageText: "layerfs du [flags]",
		Description: `Layers are drawn on the layers below them, the largest first, with the names of the
images whose topmost layer they are. The content of a file counts once in each layer
that holds it: UNIQUE is what no other layer holds, SHARED what others hold too. With
--images there is one line for each image; UNIQUE is then what removing that image alone
would free. On a terminal a bar shows the size, its full part what is unique.

Only what lies in the store itself is counted. A layer that lies in an additional store
takes no space here: it is marked with that store where images of this one stand on it,
and what each additional store holds is listed after the total.

JSON has the fields total, images, roots (layers with their children) and additional.

Examples:
   layerfs du
   layerfs du --images
   layerfs du --format json | jq '.images[] | {names, unique}'`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "table", Usage: "`FORMAT`: table, json or a Go template"},
			&cli.BoolFlag{Name: "images", Usage: "one line for each image instead of the tree"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print whole DiffIDs and IDs"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			o := &duOptions{format: c.String("format"), noTrunc: c.Bool("no-trunc"), images: c.Bool("images"), out: e.stdout}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return du(ctx, o, st)
			})
		},
	}
}

// A duLine is one line of the table.
type duLine struct {
	total, shared, unique int64
	what                  string
}

// du prints where the space goes.
func du(ctx context.Context, o *duOptions, st *layers.Store) error {
	u, err := st.DiskUsage(ctx)
	if err != nil {
		return err
	}
	if o.format != "table" {
		return printOne(o.out, o.format, u)
	}
	var lines []duLine
	if o.images {
		for _, img := range u.Images {
			lines = append(lines, duLine{img.Total, img.Shared, img.Unique, short(string(img.ID), o.noTrunc) + "  " + names(img.ImageRef)})
		}
	} else {
		lines = o.tree(nil, u.Roots, "")
	}
	if err := printTable(o.out, lines, o.table(lines)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(o.out, "contents of files in all: %s\n", size(u.Total)); err != nil {
		return err
	}
	for i := range u.Additional {
		if err := o.additional(&u.Additional[i]); err != nil {
			return err
		}
	}
	return nil
}

// additional prints what an additional store holds.
func (o *duOptions) additional(u *layers.AdditionalUsage) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nnot counted, in the additional store %s: %s and %s, %s\n", printable(u.Root),
		count(int64(len(u.Images)), "image"), count(int64(len(u.Layers)), "layer"), size(u.Total))
	if o.images {
		for _, img := range u.Images {
			fmt.Fprintf(&b, "%-8s  %s  %s\n", size(img.Total), short(string(img.ID), o.noTrunc), names(img.ImageRef))
		}
	} else {
		for _, l := range u.Layers {
			fmt.Fprintf(&b, "%-8s  %s", size(l.Total), short(string(l.Layer), o.noTrunc))
			for _, img := range l.Images {
				b.WriteString("  " + names(img))
			}
			b.WriteString("\n")
		}
	}
	_, err := io.WriteString(o.out, b.String())
	return err
}

// tree appends the lines of layers that lie on the same stack.
func (o *duOptions) tree(lines []duLine, list []*layers.LayerUsage, indent string) []duLine {
	for i, l := range list {
		branch, below := "├─ ", "│  "
		if i == len(list)-1 {
			branch, below = "└─ ", "   "
		}
		if len(l.Children) == 1 && len(list) == 1 {
			below = "" // a chain needs no room
		}
		text := indent + branch + short(string(l.Layer), o.noTrunc)
		for _, img := range l.Images {
			text += "  " + names(img)
		}
		text += inStore(l.Store)
		lines = append(lines, duLine{l.Total, l.Shared, l.Unique, text})
		lines = o.tree(lines, l.Children, indent+below)
	}
	return lines
}

// inStore is a note about what is in an additional store.
func inStore(root string) string {
	if root == "" {
		return ""
	}
	return "  (in " + printable(root) + ")"
}

// names are the names of an image as a user would type them.
func names(r layers.ImageRef) string {
	if len(r.Names) == 0 {
		return "<none> " + short(string(r.ID), false)
	}
	var out []string
	for _, n := range r.Names {
		out = append(out, familiar(n))
	}
	return strings.Join(out, " ")
}

// barWidth is the number of columns of the largest bar.
const barWidth = 20

func (o *duOptions) table(lines []duLine) table[duLine] {
	t := table[duLine]{
		header: []string{"TOTAL", "SHARED", "UNIQUE", ""},
		row: func(l duLine) []string {
			return []string{size(l.total), size(l.shared), size(l.unique), l.what}
		},
	}
	if terminalWidth(o.out) == 0 {
		return t
	}
	largest := int64(1)
	for _, l := range lines {
		largest = max(largest, l.total)
	}
	t.header = []string{"TOTAL", "SHARED", "UNIQUE", "", ""}
	t.row = func(l duLine) []string {
		return []string{size(l.total), size(l.shared), size(l.unique), bar(l, largest), l.what}
	}
	return t
}

// bar draws the unique part full and the shared part light.
func bar(l duLine, largest int64) string {
	full := int(l.unique * barWidth / largest)
	all := max(int(l.total*barWidth/largest), full)
	return strings.Repeat("█", full) + strings.Repeat("░", all-full) + strings.Repeat(" ", barWidth-all)
}
