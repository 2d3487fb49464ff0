package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// rmOptions are the flags of rm.
type rmOptions struct {
	containers []string
	force      bool
	out        io.Writer
}

func rmCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "rm", Category: "Containers",
		Usage:     "remove containers",
		UsageText: "layerfs rm [flags] CONTAINER...",
		Description: `Removes containers with everything that was written into them, and prints their names.
One that a mount writes into is refused; with --force it vanishes from the mount. With
--force a container that does not exist is no error.

Examples:
   layerfs rm web
   layerfs rm --force web db
   layerfs rm $(layerfs containers -q --filter label=temporary)`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "remove also what is mounted"},
		},
		BashComplete: completeContainers(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "CONTAINER"); err != nil {
				return err
			}
			o := &rmOptions{containers: c.Args().Slice(), force: c.Bool("force"), out: e.stdout}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return rm(ctx, o, st)
			})
		},
	}
}

// rm removes one container after the other; one that cannot be removed does not
// keep the others.
func rm(ctx context.Context, o *rmOptions, st *layers.Store) error {
	var failed []error
	for _, name := range o.containers {
		_, err := st.DeleteContainer(ctx, name, o.force)
		switch {
		case err == nil:
			fmt.Fprintln(o.out, name)
		case o.force && errors.Is(err, layers.ErrContainerUnknown):
		default:
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
