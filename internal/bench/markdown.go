package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// The part of a document that is replaced by what was measured.
const (
	markBegin = "<!-- measured: begin -->"
	markEnd   = "<!-- measured: end -->"
)

// markdown replaces what is between the marks in a file by the tables of this run.
func (b *bench) markdown(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := between(string(data), b.tables())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// between puts a text between the marks.
func between(text, middle string) (string, error) {
	before, rest, ok := strings.Cut(text, markBegin)
	_, after, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return "", errors.New("has no lines " + markBegin + " and " + markEnd)
	}
	return before + markBegin + "\n" + middle + markEnd + after, nil
}

// tables are the lines of the run, a table for each topic.
func (b *bench) tables() string {
	var out strings.Builder
	for _, s := range b.machine() {
		fmt.Fprintf(&out, "* %s\n", s)
	}
	fmt.Fprintf(&out, "* %s\n", b.score())
	topic := ""
	for _, l := range b.lines {
		if l.topic != topic {
			topic = l.topic
			fmt.Fprintf(&out, "\n### %s\n\n| work | peer | layerfs | peer | ratio | spread | target | |\n|---|---|---|---|---|---|---|---|\n", topic)
		}
		fmt.Fprintf(&out, "| %s |\n", strings.Join([]string{
			cell(l.what), cell(l.peer), cell(l.ours), cell(l.theirs), cell(l.ratio), cell(l.spread), cell(l.target), cell(string(l.verdict)),
		}, " | "))
	}
	if len(b.skipped) > 0 {
		out.WriteString("\nLeft out:\n\n")
		for _, s := range b.skipped {
			fmt.Fprintf(&out, "* %.200s\n", cell(s))
		}
	}
	return out.String()
}

// cell is a text that does not end a cell of a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}
