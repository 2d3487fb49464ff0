package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/internal/config"
	"github.com/layerfs/layerfs/internal/control"
	"github.com/layerfs/layerfs/layers"
)

func infoCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "info", Category: "The store",
		Usage:     "show where the store is and what it holds",
		UsageText: "layerfs info [--format json]",
		Description: `Examples:
   layerfs info
   layerfs info --format '{{.Root}}'
   layerfs info --format json | jq .pack_bytes`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT`: text, json or a Go template"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return info(ctx, e, c.String("format"), st)
			})
		},
	}
}

// An infoReport is what info shows.
type infoReport struct {
	layers.Info
	Runroot string           `json:"runroot"`
	Version string           `json:"version"`
	Mounts  []control.Record `json:"mounts"`
	// Config is the configuration file, Settings what is in force.
	Config   string           `json:"config"`
	Settings []config.Setting `json:"settings"`
}

// info prints the summary of the store.
func info(ctx context.Context, e *env, format string, st *layers.Store) error {
	i, err := st.Info(ctx)
	if err != nil {
		return err
	}
	r := infoReport{Info: *i, Version: buildVersion(), Mounts: []control.Record{}}
	if r.Runroot, err = e.runrootDir(); err != nil {
		return err
	}
	r.Config = e.conf.File
	if r.Settings, err = e.settings(); err != nil {
		return err
	}
	records, err := control.NewRegistry(r.Runroot).Mounts()
	if err != nil {
		return err
	}
	for _, rec := range records {
		if rec.Store == r.Root {
			r.Mounts = append(r.Mounts, rec)
		}
	}
	if format != "text" {
		return printOne(e.stdout, format, r)
	}
	return r.print(e.stdout)
}

func (r *infoReport) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 4, 2, 2, ' ', 0)
	line := func(key, value string) { fmt.Fprintf(tw, "%s:\t%s\n", key, value) }
	line("store", r.Root)
	line("runroot", r.Runroot)
	line("layerfs", r.Version)
	line("format", strconv.Itoa(r.Format.Version)+" ("+strings.Join(r.Format.Incompatible, ", ")+")")
	if r.ReadOnly {
		line("access", "read-only")
	}
	line("images", fmt.Sprintf("%d with %s", r.Images, count(int64(r.Names), "name")))
	line("layers", fmt.Sprintf("%d with %d entries, %s as tars", r.Layers, r.Entries, size(r.TarBytes)))
	line("sizes", fmt.Sprintf("%s in all: %s shared by images, %s of one image, %s reclaimable", size(r.Sizes.Layers), size(r.Sizes.Shared), size(r.Sizes.Unique), size(r.Sizes.Reclaimable)))
	line("large files", fmt.Sprintf("%s in %s", size(r.ObjectBytes), count(r.Objects, "object")))
	line("small files", fmt.Sprintf("%s in %s", size(r.PackBytes), count(r.Packs, "pack")))
	line("metadata", fmt.Sprintf("%s of layers, %s of images, %s of index", size(r.MetaBytes), size(r.BlobBytes), size(r.IndexBytes)))
	line("blobs", r.forms())
	for _, a := range r.Additional {
		text := fmt.Sprintf("%s with %s and %s", a.Root, count(int64(a.Images), "image"), count(int64(a.Layers), "layer"))
		if a.Error != "" {
			text = a.Error
		}
		line("additional", text)
		for _, note := range a.Notes {
			line("", note)
		}
	}
	for _, m := range r.Mounts {
		line("mounted", fmt.Sprintf("%s (process %d)", m.Mountpoint, m.PID))
	}
	if r.Config != "" {
		line("configuration", r.Config)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nsettings, and where they come from:")
	printSettings(tw, r.Settings)
	return tw.Flush()
}

// forms says how the compressed layers can be given out as they came in.
func (r *infoReport) forms() string {
	f := r.Forms
	text := fmt.Sprintf("%s in %s as received", size(f.KeptBytes), count(int64(f.Kept), "compressed layer"))
	if f.Corrected > 0 {
		text += fmt.Sprintf(", %s of corrections for %d (%s)", size(f.CorrectionBytes), f.Corrected, size(f.CorrectedBytes))
	}
	if f.Gone > 0 {
		text += fmt.Sprintf(", %d not kept", f.Gone)
	}
	return text
}
