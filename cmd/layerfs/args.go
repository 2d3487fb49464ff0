package main

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completionFlag is what the completion scripts add to the words that they want to
// have completed.
const completionFlag = "--generate-bash-completion"

// arrange turns a command line as people and mount(8) write it into one that
// urfave/cli understands: flags may follow arguments, and SRC MNT -o OPTIONS is a
// call as mount helper.
func arrange(app *cli.App, args []string) []string {
	if len(args) < 2 || args[len(args)-1] == completionFlag {
		return args
	}
	if h, ok := helperCall(app, args); ok {
		args = h
	}
	verb := skipFlags(app.Flags, args, 1)
	if verb >= len(args) {
		return args
	}
	cmd := commandOf(app.Commands, args[verb])
	if cmd == nil {
		return args
	}
	for len(cmd.Subcommands) > 0 {
		i := skipFlags(cmd.Flags, args, verb+1)
		if i >= len(args) {
			break
		}
		sub := commandOf(cmd.Subcommands, args[i])
		if sub == nil {
			break
		}
		cmd, verb = sub, i
	}
	flags, rest := sortArgs(cmd.Flags, args[verb+1:])
	out := slices.Concat(args[:verb+1], flags)
	if len(rest) > 0 {
		out = append(append(out, "--"), rest...)
	}
	return out
}

// sortArgs separates the flags with their values from the arguments. Everything
// after "--" is an argument.
func sortArgs(known []cli.Flag, args []string) (flags, rest []string) {
	for i := 0; i < len(args); {
		if args[i] == "--" {
			return flags, append(rest, args[i+1:]...)
		}
		n := flagWords(known, args[i])
		if n == 0 {
			rest = append(rest, args[i])
			i++
			continue
		}
		end := min(i+n, len(args))
		flags = append(flags, args[i:end]...)
		i = end
	}
	return flags, rest
}

// skipFlags returns the index of the first word from i on that is no flag.
func skipFlags(known []cli.Flag, args []string, i int) int {
	for i < len(args) {
		n := flagWords(known, args[i])
		if n == 0 {
			return i
		}
		i += n
	}
	return i
}

// flagWords is the number of words that a flag takes: 0 for an argument, 2 when
// its value is the next word. An unknown flag counts as one word; it is refused
// later.
func flagWords(known []cli.Flag, word string) int {
	if len(word) < 2 || word[0] != '-' {
		return 0
	}
	name := strings.TrimLeft(word, "-")
	if strings.Contains(name, "=") {
		return 1
	}
	for _, f := range known {
		if slices.Contains(f.Names(), name) {
			if v, ok := f.(cli.DocGenerationFlag); ok && v.TakesValue() {
				return 2
			}
		}
	}
	return 1
}

func commandOf(list []*cli.Command, name string) *cli.Command {
	for _, c := range list {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// helperCall recognises a call by mount(8) for a file system of type fuse.layerfs,
// which is "layerfs SRC MNT -o OPTIONS" with an absolute MNT. SRC is the root
// of the store; anything but an absolute path stands for the default one.
func helperCall(app *cli.App, args []string) ([]string, bool) {
	if len(args) < 3 || commandOf(app.Commands, args[1]) != nil {
		return nil, false
	}
	src, dir := args[1], args[2]
	if !filepath.IsAbs(dir) || !filepath.IsAbs(src) && !slices.Contains([]string{"", "none", "layerfs", "store"}, src) {
		return nil, false
	}
	out := []string{args[0]}
	if filepath.IsAbs(src) {
		out = append(out, "--root", src)
	}
	out = append(out, "mount", "--helper")
	return append(append(out, args[3:]...), dir), true
}

// refuseCompletion keeps a verb from being run by a completion script that passed
// "--" on, after which urfave/cli takes completionFlag for an argument.
func refuseCompletion(c *cli.Context) error {
	if slices.Contains(c.Args().Slice(), completionFlag) {
		return usagef("%s is not an argument", completionFlag)
	}
	return nil
}

// nearest returns the verb that a mistyped one was most likely meant to be; empty
// when none is close.
func nearest(list []*cli.Command, name string) string {
	best, found := 3, "" // at most two letters wrong
	for _, c := range list {
		if d := editDistance(name, c.Name); d < best && d < len(c.Name)-1 {
			best, found = d, c.Name
		}
	}
	return found
}

// editDistance is the number of letters to add, remove or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
