package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

func leaseCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "lease", Category: "The store",
		Usage:     "keep images and layers from removal while somebody works with them",
		UsageText: "layerfs lease ls | run [flags] COMMAND [ARGS...]",
		Description: `A lease ends with the process that holds it, however that ends. Loads, pulls and other
imports hold one for what they work with.

Examples:
   layerfs lease ls
   layerfs lease run --image debian:12 -- ./build.sh`,
		Action:      needsVerb("ls or run"),
		Subcommands: []*cli.Command{leaseLsCommand(e), leaseRunCommand(e)},
	}
}

func leaseLsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "ls", Usage: "list the leases", UsageText: "layerfs lease ls [--format json]",
		Description: `JSON has the fields id, pid, purpose, since, images, records, layers and blobs.`,
		Flags:       []cli.Flag{formatFlag()},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0, ""); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				list, err := st.Leases(ctx)
				if err != nil {
					return err
				}
				return printList(e.stdout, c.String("format"), list, table[layers.LeaseInfo]{
					header: []string{"ID", "PID", "PURPOSE", "IMAGES", "LAYERS", "SINCE"},
					row: func(l layers.LeaseInfo) []string {
						return []string{
							l.ID, strconv.Itoa(l.PID), l.Purpose, strconv.Itoa(len(l.Images)), strconv.Itoa(len(l.Layers)),
							l.Since.Local().Format(time.DateTime),
						}
					},
				})
			})
		},
	}
}

// leaseRunOptions are the flags of lease run.
type leaseRunOptions struct {
	images, layers []string
	purpose        string
	command        []string
	stdin          *os.File
	out, err       io.Writer
}

func leaseRunCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "hold a lease while a command runs", UsageText: "layerfs lease run [flags] -- COMMAND [ARGS...]",
		Description: `The images and layers that are named cannot be removed until the command has ended; the
exit code is that of the command. Signals are passed on to it.

Examples:
   layerfs lease run --image debian:12 -- ./build.sh
   layerfs lease run --layer 5f70bf18a086 --purpose backup -- sleep 60`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "image", Usage: "hold `IMAGE` with its layers; can be repeated"},
			&cli.StringSliceFlag{Name: "layer", Usage: "hold `LAYER`: a DiffID, a layer record or a ChainID; can be repeated"},
			&cli.StringFlag{Name: "purpose", Usage: "`TEXT` for those who want to remove them; the command otherwise"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "COMMAND"); err != nil {
				return err
			}
			o := &leaseRunOptions{
				images: c.StringSlice("image"), layers: c.StringSlice("layer"), purpose: c.String("purpose"),
				command: c.Args().Slice(), stdin: e.stdin, out: e.stdout, err: e.stderr,
			}
			if o.purpose == "" {
				o.purpose = o.command[0]
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return leaseRun(ctx, o, st)
			})
		},
	}
}

func leaseRun(ctx context.Context, o *leaseRunOptions, st *layers.Store) (err error) {
	lease, err := st.NewLease(ctx, o.purpose)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	for _, name := range o.images {
		if _, err := lease.RetainImage(ctx, name); err != nil {
			return err
		}
	}
	for _, id := range o.layers {
		if _, err := lease.RetainLayer(ctx, id); err != nil {
			return err
		}
	}
	return o.run()
}

// run runs the command. Signals that a terminal sends reach it by themselves and must
// not end us before it; the others are passed on.
func (o *leaseRunOptions) run() error {
	cmd := exec.Command(o.command[0], o.command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = o.stdin, o.out, o.err
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &quietError{&commandError{exit}}
	}
	return err
}

// A commandError ends the program with the exit code of a command that it has run.
type commandError struct{ *exec.ExitError }

func (e *commandError) code() int {
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return e.ExitCode()
}

// Error is not printed: the command has said what there was to say.
func (e *commandError) Error() string { return fmt.Sprintf("the command ended with %v", e.ExitError) }
