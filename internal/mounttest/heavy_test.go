package mounttest_test

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
)

// heavy skips a test that takes minutes unless LAYERFS_TEST_HEAVY is set.
func heavy(t *testing.T) {
	if os.Getenv("LAYERFS_TEST_HEAVY") == "" {
		t.Skip("it takes minutes: LAYERFS_TEST_HEAVY is not set (make test-heavy)")
	}
}

// TestMillionFiles loads 1,000,000 files, 100,000 of them in one directory, and walks them in a mount: neither process
// may need memory for each of them.
func TestMillionFiles(t *testing.T) {
	heavy(t)
	testenv.Require(t, "fuse")
	const small, large = 900, 100_000 // directories of 1,000 files, and one of more
	l := newLayerFile(t)
	for d := range small {
		for f := range 1000 {
			l.member(tar.Header{Name: fmt.Sprintf("d%03d/f%03d", d, f)}, fmt.Sprint(f))
		}
	}
	for f := range large {
		l.member(tar.Header{Name: fmt.Sprintf("large/f%06d", f)}, "")
	}
	s := newStore(t, nil)
	r, memory := s.measured("load", "-q", "-i", l.archive("localhost/million:1"))
	if r.code != 0 {
		t.Fatal(r)
	}
	within(t, "load, of its own", memory.anonymous, 256<<10)
	mnt := s.mount()
	root := filepath.Join(imageDir(mnt, "localhost/million:1"), "rootfs")
	before, err := footprintOf(s.server(mnt))
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files++
			_, err = e.Info()
		}
		return err
	})
	if err != nil || files != small*1000+large {
		t.Errorf("%d files, want %d: %v", files, small*1000+large, err)
	}
	after, err := footprintOf(s.server(mnt))
	if err != nil {
		t.Fatal(err)
	}
	within(t, "the server after a walk", after.anonymous, before.anonymous+64<<10)
	for _, name := range []string{"d000/f000", "d899/f999", "large/f099999"} {
		if _, err := os.ReadFile(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	s.checkClean()
}
