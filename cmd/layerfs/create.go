package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// createOptions are the flags of create.
type createOptions struct {
	layers.ContainerOptions
	out io.Writer
}

func createCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "create", Category: "Containers",
		Usage:     "make a container: a writable tree over an image",
		UsageText: "layerfs create [flags] IMAGE",
		Description: `Makes a container and prints its ID. Nothing is copied and nothing runs in it: a
container is a record that keeps its image, and an empty writable layer. A mount
shows it as DIR/containers/NAME/rootfs.

Examples:
   layerfs create --name web --label tier=front debian
   layerfs create alpine                         # with a generated name
   layerfs create --empty --name scratch         # over nothing`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "name", Usage: "`NAME` of the container; may be given several times", DefaultText: "generated"},
			listFlag("label", []string{"l"}, "label `KEY=VALUE`; may be given several times"),
			&cli.StringFlag{Name: "metadata", Usage: "free `TEXT` that is kept with the container"},
			&cli.StringFlag{Name: "id", Usage: "`ID` of 64 hexadecimal digits", DefaultText: "generated"},
			&cli.StringFlag{Name: "uidmap", Usage: "show the users of its files shifted by `C:H:N[,…]` (container ID, host ID, count)", DefaultText: "as --gidmap, or as the mount does"},
			&cli.StringFlag{Name: "gidmap", Usage: "show the groups of its files shifted by `C:H:N[,…]`", DefaultText: "as --uidmap, or as the mount does"},
			&cli.BoolFlag{Name: "empty", Usage: "begin with an empty tree instead of an image"},
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			want := 1
			if c.Bool("empty") {
				want = 0
			}
			if err := argCount(c, want, want, "IMAGE (or --empty)"); err != nil {
				return err
			}
			labels, err := parseLabels(stringsOf(c, "label"))
			if err != nil {
				return err
			}
			o := &createOptions{out: e.stdout, ContainerOptions: layers.ContainerOptions{
				Image: c.Args().First(), ID: c.String("id"), Names: c.StringSlice("name"), Labels: labels, Metadata: c.String("metadata"),
				UIDMap: c.String("uidmap"), GIDMap: c.String("gidmap"),
			}}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return create(ctx, o, st)
			})
		},
	}
}

// parseLabels reads KEY=VALUE; a KEY alone has an empty value.
func parseLabels(list []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, l := range list {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return nil, usagef("label %q: want KEY=VALUE", l)
		}
		labels[key] = value
	}
	return labels, nil
}

func create(ctx context.Context, o *createOptions, st *layers.Store) error {
	c, err := st.CreateContainer(ctx, &o.ContainerOptions)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(o.out, c.ID)
	return err
}
