package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	layerfs "github.com/layerfs/layerfs/fs"
	"github.com/layerfs/layerfs/internal/control"
)

// umountOptions are the flags of umount.
type umountOptions struct {
	dirs  []string
	all   bool
	lazy  bool
	force bool   // also what others have mounted too
	store string // root of the store whose images, layers and containers are named
	// items says what a name may stand for, in the form of control.Record.Item; nil:
	// nothing.
	items func(ctx context.Context, name string) []string
	warn  io.Writer
	reg   *control.Registry
	grace time.Duration // how long the serving process may take to end
}

func umountCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "umount", Category: "Mounts", Aliases: []string{"unmount"},
		Usage:     "end mounts",
		UsageText: "layerfs umount DIR|NAME|ID... | --all",
		Description: `Returns when the mount is gone and the process that served it has ended. A mount that
is in use stays, and the processes that use it are named; with --lazy it vanishes at
once and its process ends when the last of them lets go.

What was mounted without DIR is named by the place that was printed, or by the name or
ID of the image, container or layer. It stays until everybody who has mounted it has
unmounted it, or with --force.

Examples:
   layerfs umount ~/layerfs
   layerfs umount --all`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "end all mounts of this user"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "also unmount what others have mounted too"},
			&cli.BoolFlag{Name: "lazy", Aliases: []string{"l"}, Usage: "do not wait for those who use the mount"},
		},
		Action: func(c *cli.Context) error {
			reg, err := e.registry()
			if err != nil {
				return err
			}
			root, err := e.storeRoot()
			if err != nil {
				return err
			}
			o := &umountOptions{
				dirs: c.Args().Slice(), all: c.Bool("all"), lazy: c.Bool("lazy"), force: c.Bool("force"), store: root, items: e.mountItems,
				warn: e.stderr, reg: reg, grace: 10 * time.Second,
			}
			if o.all == c.Args().Present() {
				return usagef("needs either DIR or --all")
			}
			return umount(c.Context, o)
		},
	}
}

// umount ends the mounts that are named, or all; one that is busy does not keep
// the others.
func umount(ctx context.Context, o *umountOptions) error {
	if o.all {
		records, err := o.reg.Mounts()
		if err != nil {
			return err
		}
		for _, r := range records {
			o.dirs = append(o.dirs, r.Mountpoint)
		}
	}
	var failed []error
	for _, name := range o.dirs {
		if err := o.named(ctx, name); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}

// named ends the mount that a user means, or takes one of its users away.
func (o *umountOptions) named(ctx context.Context, name string) error {
	dir, err := o.mountpoint(ctx, name)
	if err != nil {
		return err
	}
	left, done, err := o.release(ctx, dir)
	if err != nil || left {
		return err
	}
	defer done()
	return o.one(ctx, dir)
}

func (o *umountOptions) one(ctx context.Context, name string) error {
	dir := resolveMountpoint(name)
	rec, err := o.reg.Find(dir)
	served := err == nil
	if err != nil && !errors.Is(err, control.ErrNotMounted) {
		return err
	}
	mounted, err := mountedHere(dir)
	if err != nil {
		return err
	}
	if !mounted && !served {
		return fmt.Errorf("%w; `layerfs mounts` lists what is", control.ErrNotMounted)
	}
	if mounted {
		if err := unmountDir(dir, o.lazy); err != nil {
			return explainBusy(dir, err)
		}
	}
	if !served {
		return o.cleanContainers(dir)
	}
	if o.lazy {
		return nil
	}
	return o.wait(ctx, rec)
}

// cleanContainers takes away what a killed process has left of the mount of the
// containers that belonged to dir.
func (o *umountOptions) cleanContainers(dir string) error {
	beside, err := o.reg.ContainersPath(dir)
	if err != nil {
		return err
	}
	if err := cleanDead(beside); err != nil {
		return err
	}
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// wait returns when the serving process has ended. One that does not end still has
// somebody who uses the file system where we cannot see it: the mount itself is
// gone, so that is no error.
func (o *umountOptions) wait(ctx context.Context, rec control.Record) error {
	limited, cancel := context.WithTimeout(ctx, o.grace)
	defer cancel()
	err := o.reg.Wait(limited, rec.Mountpoint)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		fmt.Fprintf(o.warn, "layerfs: umount: %s is unmounted, but process %d still serves it to another mount namespace or an overlay mount\n", rec.Mountpoint, rec.PID)
		return nil
	}
	return err
}

// resolveMountpoint makes a path absolute and resolves symbolic links. It does not
// look at a mount itself, whose server may be dead or stopped.
func resolveMountpoint(name string) string {
	dir, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return dir
	}
	dir = filepath.Join(parent, filepath.Base(dir))
	if mounted, err := mountedHere(dir); err != nil || mounted {
		return dir
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}

// unmountDir unmounts as root by itself and for everybody else through
// fusermount3.
func unmountDir(dir string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(dir, flags)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	helper, err := fusermount()
	if err != nil {
		return err
	}
	// A busy mount is told from other reasons by its message.
	cmd := exec.Command(helper, append(args, "--", dir)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case bytes.Contains(out, []byte("busy")):
		return syscall.EBUSY
	}
	return errors.New(strings.TrimSpace(string(out)))
}

// fusermount finds the program that mounts for ordinary users. Services and cron
// jobs have short search paths, so the usual places are tried as well.
func fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "/usr/bin/fusermount3", "/usr/local/bin/fusermount3"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", layerfs.ErrNoHelper
}
