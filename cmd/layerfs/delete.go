package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func deleteCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "delete", Category: "Items",
		Usage:     "remove anything without asking who needs it",
		UsageText: "layerfs delete --force NAME...",
		Description: `Removes images with all their names, layer records and containers, also when others
need them: containers of a removed image keep their layers. Use rmi, rm and layer rm,
which look before.

Example:
   layerfs delete --force debian:12 web`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "say that you mean it"}},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "NAME"); err != nil {
				return err
			}
			if !c.Bool("force") {
				return usagef("removes without any check; say --force, or use rmi, rm or layer rm")
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				var failed []error
				for _, name := range c.Args().Slice() {
					r, err := st.Delete(ctx, name)
					if r != nil {
						printRemoved(e.stdout, r, false)
					}
					failed = append(failed, err)
				}
				return errors.Join(failed...)
			})
		},
	}
}

func wipeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "wipe", Category: "The store",
		Usage:     "remove all images, layer records and containers",
		UsageText: "layerfs wipe [--force]",
		Description: `Asks on a terminal; elsewhere it needs --force. Mounts stay, and become empty.

Example:
   layerfs wipe --force`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do not ask"}},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				if err := e.confirmWipe(ctx, c.Bool("force"), st); err != nil {
					return err
				}
				r, err := st.Wipe(ctx)
				printRemoved(e.stdout, r, false)
				return err
			})
		},
	}
}

// confirmWipe asks unless it is told not to.
func (e *env) confirmWipe(ctx context.Context, force bool, st *layers.Store) error {
	if force {
		return nil
	}
	if !isTerminal(e.stdin) {
		return usagef("removes everything from %s; say --force", st.Root())
	}
	i, err := st.Info(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "Remove all of %s (%s and their containers)? [y/N] ", st.Root(), count(int64(i.Images), "image"))
	answer, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was removed")
	}
	return nil
}

// printRemoved says what was removed, or would be.
func printRemoved(w io.Writer, r *layers.Removed, dryRun bool) {
	say := func(done, what string) {
		if dryRun {
			done = "Would be " + strings.ToLower(done[:1]) + done[1:]
		}
		fmt.Fprintf(w, "%s: %s\n", done, what)
	}
	for _, name := range r.Untagged {
		say("Untagged", name)
	}
	for _, id := range r.Deleted {
		say("Deleted", string(id))
	}
	for _, id := range r.Containers {
		say("Deleted container", id)
	}
	for _, id := range r.Records {
		say("Deleted layer record", id)
	}
	for _, d := range r.Layers {
		say("Deleted layer", string(d))
	}
	switch {
	case r.Freed > 0 && dryRun:
		say("Freed", size(r.Freed))
	case r.Freed > 0:
		fmt.Fprintf(w, "Freed %s\n", size(r.Freed))
	}
	if r.Deferred {
		fmt.Fprintln(w, "The space is freed by the collection that is running")
	}
	if n := len(r.InUse); n > 0 {
		fmt.Fprintf(w, "Still open, in a mount or elsewhere: %s; the space is freed when they are closed\n", count(int64(n), "layer"))
	}
}
