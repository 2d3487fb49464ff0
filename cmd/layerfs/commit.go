package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// commitOptions are the flags of commit.
type commitOptions struct {
	container string
	layers.CommitOptions
	out  io.Writer
	warn func(format string, args ...any)
}

func commitCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "commit", Category: "Containers",
		Usage:     "make an image of a container",
		UsageText: "layerfs commit [flags] CONTAINER [NAME]",
		Description: `The image has the layers of the container's image and one more with the changes; without
changes only its history and its config are new. Prints the ID of the image. The
container stays as it is.

Somebody may be writing into the container meanwhile. Every file is then taken as it is
at one moment; those of which that cannot be said are named on standard error. For an
image of one moment stop the writer first.

Examples:
   layerfs commit web me/web:1
   layerfs commit -m "with editor" --change 'CMD ["/bin/bash"]' --change ENV=TERM=xterm web me/web:2`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "`TEXT` for the history"},
			&cli.StringFlag{Name: "author", Aliases: []string{"a"}, Usage: "`NAME` of the author"},
			listFlag("change", []string{"c"}, "change the config: `INSTRUCTION` CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR; may be given several times"),
		},
		BashComplete: completeContainers(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 2, "CONTAINER"); err != nil {
				return err
			}
			o := &commitOptions{container: c.Args().First(), out: e.stdout, warn: e.warn, CommitOptions: layers.CommitOptions{
				Names: c.Args().Tail(), Message: c.String("message"), Author: c.String("author"), Changes: stringsOf(c, "change"),
			}}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return commit(ctx, o, st)
			})
		},
	}
}

func commit(ctx context.Context, o *commitOptions, st *layers.Store) error {
	r, err := st.Commit(ctx, o.container, &o.CommitOptions)
	if err != nil {
		return err
	}
	warnTorn(o.warn, r.Torn)
	_, err = fmt.Fprintln(o.out, r.ID)
	return err
}
