package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// containersOptions are the flags of containers.
type containersOptions struct {
	filter  layers.ContainerFilter
	format  string
	quiet   bool
	noTrunc bool
	out     io.Writer
}

func containersCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "containers", Aliases: []string{"ps"}, Category: "Containers",
		Usage:     "list containers",
		UsageText: "layerfs containers [flags]",
		Description: `Lists all containers, the newest first. WRITER is the process that has the container
mounted to write into it.

Filters: label=KEY, label=KEY=VALUE, name=REGEXP, id=PREFIX, ancestor=IMAGE.

Examples:
   layerfs containers
   layerfs containers --filter label=tier=front -q
   layerfs containers --format '{{.Name}} {{.Image}}'
   layerfs ps -a --filter ancestor=debian`,
		Flags: []cli.Flag{
			listFlag("filter", []string{"f"}, "show only what fits `KEY=VALUE`; may be given several times"),
			formatFlag(),
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only the IDs"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "do not shorten IDs"},
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Hidden: true, Usage: "always so; for those who are used to it"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			o := &containersOptions{format: c.String("format"), quiet: c.Bool("quiet"), noTrunc: c.Bool("no-trunc"), out: e.stdout}
			if err := o.parseFilters(stringsOf(c, "filter")); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return containers(ctx, o, st)
			})
		},
	}
}

func (o *containersOptions) parseFilters(list []string) error {
	for _, f := range list {
		key, value, _ := strings.Cut(f, "=")
		if value == "" {
			return usagef("--filter %q: want KEY=VALUE with label, name, id or ancestor as KEY", f)
		}
		switch key {
		case "label":
			o.filter.Labels = append(o.filter.Labels, value)
		case "name":
			o.filter.Names = append(o.filter.Names, value)
		case "id":
			o.filter.IDs = append(o.filter.IDs, value)
		case "ancestor":
			o.filter.Ancestors = append(o.filter.Ancestors, value)
		default:
			return usagef("--filter %q: there is no filter %s; want label, name, id or ancestor", f, key)
		}
	}
	return nil
}

// A containerLine is what the list shows of a container, and what templates and
// --format json get.
type containerLine struct {
	ID         string
	Name       string
	Names      []string
	Image      string // the name, or the ID of an image without
	ImageID    digest.Digest
	Labels     map[string]string
	Created    time.Time
	CreatedAgo string
	Writer     string // empty: nobody writes into it
}

func containers(ctx context.Context, o *containersOptions, st *layers.Store) error {
	all, err := st.Containers(ctx, &o.filter)
	if err != nil {
		return err
	}
	var lines []containerLine
	for i := range all {
		if o.quiet {
			if _, err := fmt.Fprintln(o.out, short(all[i].ID, o.noTrunc)); err != nil {
				return err
			}
			continue
		}
		lines = append(lines, o.line(st, &all[i]))
	}
	if o.quiet {
		return nil
	}
	return printList(o.out, o.format, lines, table[containerLine]{
		header: []string{"CONTAINER ID", "IMAGE", "CREATED", "WRITER", "NAMES"},
		row: func(l containerLine) []string {
			return []string{l.ID, l.Image, l.CreatedAgo, l.Writer, strings.Join(l.Names, ",")}
		},
	})
}

func (o *containersOptions) line(st *layers.Store, c *layers.Container) containerLine {
	who, _ := st.ContainerWriter(c.ID)
	l := containerLine{
		ID: c.ID, Name: c.Name(), Names: c.Names, ImageID: c.Image, Labels: c.Labels,
		Created: c.Created, CreatedAgo: ago(&c.Created), Writer: who,
	}
	if o.format != "json" {
		l.ID = short(c.ID, o.noTrunc)
	}
	switch {
	case c.ImageName != "":
		l.Image = c.ImageName
	case c.Image != "":
		l.Image = short(string(c.Image), o.noTrunc)
	}
	return l
}
