package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"
)

// A table says how items of a kind are shown as one line each.
type table[T any] struct {
	header []string
	row    func(T) []string
}

// formatFlag is --format of the verbs that list.
func formatFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "format", Value: "table",
		Usage: "`FORMAT` of the list: table, json or a Go template such as '{{.ID}}'",
	}
}

// printList writes items as a table, as a JSON array, or each through a template.
func printList[T any](w io.Writer, format string, items []T, t table[T]) error {
	switch format {
	case "table", "":
		return printTable(w, items, t)
	case "json":
		if items == nil {
			items = []T{}
		}
		return printJSON(w, items)
	}
	return printTemplate(w, format, items)
}

func printTable[T any](w io.Writer, items []T, t table[T]) error {
	tw := tabwriter.NewWriter(w, 4, 2, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(t.header, "\t"))
	for _, item := range items {
		cells := t.row(item)
		for i, c := range cells {
			cells[i] = printable(c)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	return tw.Flush()
}

// printable keeps text from an image from moving the cursor of a terminal or
// making lines of its own.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printTemplate writes each item through a Go template and ends it with a newline.
// The shell's quotes leave \t and \n as two characters, so they are understood too.
func printTemplate[T any](w io.Writer, format string, items []T) error {
	text := strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(format)
	tmpl, err := template.New("format").Funcs(template.FuncMap{"json": jsonText, "join": strings.Join}).Parse(text)
	if err != nil {
		return usagef("--format %q: %v", format, err)
	}
	for _, item := range items {
		var wrong template.ExecError
		if err := tmpl.Execute(w, item); errors.As(err, &wrong) {
			return usagef("--format %q: %v", format, err)
		} else if err != nil {
			return err // of the writing
		}
		fmt.Fprintln(w)
	}
	return nil
}

func jsonText(v any) (string, error) {
	raw, err := json.Marshal(v)
	return string(raw), err
}

// size is a number of bytes as people read it, with decimal units as podman has
// them.
func size(n int64) string {
	for unit := int64(1000); unit < 1e18; unit *= 1000 {
		if n < unit && n >= unit-unit/2000 {
			n = unit // three digits of 999,999 would be 1e+03kB
		}
	}
	return units.HumanSizeWithPrecision(float64(n), 3)
}

// ago is a time as the distance from now.
func ago(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "N/A"
	}
	d := time.Since(*t)
	if d < 0 {
		return t.UTC().Format(time.DateOnly)
	}
	return units.HumanDuration(d) + " ago"
}

// short abbreviates a digest to its first 12 digits, all of it with full.
func short(id string, full bool) string {
	if full {
		return id
	}
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	if len(hex) > 12 {
		hex = hex[:12]
	}
	return hex
}

// printOne writes one value as JSON or through a template.
func printOne[T any](w io.Writer, format string, v T) error {
	if format == "json" {
		return printJSON(w, v)
	}
	return printTemplate(w, format, []T{v})
}
