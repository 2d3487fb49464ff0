package main

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// A versionReport is what version shows.
type versionReport struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	System  string `json:"system"`
	Format  int    `json:"format"` // of stores that it makes
}

func versionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "version", Category: "Conveniences",
		Usage:     "show the version",
		UsageText: "layerfs version [--format json]",
		Description: `JSON has the fields version, go, system and format, the version of the stores that it
makes.

Example:
   layerfs version --format '{{.Version}}'`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT`: text, json or a Go template"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			r := versionReport{buildVersion(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, layers.FormatVersion}
			if f := c.String("format"); f != "text" {
				return printOne(e.stdout, f, r)
			}
			_, err := fmt.Fprintf(e.stdout, "layerfs %s (%s, %s, store format %d)\n", r.Version, r.Go, r.System, r.Format)
			return err
		},
	}
}
