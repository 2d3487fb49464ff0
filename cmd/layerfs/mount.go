package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	layerfs "github.com/layerfs/layerfs/fs"
	"github.com/layerfs/layerfs/internal/config"
	"github.com/layerfs/layerfs/internal/control"
	"github.com/layerfs/layerfs/layers"
)

// mountOptions are the flags of mount.
type mountOptions struct {
	dir        string
	image      string
	container  string
	layer      string
	driver     string // of a container: auto, fuse or overlay
	foreground bool
	takeover   bool
	nonEmpty   bool
	fs         layerfs.Options
}

func mountCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "mount", Category: "Mounts",
		Usage:     "show the store as a file system",
		UsageText: "layerfs mount [flags] [DIR]",
		Description: `Mounts the whole store on DIR and returns when the mount answers; a process that
serves it stays behind until "layerfs umount DIR". Without DIR the mounts are listed.

With --image, --container or --layer only that is mounted. Then DIR may be left out: a
place is chosen and printed, and who asks for the same again gets the same place. Such
mounts are counted: each "layerfs umount NAME|ID|PLACE" takes one user away, and the
last one unmounts.

   DIR/images/docker.io/library/debian@12/rootfs    the files of the image debian:12
   DIR/images/by-id/<64 hex>/                       every image by its ID
   DIR/layers/sha256/<diffid>/diff                  one layer alone
   DIR/layers/sha256/<diffid>/layer.tar             its exact tar
   DIR/containers/<name>/rootfs                     the files of a container, to work in
   DIR/containers/<name>/changes, diff.tar          what was changed there

In names every ":" is written "@". Images that are loaded or removed later appear
and disappear without mounting again. As root other users may look into the mount;
an ordinary user needs fusermount3 and, for --allow-other, the line user_allow_other
in /etc/fuse.conf. "layerfs doctor" says what works here.

A process that serves a mount and is killed is replaced under those who use it, by
another one that holds what it needs (Linux 6.9). With --takeover another program goes
on with the mount in the same way: after an upgrade, or for a service manager that
starts "mount --takeover --foreground DIR" again. The options stay those of the mount.

Examples:
   layerfs mount ~/layerfs
   layerfs mount --image alpine /mnt             # the files of one image alone
   layerfs mount --container web /mnt            # one container, to work in
   cd $(layerfs mount --image alpine)            # and later: layerfs umount alpine
   layerfs mount --foreground ~/layerfs          # for service managers
   mount -t fuse.layerfs /var/lib/layerfs /mnt   # or in /etc/fstab`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "foreground", Aliases: []string{"f"}, Usage: "serve in this process; end with Ctrl-C or SIGTERM"},
			&cli.StringFlag{Name: "image", Usage: "mount the files of the image `NAME` alone"},
			&cli.StringFlag{Name: "container", Usage: "mount the files of the container `NAME` alone, to write into them"},
			&cli.StringFlag{Name: "layer", Usage: "mount the files of the layer `ID`, on the layers below it, alone"},
			&cli.StringFlag{Name: "driver", Value: "auto", Usage: "with --container: `WHO` shows it: auto, fuse or overlay (the kernel, where it may)"},
			&cli.StringFlag{Name: "idmap", Usage: "owners of the files: auto, none, squash or `C:H:N[,…]` (container ID, host ID, count)", DefaultText: "none for root, auto for others"},
			&cli.StringFlag{Name: "uidmap", Usage: "show users shifted by `C:H:N[,…]`, groups by --gidmap; nothing is copied or changed", DefaultText: "as --gidmap"},
			&cli.StringFlag{Name: "gidmap", Usage: "show groups shifted by `C:H:N[,…]`", DefaultText: "as --uidmap"},
			&cli.BoolFlag{Name: "allow-other", Usage: "let other users look into the mount; --allow-other=false does not", DefaultText: "true for root"},
			&cli.StringSliceFlag{Name: "options", Aliases: []string{"o"}, Usage: "mount `OPTIONS`, separated by commas: passthrough, writeback (of an ordinary user's containers: faster small writes, which a crash of the server may lose), suid, dev, noexec, nonempty and those of fstab"},
			formatFlag(),
			&cli.BoolFlag{Name: "takeover", Usage: "go on with a mount on DIR that another process serves, with this program, under those who use it; what is not mounted is mounted"},
			&cli.BoolFlag{Name: "helper", Hidden: true, Usage: "called by mount(8)"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 1, ""); err != nil {
				return err
			}
			o, err := newMountOptions(c)
			if err == nil {
				err = o.configured(e.conf)
			}
			if err != nil {
				return err
			}
			switch {
			case c.Args().Present():
				return e.mount(c.Context, o)
			case o.image+o.container+o.layer != "":
				return e.mountCounted(c.Context, o)
			}
			return e.listMounts(c)
		},
	}
}

func newMountOptions(c *cli.Context) (*mountOptions, error) {
	o := &mountOptions{
		dir: c.Args().First(), image: c.String("image"), foreground: c.Bool("foreground"), takeover: c.Bool("takeover"),
		container: c.String("container"), layer: c.String("layer"), driver: c.String("driver"),
	}
	o.fs.IDMap, o.fs.UIDMap, o.fs.GIDMap = c.String("idmap"), c.String("uidmap"), c.String("gidmap")
	if c.IsSet("allow-other") {
		allow := c.Bool("allow-other")
		o.fs.AllowOther = &allow
	}
	helper := c.Bool("helper")
	var options []string
	for _, option := range c.StringSlice("options") { // split at the commas
		key, value, _ := strings.Cut(option, "=")
		switch {
		case option == "nonempty":
			o.nonEmpty = true
		case key == "image":
			o.image = value
		case key == "container":
			o.container = value
		case key == "layer":
			o.layer = value
		case key == "driver":
			o.driver = value
		case helper && slices.Contains(helperOptions, key):
		default:
			options = append(options, option)
		}
	}
	if len(options) > 0 {
		// Package fs knows the others, among them lists that hold commas.
		o.fs.Extra = []string{strings.Join(options, ",")}
	}
	return o, o.check()
}

// configured fills in what neither a flag nor an option says from the configuration.
func (o *mountOptions) configured(conf *config.Config) error {
	if allow := conf.Get(config.AllowOther); o.fs.AllowOther == nil && allow.Value() != "" {
		yes, err := strconv.ParseBool(allow.Value())
		if err != nil {
			return fmt.Errorf("%w: %s: %q is neither true nor false", config.ErrInvalid, allow.From, allow.Value())
		}
		o.fs.AllowOther = &yes
	}
	shifted := o.fs.IDMap+o.fs.UIDMap+o.fs.GIDMap != "" || slices.ContainsFunc(o.fs.Extra, func(list string) bool { return strings.Contains(","+list, "map=") })
	if !shifted {
		o.fs.IDMap = conf.Get(config.IDMap).Value()
		o.fs.UIDMap, o.fs.GIDMap = conf.Get(config.UIDMap).Value(), conf.Get(config.GIDMap).Value()
	}
	return nil
}

// check refuses what contradicts itself.
func (o *mountOptions) check() error {
	switch {
	case o.image != "" && o.container+o.layer != "", o.container != "" && o.layer != "":
		return usagef("--image, --container and --layer exclude each other")
	case !slices.Contains(drivers, o.driver):
		return usagef("--driver %q: want one of %s", o.driver, strings.Join(drivers, ", "))
	case o.driver != driverAuto && o.container == "":
		return usagef("--driver needs --container")
	}
	return nil
}

// helperOptions are those that mount(8) passes on although they are for itself.
var helperOptions = []string{"owner", "group", "comment"}

// mount serves in this process or starts one that does.
func (e *env) mount(ctx context.Context, o *mountOptions) error {
	reply := control.NewReply()
	held, err := inherit()
	if err != nil {
		return err
	}
	if reply.Spawned() || held.begun {
		return e.serveFor(ctx, o, reply, held)
	}
	if o.takeover {
		if taken, err := e.takeover(ctx, o); taken || err != nil {
			return err
		}
	}
	reg, err := e.registry()
	if err != nil {
		return err
	}
	dir, err := o.prepare(reg)
	if err != nil {
		return err
	}
	args, err := e.serverArgs(o, dir)
	if err != nil {
		return err
	}
	if err := e.warnReadOnly(ctx, o); err != nil {
		return err
	}
	if o.foreground {
		return e.supervise(args, nil)
	}
	_, err = control.Spawn(ctx, args, reg.LogPath(dir))
	return err
}

// serveFor serves for whoever has started this process, and tells him why not.
func (e *env) serveFor(ctx context.Context, o *mountOptions, reply *control.Reply, held *serving) error {
	err := e.serve(ctx, o, reply, held)
	if err == nil {
		return nil
	}
	// Who waits prints it; the log is for what happens later.
	if reply.Spawned() {
		_ = reply.Fail(err, exitCode(err))
		return &quietError{err}
	}
	if held.begun && held.server == nil && !held.Resumed() {
		held.Fail(err, exitCode(err))
		return &quietError{err}
	}
	return err
}

// serverArgs is the command line of the serving process: all that this one has
// read, with paths that do not depend on the working directory.
func (e *env) serverArgs(o *mountOptions, dir string) ([]string, error) {
	root, err := e.storeRoot()
	if err != nil {
		return nil, err
	}
	runroot, err := e.runrootDir()
	if err != nil {
		return nil, err
	}
	format := "text"
	if e.logJSON {
		format = "json"
	}
	args := []string{"--root", root, "--runroot", runroot, "--log-level", e.logLevel.String(), "--log-format", format}
	for _, dir := range e.conf.Get(config.Additional).Values {
		args = append(args, "--additional-store", dir)
	}
	if e.conf.File != "" {
		args = append(args, "--config", e.conf.File)
	}
	args = append(args, "mount")
	if o.image != "" {
		args = append(args, "--image", o.image)
	}
	if o.layer != "" {
		args = append(args, "--layer", o.layer)
	}
	if o.container != "" {
		args = append(args, "--container", o.container, "--driver", o.driver)
	}
	for _, m := range [][2]string{{"--idmap", o.fs.IDMap}, {"--uidmap", o.fs.UIDMap}, {"--gidmap", o.fs.GIDMap}} {
		if m[1] != "" {
			args = append(args, m[0], m[1])
		}
	}
	if o.fs.AllowOther != nil {
		args = append(args, fmt.Sprintf("--allow-other=%t", *o.fs.AllowOther))
	}
	options := slices.Clone(o.fs.Extra)
	if o.nonEmpty {
		options = append(options, "nonempty")
	}
	for _, option := range options {
		args = append(args, "-o", option)
	}
	return append(args, "--", dir), nil
}

// serve mounts, tells who waits, and serves until the mount is gone.
func (e *env) serve(ctx context.Context, o *mountOptions, reply *control.Reply, held *serving) (err error) {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	held.reg, held.log = reg, e.logger()
	dir := o.dir // absolute; and nobody would answer who looked at it
	if !held.Resumed() {
		if dir, err = o.prepare(reg); err != nil {
			return err
		}
		o.dir = dir
	}
	e.keepLock, e.leftLocks = held.keepLock, held.locks()
	open := e.viewStore
	if o.container != "" {
		open = e.openStore
	}
	st, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if dir == st.Root() || strings.HasPrefix(dir, st.Root()+"/") {
		return usagef("%s is inside the store %s; mount somewhere else", dir, st.Root())
	}
	for _, root := range e.conf.Get(config.Additional).Values {
		if strings.HasPrefix(root, dir+"/") {
			return usagef("the additional store %s is below %s, which would hide it, and the mount would look into itself; mount somewhere else", root, dir)
		}
	}
	if held.Resumed() {
		err = o.adopt(held)
	} else {
		err = o.claim(ctx, st, held, reply.Spawned())
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.claim.Release()) }()
	o.fs.Logger, o.fs.Keeper, o.fs.Left = held.log, held, held.kept()
	o.fs.Process = func() any { return held.Status() }
	if o.container+o.image+o.layer == "" {
		if o.fs.Containers, err = reg.ContainersPath(dir); err != nil {
			return err
		}
	}
	layerfs.Tune()
	// Nothing is garbage yet; somebody waits for the mount.
	percent := debug.SetGCPercent(-1)
	server, err := o.start(st, dir)
	debug.SetGCPercent(percent)
	if err != nil {
		return err
	}
	held.server = server
	// A signal unmounts; unmounting, by whomever, ends Serve.
	stop := context.AfterFunc(ctx, func() {
		if err := server.Detach(); err != nil {
			o.fs.Logger.Error("unmount after a signal", "mountpoint", dir, "error", err)
		}
	})
	defer stop()
	if err := reply.Ready(); err != nil {
		o.fs.Logger.Warn("nobody to tell that the mount answers", "error", err)
	}
	args, err := e.serverArgs(o, dir)
	if err != nil {
		return err
	}
	go held.start(args, o.fs.Containers)
	err = server.Serve()
	held.Bye()
	return errors.Join(err, collectLeft(st))
}

// claim publishes the record of a new mount.
func (o *mountOptions) claim(ctx context.Context, st *layers.Store, held *serving, spawned bool) (err error) {
	if err := o.chooseDriver(ctx, st); err != nil {
		return err
	}
	dir := o.dir
	record := control.Record{
		Mountpoint: dir, PID: os.Getpid(), Store: st.Root(), Driver: o.driver, Since: time.Now().UTC().Round(0),
		Image: o.image, Container: o.container, Layer: o.layer,
	}
	if record.Item, err = o.item(ctx, st); err != nil {
		return err
	}
	if spawned {
		record.Log = held.reg.LogPath(dir)
	}
	held.record = record
	held.claim, err = held.reg.Claim(record)
	return err
}

// adopt goes on with the record of a mount that another process has served. A name may
// be that of something else by now: what is shown is named by its ID.
func (o *mountOptions) adopt(held *serving) error {
	if err := held.adopt(held.reg); err != nil {
		return err
	}
	o.driver = held.record.Driver
	if id, ok := strings.CutPrefix(held.record.Item, "container "); ok {
		o.container = id
	}
	return nil
}

// collectLeft frees what only this mount had open, but does not keep somebody waiting
// long who has unmounted: then the next one does it.
func collectLeft(st *layers.Store) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := st.CollectPending(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// A served is a mount that this process has to do with until it is gone.
type served interface {
	Serve() error
	Detach() error
	Handover() error
	Stop(wait time.Duration)
}

func (o *mountOptions) start(st *layers.Store, dir string) (served, error) {
	switch {
	case o.container != "":
		return o.startContainer(st, dir)
	case o.image != "":
		return layerfs.MountImage(st, o.image, dir, &o.fs)
	case o.layer != "":
		return layerfs.MountLayer(st, o.layer, dir, &o.fs)
	}
	return layerfs.Mount(st, dir, &o.fs)
}

// notServed returns ErrClaimed when a process serves dir.
func notServed(reg *control.Registry, dir string) error {
	rec, err := reg.Find(dir)
	if errors.Is(err, control.ErrNotMounted) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w by process %d; end it with layerfs umount %s", dir, control.ErrClaimed, rec.PID, dir)
}

// prepare removes the dead mount that a killed process has left on the directory,
// checks that it can be mounted on, and returns its path without symbolic links.
func (o *mountOptions) prepare(reg *control.Registry) (string, error) {
	real := resolveMountpoint(o.dir)
	reg.AwaitDying(real)
	if err := errors.Join(cleanDead(real), cleanDeadOverlay(real)); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(o.dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w; create it with mkdir -p %s", o.dir, fs.ErrNotExist, o.dir)
	}
	if err != nil {
		return "", fileError(err)
	}
	if err := notServed(reg, dir); err != nil {
		return "", err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", fileError(err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s: %w; name a directory to mount on", o.dir, syscall.ENOTDIR)
	}
	return dir, o.checkEmpty(dir)
}

// cleanDead takes away mounts on dir whose server has died. The kernel answers stat,
// and even ls, of such a mount from its cache; statfs always asks the server.
func cleanDead(dir string) error {
	for {
		mounted, err := mountedHere(dir)
		if err != nil || !mounted {
			return err
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); !errors.Is(err, unix.ENOTCONN) {
			return nil // it lives, or the next step says what is wrong
		}
		if err := unmountDir(dir, true); err != nil {
			return fmt.Errorf("%s: the dead mount of a killed layerfs is in the way: %w", dir, err)
		}
	}
}

// checkEmpty keeps a mistyped DIR from hiding somebody's files.
func (o *mountOptions) checkEmpty(dir string) error {
	if mounted, err := mountedHere(dir); err != nil || mounted {
		if mounted {
			err = fmt.Errorf("%s: %w by a process of another runroot; unmount it first", o.dir, control.ErrClaimed)
		}
		return err
	}
	if o.nonEmpty {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return fileError(err)
	}
	defer f.Close()
	if names, _ := f.Readdirnames(1); len(names) > 0 {
		return fmt.Errorf("%s is not empty (%s): its files would be hidden; name an empty directory, or use -o nonempty", o.dir, names[0])
	}
	return nil
}
