package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/internal/config"
)

// configFlags are the global flags that say what to work with. Their environment
// variables are read by package config, which remembers which of the two it was.
func configFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "root", Usage: "`DIR` of the store [$LAYERFS_ROOT]", DefaultText: "/var/lib/layerfs, or for a user $XDG_DATA_HOME/layerfs"},
		&cli.StringFlag{Name: "runroot", Usage: "`DIR` for the records of mounts [$LAYERFS_RUNROOT]", DefaultText: "/run/layerfs, or for a user $XDG_RUNTIME_DIR/layerfs"},
		&cli.StringFlag{Name: "config", Usage: "read the configuration `FILE` [$LAYERFS_CONF]", DefaultText: "/etc/layerfs/storage.conf, or for a user first $XDG_CONFIG_HOME/layerfs/storage.conf"},
		&cli.GenericFlag{Name: "additional-store", Value: &pathList{}, Usage: "read the images of the store in `DIR` too; can be repeated [$LAYERFS_ADDITIONAL_STORES]"},
		&cli.StringFlag{Name: "log-level", Usage: "`LEVEL` of the messages: debug, info, warn or error", Value: "warn"},
		&cli.StringFlag{Name: "log-format", Usage: "`FORMAT` of the messages: text or json", Value: "text"},
	}
}

// A pathList is a flag that can be repeated; the lists of the library split at commas,
// which paths may have.
type pathList []string

// Set implements cli.Generic.
func (l *pathList) Set(path string) error {
	*l = append(*l, path)
	return nil
}

// String implements cli.Generic.
func (l *pathList) String() string { return strings.Join(*l, " ") }

// configure reads flags, environment and file. What is wrong with the file is told by
// the first who needs a setting of it, so that help and completion still work.
func (e *env) configure(c *cli.Context) error {
	flags := map[string][]string{}
	for _, name := range []string{"config", "root", "runroot", "log-level", "log-format"} {
		if c.IsSet(name) {
			flags[name] = []string{c.String(name)}
		}
	}
	if list, ok := c.Generic("additional-store").(*pathList); ok && len(*list) > 0 {
		flags["additional-store"] = *list
	}
	e.conf, e.confErr = config.Load(config.Sources{Flags: flags, UID: os.Geteuid()})
	if e.confErr != nil {
		e.conf, _ = config.Load(config.Sources{Flags: flags, UID: os.Geteuid(), Getenv: func(string) string { return "" }, System: os.DevNull})
		if e.conf == nil {
			return e.confErr
		}
	}
	e.conf.Default(config.LogLevel, "warn")
	e.conf.Default(config.LogFormat, "text")
	return e.configureLog()
}

// configureLog takes over how to log.
func (e *env) configureLog() error {
	level := e.conf.Get(config.LogLevel)
	if err := e.logLevel.UnmarshalText([]byte(level.Value())); err != nil {
		return usagef("%s %q: want debug, info, warn or error", level.From, level.Value())
	}
	switch format := e.conf.Get(config.LogFormat); format.Value() {
	case "text":
		e.logJSON = false
	case "json":
		e.logJSON = true
	default:
		return usagef("%s %q: want text or json", format.From, format.Value())
	}
	return nil
}

// warn tells about what does not keep a verb from its work.
func (e *env) warn(format string, args ...any) {
	if e.logLevel <= slog.LevelWarn {
		fmt.Fprintf(e.stderr, "layerfs: warning: "+format+"\n", args...)
	}
}

// settings returns the settings in force; the paths that nobody set are the defaults.
func (e *env) settings() ([]config.Setting, error) {
	root, err := e.storeRoot()
	if err != nil {
		return nil, err
	}
	runroot, err := e.runrootDir()
	if err != nil {
		return nil, err
	}
	e.conf.Default(config.Root, root)
	e.conf.Default(config.Runroot, runroot)
	return e.conf.All(), nil
}

// printSettings lists the settings that have a value, and where each came from.
func printSettings(w io.Writer, settings []config.Setting) {
	for _, s := range settings {
		if len(s.Values) > 0 {
			fmt.Fprintf(w, "%s:\t%s\t(%s)\n", s.Key, strings.Join(s.Values, " "), s.From)
		}
	}
}
