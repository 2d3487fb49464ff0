package mounttest_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// TestKillDuringLoad kills load at random moments. Each time the store opens, what
// was there before is there, a check finds nothing wrong, and the image is either
// whole or not there at all; a collection leaves nothing of an aborted load.
func TestKillDuringLoad(t *testing.T) {
	testenv.Require(t, "fuse")
	kills := 30
	if n, err := strconv.Atoi(os.Getenv("LAYERFS_TEST_KILLS")); err == nil {
		kills = n
	}
	images := filepath.Join(testenv.Shared(t), "images")
	archive := filepath.Join(images, "mini-debian.oci.tar")
	s := newStore(t, nil)
	s.load("-i", archive)
	took := s.duration(archive)
	old := s.load("--name", "localhost/old:1", "-i", filepath.Join(images, "alpine.oci.tar"))
	s.ok("gc")
	want := s.take(filepath.Join(imageDir(s.mount(), old), "rootfs"))
	empty := s.snapshot()

	whole := 0
	for i := range kills {
		delay := time.Duration(rand.Int64N(int64(took) * 4 / 3))
		s.killed(delay, "load", "-q", "--name", "localhost/new:1", "-i", archive)
		r := s.run("check", "-q")
		if r.code != 0 {
			t.Fatalf("killed after %v: %v", delay, r)
		}
		names := s.ok("images", "--format", "{{.Names}}")
		if !strings.Contains(names, "localhost/old") {
			t.Fatalf("killed after %v: the old image is gone: %q", delay, names)
		}
		if s.run("exists", "localhost/new:1").code == 0 {
			whole++
			s.ok("rmi", "localhost/new:1")
		}
		if i%5 == 4 || i == kills-1 {
			s.ok("gc")
			report(t, "after gc", leftovers(empty, s.snapshot()))
		}
	}
	t.Logf("%d of %d loads were complete; a load takes %v", whole, kills, took)
	s.load("--name", "localhost/new:1", "-i", archive)
	s.checkClean()
	report(t, "old image", treetest.Diff(want, s.take(filepath.Join(imageDir(s.mount(), old), "rootfs")), nil))
}

// duration measures a load, and removes the image again.
func (s *store) duration(archive string) time.Duration {
	s.t.Helper()
	for _, id := range strings.Fields(s.ok("images", "-q", "--no-trunc")) {
		s.ok("rmi", "--force", id)
	}
	s.ok("gc")
	start := time.Now()
	s.load("--name", "localhost/new:1", "-i", archive)
	took := time.Since(start)
	s.ok("rmi", "localhost/new:1")
	return took
}

// killed starts a command and kills it after a while.
func (s *store) killed(after time.Duration, args ...string) {
	s.t.Helper()
	cmd := s.command(s.t.Context(), args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	time.Sleep(after)
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && err != os.ErrProcessDone {
		s.t.Error(err)
	}
	_ = cmd.Wait() // killed or done, both are fine
}

// leftovers compares two stores that hold the same, except for the index, whose
// pages move and whose journal tells the history, for lock files, which say who held
// them last, and for empty directories.
func leftovers(want, got *treetest.Snapshot) []string {
	for p, e := range got.Entries {
		if e.Kind == treetest.Directory && want.Entries[p] == nil {
			delete(got.Entries, p)
		}
	}
	return treetest.Diff(want, got, &treetest.Options{
		Skip:  func(p string) bool { return strings.HasPrefix(p, "index.") || strings.HasSuffix(p, ".lock") },
		Entry: func(_ string, want, got *treetest.Entry) { got.Mtime = want.Mtime },
	})
}
