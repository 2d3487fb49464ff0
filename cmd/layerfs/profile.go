package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
)

// profileVariable names a directory; every process of layerfs then leaves profiles of
// itself there when it ends, the one that serves a mount too. docs/benchmarks.md says
// what to do with them. It is for developers and in no help text.
const profileVariable = "LAYERFS_PROFILE"

const (
	blockRate     = 10_000 // nanoseconds of waiting for one event of the profile
	mutexFraction = 10     // one of so many contentions
)

// profiles are what is written beside the CPU profile at the end.
var profiles = []string{"block", "mutex", "allocs", "goroutine"}

// profile profiles until done is called. What goes wrong with it is said and ends
// nothing.
func profile(dir, verb string, stderr io.Writer) (done func()) {
	stop, err := startProfiles(dir, verb)
	if err != nil {
		fmt.Fprintln(stderr, "layerfs:", err)
		return func() {}
	}
	return func() {
		if err := stop(); err != nil {
			fmt.Fprintf(stderr, "layerfs: %s: %v\n", profileVariable, err)
		}
	}
}

// startProfiles begins to profile into files DIR/VERB-PID.NAME.pprof; stop writes
// them.
func startProfiles(dir, verb string) (stop func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%s: %w", profileVariable, err)
	}
	create := func(name string) (*os.File, error) {
		return os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s-%d.%s.pprof", verb, os.Getpid(), name)), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	}
	cpu, err := create("cpu")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", profileVariable, err)
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", profileVariable, err), cpu.Close())
	}
	runtime.SetBlockProfileRate(blockRate)
	runtime.SetMutexProfileFraction(mutexFraction)
	return func() error {
		pprof.StopCPUProfile()
		errs := []error{cpu.Close()}
		for _, name := range profiles {
			f, err := create(name)
			if err != nil {
				return errors.Join(append(errs, err)...)
			}
			errs = append(errs, pprof.Lookup(name).WriteTo(f, 0), f.Close())
		}
		return errors.Join(errs...)
	}, nil
}

// verbOf finds the verb among arguments, for the name of a file.
func verbOf(args []string, known func(string) bool) string {
	for _, a := range args[min(1, len(args)):] {
		if !strings.HasPrefix(a, "-") && known(a) {
			return a
		}
	}
	return "layerfs"
}
