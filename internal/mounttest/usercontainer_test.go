package mounttest_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// TestContainerAsUser does the same as an ordinary user, for whom no kernel mounts.
func TestContainerAsUser(t *testing.T) {
	testenv.Require(t, "root", "fuse", "fusermount3", "shared")
	account := testenv.User(t)
	s := newStore(t, &account)
	image := s.load("-i", readable(t, filepath.Join(testenv.Shared(t), "images/alpine.oci.tar"), account))
	s.ok("create", "--name", "c", image)
	for _, step := range containerSteps {
		want := s.work("c", "fuse", step)
		again := s.work("c", "fuse", "true")
		report(t, step+": again", treetest.Diff(want, again, userOptions))
		report(t, step+": export", treetest.Diff(want, s.unpacked("c"), userOptions))
		s.ok("commit", "c", "new:1")
		if left := s.ok("changes", "c", "new:1"); left != "" {
			t.Errorf("%s: the commit differs from the container:\n%s", step, left)
		}
	}
	s.checkClean()
}

// userOptions leave out the owners, which the mount shifts, and what the mount does
// not let a user read. Times of files may be a moment apart: the kernel keeps what an
// ordinary user writes in its cache, with the time of the write, and the host has the
// time at which the content got there.
var userOptions = &treetest.Options{Owners: true, Opaque: true, Entry: func(path string, want, got *treetest.Entry) {
	sameLinks(path, want, got)
	if want != nil && got != nil && want.Unreadable {
		got.Sum, got.Xattrs, want.Xattrs = want.Sum, nil, nil
	}
	if want != nil && got != nil && want.Kind == treetest.Regular && got.Mtime.Sub(want.Mtime).Abs() < time.Second {
		got.Mtime = want.Mtime
	}
}}
