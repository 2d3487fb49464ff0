package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func imageCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "image", Category: "Layer records",
		Usage:       "make an image of a layer record",
		UsageText:   "layerfs image create ...",
		Description: "See layerfs image create --help.",
		Action:      needsVerb("create"),
		Subcommands: []*cli.Command{imageCreateCommand(e)},
	}
}

func imageCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "create an image and print its ID",
		UsageText: "layerfs image create [flags] [LAYER]",
		Description: `LAYER is the ID or name of a layer record, or a ChainID; without it the image has no
layers. A config is made unless one is given. An ID or a name that is taken is refused
and nothing is changed.

Examples:
   layerfs image create --name me/app:1 base
   layerfs image create --id $(openssl rand -hex 32) --metadata "test" --date 2026-01-02T03:04:05Z base
   layerfs image create --config config.json --name me/app:2 base`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "id", Usage: "the `ID`, 64 hexadecimal digits; the digest of the config otherwise"},
			&cli.StringSliceFlag{Name: "name", Usage: "a `NAME`; can be repeated"},
			&cli.StringFlag{Name: "metadata", Usage: "free `TEXT` to keep with it"},
			&cli.StringFlag{Name: "date", Usage: "`TIME` of creation, as 2026-01-02T03:04:05Z; now otherwise"},
			&cli.StringFlag{Name: "config", Usage: "`FILE` with the JSON text of the config"},
			flagsFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 1, ""); err != nil {
				return err
			}
			o := &layers.CreateImageOptions{ID: c.String("id"), Names: c.StringSlice("name"), Metadata: c.String("metadata")}
			var err error
			if o.Flags, err = parseFlags(c.StringSlice("flag")); err != nil {
				return err
			}
			if date := c.String("date"); date != "" {
				if o.Created, err = time.Parse(time.RFC3339Nano, date); err != nil {
					return usagef("--date %q: want a time such as 2026-01-02T03:04:05Z", date)
				}
			}
			if file := c.String("config"); file != "" {
				if o.Config, err = os.ReadFile(file); err != nil {
					return fileError(err)
				}
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				img, err := st.CreateImage(ctx, c.Args().First(), o)
				if err == nil {
					_, err = fmt.Fprintln(e.stdout, img.ID)
				}
				return err
			})
		},
	}
}

// flagsFlag is --flag of the verbs that create.
func flagsFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "flag", Usage: "set the flag `NAME` or NAME=VALUE; can be repeated"}
}

func parseFlags(list []string) (map[string]string, error) {
	flags := map[string]string{}
	for _, f := range list {
		name, value, _ := strings.Cut(f, "=")
		if name == "" {
			return nil, usagef("--flag %q: want NAME or NAME=VALUE", f)
		}
		flags[name] = value
	}
	return flags, nil
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func joined(names []string) string { return orNone(strings.Join(names, ",")) }
