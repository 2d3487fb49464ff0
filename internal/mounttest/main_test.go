package mounttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// program is the layerfs that all tests run.
var program string

func TestMain(m *testing.M) {
	if job := os.Getenv(soakVariable); job != "" {
		os.Exit(soakWorker(job))
	}
	os.Exit(build(m))
}

// build makes the program in a directory that ordinary users may look into, and
// runs the tests.
func build(m *testing.M) int {
	syscall.Umask(0o022)
	dir, err := os.MkdirTemp("", "layerfs-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program = filepath.Join(dir, "layerfs")
	cmd := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", program, "github.com/layerfs/layerfs/cmd/layerfs")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience is how long one command may take; large images take some minutes.
const patience = 10 * time.Minute

// A store is a store of its own, with the user that works on it.
type store struct {
	t             testing.TB
	root, runroot string
	account       *testenv.Account // nil: the caller
	flags         []string         // more global flags
}

func newStore(t testing.TB, a *testenv.Account) *store {
	t.Helper()
	var dir string
	if a != nil {
		dir = a.TempDir(t)
	} else {
		dir = t.TempDir()
	}
	return &store{t: t, root: filepath.Join(dir, "store"), runroot: filepath.Join(dir, "run"), account: a}
}

// A result is how a command ended.
type result struct {
	args           []string
	code           int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("layerfs %s: exit %d\nstdout: %.600s\nstderr: %.600s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

// command makes a call of layerfs on the store, killed when the context ends.
func (s *store) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, slices.Concat([]string{"--root", s.root, "--runroot", s.runroot}, s.flags, args)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}
	cmd.WaitDelay = 5 * time.Second
	if s.account != nil {
		s.account.Apply(cmd)
	}
	return cmd
}

// run calls layerfs and waits.
func (s *store) run(args ...string) result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		s.t.Fatalf("layerfs %q: still running after %v\n%s", args, patience, stderr.String())
	case err != nil && !errors.As(err, &exit):
		s.t.Fatalf("layerfs %q: %v", args, err)
	}
	r := result{args, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if strings.Contains(r.stderr, "panic:") || strings.Contains(r.stderr, "goroutine ") {
		s.t.Errorf("a panic: %.4000s", r.stderr)
	}
	return r
}

// ok is run for what must succeed; it returns standard output.
func (s *store) ok(args ...string) string {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatal(r)
	}
	return r.stdout
}

// json is ok with the output decoded into v.
func (s *store) json(v any, args ...string) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.ok(args...)), v); err != nil {
		s.t.Fatalf("layerfs %q: %v", args, err)
	}
}

// checkClean runs the full check.
func (s *store) checkClean() {
	s.t.Helper()
	if r := s.run("check", "-q"); r.code != 0 {
		s.t.Error(r)
	}
}

// refused checks the form of an error: the code, and one line that starts with
// the program's name.
func (r result) refused(t testing.TB, codes ...int) {
	t.Helper()
	good := false
	for _, c := range codes {
		good = good || r.code == c
	}
	line := strings.TrimSuffix(r.stderr, "\n")
	if !good || strings.Contains(line, "\n") || !strings.HasPrefix(line, "layerfs: ") {
		t.Errorf("want exit %v and one line of error; %v", codes, r)
	}
}

// mount mounts the store, and takes care that the mount ends with the test.
func (s *store) mount(flags ...string) string {
	s.t.Helper()
	dir := testenv.Mountpoint(s.t, s.account)
	s.mountAt(dir, flags...)
	return dir
}

func (s *store) mountAt(dir string, flags ...string) {
	s.t.Helper()
	s.ok(append(append([]string{"mount"}, flags...), dir)...)
	pid := s.server(dir)
	s.t.Cleanup(func() {
		if r := s.run("umount", dir); r.code != 0 && r.code != 3 {
			s.t.Errorf("umount: %v", r)
			testenv.Detach(dir)
		}
		// The lock that umount waits for goes before the process, which has to let
		// go of what it mapped.
		for range 1000 {
			if !alive(pid) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		if pid > 0 {
			s.t.Errorf("process %d still serves %s after umount", pid, dir)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

// server returns the process that serves a mount.
func (s *store) server(dir string) int {
	s.t.Helper()
	var list []struct {
		Mountpoint string
		PID        int
	}
	s.json(&list, "mounts", "--format", "json")
	for _, m := range list {
		if m.Mountpoint == dir {
			return m.PID
		}
	}
	s.t.Errorf("mounts does not list %s: %+v", dir, list)
	return 0
}

func alive(pid int) bool {
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return pid > 0 && err == nil && !bytes.Contains(state, []byte(") Z "))
}

// take makes a snapshot as the store's user, with a limit in time: a server that
// does not answer must not hang the tests.
func (s *store) take(dir string) *treetest.Snapshot {
	s.t.Helper()
	type answer struct {
		snap *treetest.Snapshot
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		if s.account != nil && os.Geteuid() == 0 {
			a.err = treetest.AsUser(s.account.UID, s.account.GID, func() (err error) {
				a.snap, err = treetest.Take(dir)
				return err
			})
		} else {
			a.snap, a.err = treetest.Take(dir)
		}
		done <- a
	}()
	select {
	case a := <-done:
		if a.err != nil {
			s.t.Fatalf("walk: %v", a.err)
		}
		return a.snap
	case <-time.After(patience):
		s.t.Fatalf("walk of %s: no end after %v", dir, patience)
		return nil
	}
}

// imageDir is where an image with this name is in a mount.
func imageDir(mnt, name string) string {
	return filepath.Join(mnt, "images", strings.ReplaceAll(name, ":", "@"))
}

// load loads an archive and returns the first name that is printed, or
// "by-id/HEX" for an image without one.
func (s *store) load(args ...string) string {
	s.t.Helper()
	out := s.ok(append([]string{"load", "-q"}, args...)...)
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Loaded image: "); ok {
			return name
		}
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "Loaded image ID: sha256:"); ok {
			return "by-id/" + id
		}
	}
	s.t.Fatalf("load %q printed no image: %q", args, out)
	return ""
}

// report shows up to 40 lines of a difference.
func report(t testing.TB, what string, lines []string) {
	t.Helper()
	for i, l := range lines {
		if i == 40 {
			t.Errorf("%s: and %d lines more", what, len(lines)-i)
			return
		}
		t.Errorf("%s: %s", what, l)
	}
}
