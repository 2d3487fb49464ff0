// Command layerfs keeps container images in a content-addressed store and shows
// them as a file system.
//
// Every verb is in a file of its own: it reads its flags and arguments and calls
// one function of (ctx, options, store) that does the work. Run layerfs --help for
// the verbs, the environment and the exit codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/layerfs/layerfs/internal/hold"
)

// version is set by the Makefile; without it the build information is asked.
var version string

func main() {
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it returns the exit code.
func run(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	if hold.IsHolder(args) {
		return runHolder(args[2:], stderr)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The second signal kills, should the first one not be heard. A holder passes signals on that its server may have
	// got, too.
	if !hold.Inherits() {
		context.AfterFunc(ctx, stop)
	}
	e := &env{stdin: stdin, in: interruptible(ctx, stdin), stdout: stdout, stderr: stderr}
	app := newApp(e)
	if dir := os.Getenv(profileVariable); dir != "" {
		defer profile(dir, verbOf(args, func(name string) bool { return app.Command(name) != nil }), stderr)()
	}
	err := app.RunContext(ctx, arrange(app, args))
	if err == nil {
		return exitOK
	}
	var quiet *quietError
	if !errors.As(err, &quiet) {
		fmt.Fprintln(stderr, message(ctx, err))
	}
	return exitCode(err)
}

// message is the one line that an error is told in.
func message(ctx context.Context, err error) string {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		var v *verbError
		if errors.As(err, &v) {
			return "layerfs: " + v.verb + ": interrupted; nothing was changed"
		}
	}
	return "layerfs: " + strings.TrimSpace(err.Error()) + hint(err)
}

// hints say what to do about conditions of the machine, which packages below only
// pass on.
var hints = []struct {
	target error
	text   string
}{
	{syscall.ENOSPC, "free space with layerfs rmi and layerfs gc, or use another disk with --root"},
	{syscall.EDQUOT, "free space with layerfs rmi and layerfs gc, or use another disk with --root"},
	{syscall.EROFS, "its file system is read-only: mount it writable, or use another with --root"},
	{syscall.EMFILE, "too many open files: raise the limit with ulimit -n"},
}

func hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.target) {
			return "; " + h.text
		}
	}
	return ""
}

// buildVersion is what "layerfs version" prints.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
