package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/internal/config"
	"github.com/layerfs/layerfs/layers"
)

// An env is what a verb works with besides its own options.
type env struct {
	stdin          *os.File
	in             io.Reader // stdin, but a signal ends the reading
	stdout, stderr io.Writer
	conf           *config.Config
	confErr        error // why the configuration could not be read
	logLevel       slog.Level
	logJSON        bool
	keepLock       func(name string, fd int) // of a process that serves a mount, see serving
	leftLocks      map[string]*os.File       // likewise
}

const description = `layerfs loads container images into a content-addressed store, in which the
content of every file is kept once, and shows the whole store as a read-only file
system:

   layerfs load -i debian.tar          # docker-archive, oci-archive or OCI layout
   layerfs mount ~/layerfs             # returns when the mount answers
   ls ~/layerfs/images/docker.io/library/debian@12/rootfs
   sha256sum ~/layerfs/layers/sha256/*/layer.tar
   layerfs umount ~/layerfs

An image is named as in docker and podman: a name (debian is short for
docker.io/library/debian:latest), its ID, or the first digits of its ID.
Flags may stand before or after the arguments; after "--" everything is an argument.`

// newApp puts the verbs together.
func newApp(e *env) *cli.App {
	app := &cli.App{
		Name:                   "layerfs",
		Usage:                  "container images as a file system",
		UsageText:              "layerfs [global flags] VERB [flags] [arguments]",
		Description:            description,
		Version:                buildVersion(),
		CustomAppHelpTemplate:  appHelp(),
		Flags:                  globalFlags(),
		Commands:               commands(e),
		Before:                 e.before,
		Action:                 noVerb,
		Reader:                 e.stdin,
		Writer:                 e.stdout,
		ErrWriter:              e.stderr,
		EnableBashCompletion:   true,
		UseShortOptionHandling: false, // crashes the completion of urfave/cli v2
		ExitErrHandler:         func(*cli.Context, error) {},
		OnUsageError:           usageErrorOf("layerfs"),
		HideHelpCommand:        true, // "layerfs help" is a verb of our own
	}
	return app
}

func globalFlags() []cli.Flag {
	return append(configFlags(), cli.HelpFlag) // the library leaves it out when there is a verb "help"
}

// commands lists the verbs in the order of --help.
func commands(e *env) []*cli.Command {
	list := []*cli.Command{
		loadCommand(e), importCommand(e), saveCommand(e), diffCommand(e),
		pullCommand(e), pushCommand(e), loginCommand(e), logoutCommand(e),
		imagesCommand(e), inspectCommand(e), historyCommand(e), layersCommand(e), existsCommand(e),
		tagCommand(e), untagCommand(e), rmiCommand(e),
		createCommand(e), containersCommand(e), rmCommand(e), renameCommand(e), labelCommand(e), containerCommand(e),
		layerCommand(e), imageCommand(e),
		metadataCommand(e), flagCommand(e), bigdataCommand(e), sizeCommand(e), deleteCommand(e),
		changesCommand(e), diffsizeCommand(e), commitCommand(e), exportCommand(e),
		whichCommand(e), findCommand(e), diffImagesCommand(e), whyCommand(e), duCommand(e),
		mountCommand(e), umountCommand(e), mountsCommand(e), shutdownCommand(e), envCommand(e),
		gcCommand(e), leaseCommand(e), squeezeCommand(e), wipeCommand(e), checkCommand(e), infoCommand(e), versionCommand(e), debugCommand(e),
		doctorCommand(e), completionCommand(e), helpCommand(e),
	}
	for _, c := range list {
		finish(c, c.Name)
	}
	return list
}

// finish gives a verb what all verbs have in common: the form of its errors, and
// no sub-command "help", which would take the place of a file of that name. The
// full name of a sub-command is that of its verb and its own.
func finish(c *cli.Command, full string) {
	c.HideHelpCommand = true
	for _, f := range c.Flags {
		if b, ok := f.(*cli.BoolFlag); ok && b.DefaultText == "" {
			b.DisableDefaultText = true // "(default: false)" says nothing
		}
	}
	for _, sub := range c.Subcommands {
		finish(sub, full+" "+sub.Name)
	}
	c.OnUsageError = usageErrorOf(full)
	action := c.Action
	c.Action = func(ctx *cli.Context) error {
		if err := refuseCompletion(ctx); err != nil {
			return &verbError{full, err}
		}
		if err := action(ctx); err != nil {
			return &verbError{full, err}
		}
		return nil
	}
}

// A verbError says which verb an error is from.
type verbError struct {
	verb string
	err  error
}

func (e *verbError) Error() string {
	text := e.verb + ": " + e.err.Error()
	var u *usageError
	if errors.As(e.err, &u) {
		text += "; see layerfs " + e.verb + " --help"
	}
	return text
}

func (e *verbError) Unwrap() error { return e.err }

// A usageError is a mistake in the command line itself.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// A quietError ends the program with its exit code and without a message, because
// the output says it all.
type quietError struct{ err error }

func (e *quietError) Error() string { return e.err.Error() }

func (e *quietError) Unwrap() error { return e.err }

func usageErrorOf(verb string) cli.OnUsageErrorFunc {
	return func(_ *cli.Context, err error, _ bool) error {
		text := strings.Replace(err.Error(), "flag provided but not defined: ", "unknown flag ", 1)
		if verb == "layerfs" {
			return &usageError{text + "; see layerfs --help"}
		}
		return &verbError{verb, &usageError{text}}
	}
}

// otherVerbs says what does here what other programs' verbs do there.
var otherVerbs = map[string]string{
	"build":   "layerfs builds nothing itself: work in `layerfs mount --container NAME DIR`, then `layerfs commit`",
	"cp":      "`layerfs mount DIR` shows every file to cp itself",
	"df":      "`layerfs du` says where the space goes",
	"exec":    "layerfs runs nothing itself: `layerfs mount --container NAME DIR`, then for example `podman run --rootfs DIR`",
	"extract": "`layerfs mount DIR` shows the files; `layerfs export IMAGE | tar x` writes them out",
	"ls":      "`layerfs images` lists images, `layerfs ps` containers, `layerfs layers` layers",
	"prune":   "`layerfs gc` frees what nothing needs; `layerfs rmi` and `layerfs rm` remove",
	"run":     "layerfs runs nothing itself: `layerfs create IMAGE`, `layerfs mount --container NAME DIR`, then for example `podman run --rootfs DIR`",
	"start":   "layerfs runs nothing itself: `layerfs mount --container NAME DIR`, then for example `podman run --rootfs DIR`",
	"system":  "`layerfs info`, `layerfs du` and `layerfs gc` look after the store",
	"unpack":  "`layerfs mount DIR` shows the files; `layerfs export IMAGE | tar x` writes them out",
	"volume":  "layerfs keeps images and containers only",
}

// noVerb answers a command line without a verb that we know.
func noVerb(c *cli.Context) error {
	name := c.Args().First()
	if name == "" {
		return usagef("say what to do, for example `layerfs load -i FILE`; see layerfs --help")
	}
	hint := "see layerfs --help"
	if other, ok := otherVerbs[name]; ok {
		hint = other
	} else if near := nearest(c.App.Commands, name); near != "" {
		hint = "did you mean " + near + "? " + hint
	}
	return usagef("unknown verb %q; %s", name, hint)
}

// argCount checks the number of arguments; what names them for the message.
func argCount(c *cli.Context, low, high int, what string) error {
	n := c.Args().Len()
	if n < low {
		return usagef("needs %s", what)
	}
	if high >= 0 && n > high {
		return usagef("unexpected argument %q", c.Args().Get(high))
	}
	return nil
}

// before takes over the global flags.
func (e *env) before(c *cli.Context) error {
	if err := e.configure(c); err != nil {
		return err
	}
	for _, text := range e.conf.Warnings {
		e.warn("%s", text)
	}
	return nil
}

// logger is for what cannot be returned as an error; only the serving process of a
// mount has such things.
func (e *env) logger() *slog.Logger {
	o := &slog.HandlerOptions{Level: e.logLevel}
	if e.logJSON {
		return slog.New(slog.NewJSONHandler(e.stderr, o))
	}
	return slog.New(slog.NewTextHandler(e.stderr, o))
}

// openStore opens the store to change it, and makes it when there is none.
func (e *env) openStore() (*layers.Store, error) {
	root, err := e.storeRoot()
	if err != nil {
		return nil, err
	}
	o, err := e.storeOptions()
	if err != nil {
		return nil, err
	}
	return e.open(root, o)
}

// storeOptions are those of a store that may be changed.
func (e *env) storeOptions() (*layers.Options, error) {
	runroot, err := e.runrootDir()
	return &layers.Options{RunRoot: runroot, KeepLock: e.keepLock, LeftLocks: e.leftLocks}, err
}

// viewStore opens the store for a verb that only looks. An absent store is made,
// so that the first command somebody tries is no error; one on a read-only medium
// is opened as such.
func (e *env) viewStore() (*layers.Store, error) {
	st, err := e.openStore()
	if errors.Is(err, fs.ErrPermission) || isReadOnlyMedium(err) {
		if ro, roErr := e.readStore(); roErr == nil {
			return ro, nil
		}
	}
	return st, err
}

// readStore opens the store without the right to change it.
func (e *env) readStore() (*layers.Store, error) {
	root, err := e.storeRoot()
	if err != nil {
		return nil, err
	}
	return e.open(root, &layers.Options{ReadOnly: true})
}

// open opens a store with the additional stores, and warns about those that are not
// there.
func (e *env) open(root string, o *layers.Options) (*layers.Store, error) {
	o.Additional = e.conf.Get(config.Additional).Values
	st, err := layers.Open(root, o)
	if err != nil {
		return nil, err
	}
	for _, gone := range st.Gone() {
		e.warn("%v", gone)
	}
	return st, nil
}

// withStore calls fn with a store and closes it.
func withStore(c *cli.Context, open func() (*layers.Store, error), fn func(ctx context.Context, st *layers.Store) error) (err error) {
	st, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return fn(c.Context, st)
}
