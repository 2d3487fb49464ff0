package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func layerCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "layer", Category: "Layer records",
		Usage:     "make layers of your own, to build images from",
		UsageText: "layerfs layer create|apply|rm|inspect|ls ...",
		Description: `A layer record is a place on top of a stack of layers, with an ID, names and metadata.
It is created empty, on top of nothing, of another record, or of any image (whose top
layer is named by its ChainID: see "layerfs layer ls --all"), and one tar can be
applied to it. "layerfs image create" makes an image of it.

Example:
   id=$(layerfs layer create --name base)
   tar -C tree -c . | layerfs layer apply $id
   layerfs image create --name me/app:1 base`,
		Action: needsVerb("create, apply, rm, inspect or ls"),
		Subcommands: []*cli.Command{
			layerCreateCommand(e), layerApplyCommand(e), layerRmCommand(e), layerInspectCommand(e), layerLsCommand(e),
		},
	}
}

// needsVerb is the action of a verb that has others below it.
func needsVerb(which string) cli.ActionFunc {
	return func(c *cli.Context) error {
		if name := c.Args().First(); name != "" {
			if other, ok := otherVerbs[name]; ok {
				return usagef("unknown verb %q; want %s; %s", name, which, other)
			}
			return usagef("unknown verb %q; want %s", name, which)
		}
		return usagef("needs a verb: %s", which)
	}
}

func layerCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "create a layer record and print its ID",
		UsageText: "layerfs layer create [flags] [FILE|-]",
		Description: `With FILE, or - for standard input, the tar in it is applied at once; when it cannot be,
nothing is created.

Examples:
   layerfs layer create
   layerfs layer create --name base --metadata "built today" base.tar.gz
   layerfs layer create --parent base changes.tar`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "id", Usage: "the `ID`, 64 hexadecimal digits; it is generated otherwise"},
			&cli.StringSliceFlag{Name: "name", Usage: "a `NAME`; can be repeated"},
			&cli.StringFlag{Name: "parent", Usage: "`LAYER` to stand on: an ID, a name or a ChainID"},
			&cli.StringFlag{Name: "metadata", Usage: "free `TEXT` to keep with it"},
			flagsFlag(), keepBlobFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 1, ""); err != nil {
				return err
			}
			flags, err := parseFlags(c.StringSlice("flag"))
			if err != nil {
				return err
			}
			o := &layers.CreateLayerOptions{
				ID: c.String("id"), Names: c.StringSlice("name"), Parent: c.String("parent"),
				Metadata: c.String("metadata"), Flags: flags,
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return e.layerCreate(ctx, o, c.Args().First(), applyOptions(c), st)
			})
		},
	}
}

// keepBlobFlag and applyOptions are what the verbs that apply a tar have in common.
func keepBlobFlag() cli.Flag {
	return &cli.BoolFlag{Name: "keep-blobs", Value: true, Usage: "keep a tar that comes with gzip or zstd in that form too, for images of the layer"}
}

func applyOptions(c *cli.Context) *layers.ApplyOptions {
	return &layers.ApplyOptions{DropBlob: !c.Bool("keep-blobs")}
}

func (e *env) layerCreate(ctx context.Context, o *layers.CreateLayerOptions, file string, a *layers.ApplyOptions, st *layers.Store) (err error) {
	var n *layers.LayerNode
	if file == "" {
		n, err = st.CreateLayer(ctx, o)
	} else {
		err = e.withInput(file, func(in io.Reader) (err error) {
			n, err = st.CreateLayerFrom(ctx, o, in, a)
			return err
		})
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, n.ID)
	return err
}

// withInput calls fn with a file, or with standard input for "-".
func (e *env) withInput(name string, fn func(io.Reader) error) (err error) {
	if name == "-" {
		return fn(e.in)
	}
	f, err := os.Open(name)
	if err != nil {
		return fileError(err)
	}
	defer f.Close() // read only
	return fn(f)
}

func layerApplyCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "apply",
		Usage:     "make a tar the content of a layer record",
		UsageText: "layerfs layer apply LAYER [FILE|-]",
		Description: `Reads the tar from FILE or standard input, in any compression, and prints its DiffID.
One tar can be applied to a record, before anything stands on it. When it cannot be
applied nothing is left of it.

Examples:
   layerfs layer apply base base.tar.zst
   tar -C tree -c . | layerfs layer apply base`,
		Flags: []cli.Flag{keepBlobFlag()},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 2, "LAYER"); err != nil {
				return err
			}
			file := "-"
			if c.Args().Len() == 2 {
				file = c.Args().Get(1)
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				var n *layers.LayerNode
				err := e.withInput(file, func(in io.Reader) (err error) {
					n, err = st.ApplyLayer(ctx, c.Args().First(), in, applyOptions(c))
					return err
				})
				if err == nil {
					_, err = fmt.Fprintln(e.stdout, n.DiffID)
				}
				return err
			})
		},
	}
}

func layerRmCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove layer records",
		UsageText: "layerfs layer rm [flags] LAYER...",
		Description: `A record that others, images or containers stand on is refused; "layerfs rmi" removes
an image together with the records that only it needs.

Examples:
   layerfs layer rm base
   layerfs layer rm --dry-run base`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be removed"}},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "LAYER"); err != nil {
				return err
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				var failed []error
				for _, id := range c.Args().Slice() {
					r, err := st.DeleteLayer(ctx, id, c.Bool("dry-run"))
					if r != nil {
						printRemoved(e.stdout, r, c.Bool("dry-run"))
					}
					failed = append(failed, err)
				}
				return errors.Join(failed...)
			})
		},
	}
}

func layerInspectCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything about layer records",
		UsageText: "layerfs layer inspect [flags] LAYER...",
		Description: `Prints a JSON array with one object for each LAYER, which is the ID or name of a record
or a ChainID: id, parent, names, diffid, blob (the form it was applied in), layers (the
whole stack of DiffIDs, bottom first), created, metadata, flags, record, size, children,
images, containers and big_data.

Examples:
   layerfs layer inspect base
   layerfs layer inspect --format '{{.DiffID}} {{.Size}}' base`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "json", Usage: "`FORMAT`: json or a Go template"}},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "LAYER"); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				var reports []layerReport
				for _, id := range c.Args().Slice() {
					r, err := reportLayer(ctx, st, id)
					if err != nil {
						return err
					}
					reports = append(reports, *r)
				}
				return printList(e.stdout, c.String("format"), reports, table[layerReport]{})
			})
		},
	}
}

// A layerReport is what inspect shows of a layer record.
type layerReport struct {
	layers.LayerNode
	BigData []dataReport `json:"big_data"`
}

func reportLayer(ctx context.Context, st *layers.Store, id string) (*layerReport, error) {
	n, err := st.LayerNode(ctx, id)
	if err != nil {
		return nil, err
	}
	r := &layerReport{LayerNode: *n}
	r.BigData, err = reportData(ctx, st, n.ID)
	return r, err
}

func layerLsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list layer records",
		UsageText: "layerfs layer ls [flags]",
		Description: `With --all also the places that follow from images and containers, each named by its
ChainID.

Examples:
   layerfs layer ls
   layerfs layer ls --all --format '{{.ID}} {{len .Layers}} {{.Images}}'`,
		Flags: []cli.Flag{
			formatFlag(),
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "list ChainIDs too"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print IDs only"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print whole IDs"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				list, err := st.LayerNodes(ctx, !c.Bool("all"))
				if err != nil {
					return err
				}
				full := c.Bool("no-trunc")
				if c.Bool("quiet") {
					for _, n := range list {
						fmt.Fprintln(e.stdout, short(n.ID, full))
					}
					return nil
				}
				return printList(e.stdout, c.String("format"), list, layerTable(full))
			})
		},
	}
}

func layerTable(full bool) table[layers.LayerNode] {
	return table[layers.LayerNode]{
		header: []string{"ID", "NAMES", "PARENT", "DIFFID", "LAYERS", "TAR"},
		row: func(n layers.LayerNode) []string {
			tar := "-"
			if n.Size >= 0 {
				tar = size(n.Size)
			}
			return []string{
				short(n.ID, full), joined(n.Names), orNone(short(n.Parent, full)), orNone(short(string(n.DiffID), full)),
				fmt.Sprint(len(n.Layers)), tar,
			}
		},
	}
}
