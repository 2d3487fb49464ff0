package mounttest_test

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/layerfs/layerfs/internal/treetest"
)

func sorted(seq iter.Seq[string]) []string { return slices.Sorted(seq) }

// describe turns a tree into one line per path, for tables in tests:
//
//	d 0755 dir
//	f 0644 dir/file 5
//	l 0777 dir/ln -> file
//	c 0600 dev 1:3
func describe(s *treetest.Snapshot) []string {
	var lines []string
	for _, p := range s.Paths() {
		e := s.Entries[p]
		line := fmt.Sprintf("%c %04o %s", e.Kind, e.Mode, p)
		switch {
		case e.Group != p:
			line += " = " + e.Group
		case e.Kind == treetest.Regular:
			line += fmt.Sprintf(" %d", e.Size)
		case e.Kind == treetest.Symlink:
			line += " -> " + e.Target
		case e.Kind == treetest.Char || e.Kind == treetest.Block:
			line += fmt.Sprintf(" %d:%d", e.Rdev>>32, e.Rdev&0xffffffff)
		}
		lines = append(lines, line)
	}
	return lines
}

// unlike returns how two descriptions differ.
func unlike(want, got []string) []string {
	var lines []string
	for _, w := range want {
		if !slices.Contains(got, w) {
			lines = append(lines, fmt.Sprintf("want %q", w))
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			lines = append(lines, fmt.Sprintf("got  %q", g))
		}
	}
	return lines
}

// table splits the text of an expected tree into lines.
func table(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
