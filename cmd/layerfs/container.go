package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func containerCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "container", Category: "Containers",
		Usage:     "work with the directories of a container",
		UsageText: "layerfs container dir [flags] CONTAINER [FILE]",
		Description: `Besides its files a container has a directory for notes of those who use it: run-time
configuration, logs, the address that was given to it. It lives as long as the
container. A second one (--run) is gone after a reboot.`,
		Action:      needsVerb("dir"),
		Subcommands: []*cli.Command{containerDirCommand(e)},
	}
}

// containerDirOptions are the flags of container dir.
type containerDirOptions struct {
	container, file string
	run, list       bool
	set             string // the file whose content is stored
	remove          bool
	in              io.Reader
	out             io.Writer
}

func containerDirCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "dir",
		Usage:     "show the directory of a container, or work with small files in it",
		UsageText: "layerfs container dir [flags] CONTAINER [FILE]",
		Description: `Without FILE the path of the directory is printed; with FILE the content of the file of
that name in it. FILE is one name: it leads nowhere else.

Examples:
   layerfs container dir web                          # the path
   layerfs container dir --set config.json web net    # store config.json as "net"
   echo hello | layerfs container dir --set - web greeting
   layerfs container dir web greeting                 # print it
   layerfs container dir --list web
   layerfs container dir --remove web greeting
   layerfs container dir --run web                    # the one that a reboot empties`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "run", Usage: "the directory that is gone after a reboot"},
			&cli.BoolFlag{Name: "list", Usage: "list the names of the files"},
			&cli.StringFlag{Name: "set", Usage: "store the content of `PATH`, or of standard input for -, as FILE"},
			&cli.BoolFlag{Name: "remove", Usage: "remove FILE"},
		},
		BashComplete: completeContainers(e),
		Action: func(c *cli.Context) error {
			o := &containerDirOptions{
				container: c.Args().Get(0), file: c.Args().Get(1), run: c.Bool("run"), list: c.Bool("list"),
				set: c.String("set"), remove: c.Bool("remove"), in: e.in, out: e.stdout,
			}
			low, high := 1, 2
			if o.set != "" || o.remove {
				low = 2
			}
			if o.list {
				high = 1
			}
			if err := argCount(c, low, high, "CONTAINER and FILE"); err != nil {
				return err
			}
			if o.set != "" && o.remove {
				return usagef("--set and --remove exclude each other")
			}
			open := e.viewStore
			if o.set != "" || o.remove || o.run {
				open = e.openStore
			}
			return withStore(c, open, func(ctx context.Context, st *layers.Store) error {
				return containerDir(ctx, o, st)
			})
		},
	}
}

func containerDir(ctx context.Context, o *containerDirOptions, st *layers.Store) error {
	switch {
	case o.set != "":
		return o.store(ctx, st)
	case o.remove:
		return st.RemoveContainerFile(ctx, o.container, o.run, o.file)
	case o.list:
		names, err := st.ContainerFiles(ctx, o.container, o.run)
		for _, n := range names {
			fmt.Fprintln(o.out, printable(n))
		}
		return err
	case o.file != "":
		data, err := st.ContainerFile(ctx, o.container, o.run, o.file)
		if err != nil {
			return fileError(err)
		}
		_, err = o.out.Write(data)
		return err
	}
	path := st.ContainerDirectory
	if o.run {
		path = st.ContainerRunDirectory
	}
	dir, err := path(ctx, o.container)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(o.out, dir)
	return err
}

// store puts a file into the directory.
func (o *containerDirOptions) store(ctx context.Context, st *layers.Store) (err error) {
	in := o.in
	if o.set != "-" {
		f, err := os.Open(o.set)
		if err != nil {
			return fileError(err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in = f
	}
	return st.SetContainerFile(ctx, o.container, o.run, o.file, in)
}
