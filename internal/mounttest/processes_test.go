package mounttest_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
)

// TestManyCommands runs eight commands at a time that create, tag, list, remove, load
// and collect at random, for LAYERFS_TEST_PROCESSES (5s), beside two mounts that are
// walked all the time. No command ends but as it should, and no walk meets an error
// other than that something is no longer there.
func TestManyCommands(t *testing.T) {
	testenv.Require(t, "fuse")
	d, err := time.ParseDuration(os.Getenv("LAYERFS_TEST_PROCESSES"))
	if err != nil {
		d = 5 * time.Second
	}
	images := filepath.Join(testenv.Shared(t), "images")
	s := newStore(t, nil)
	s.load("--name", "localhost/keep:1", "-i", filepath.Join(images, "alpine.oci.tar"))
	mounts := []string{s.mount(), s.mount()}
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	for i := range 8 {
		r := rand.New(rand.NewPCG(uint64(i), 9))
		wg.Go(func() {
			for time.Now().Before(end) {
				args := someCommand(r, images)
				res := s.run(args...)
				mu.Lock()
				counts[args[0]]++
				mu.Unlock()
				switch res.code {
				case 0, 3, 4: // done, not found, in use
				default:
					t.Errorf("%v: %v", args, res)
				}
			}
		})
	}
	files := 0
	for _, mnt := range mounts {
		wg.Go(func() {
			for time.Now().Before(end) {
				n := walkOnce(t, filepath.Join(mnt, "images"))
				mu.Lock()
				files += n
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%v; %d files seen", counts, files)
	s.ok("gc")
	s.checkClean()
	if n := walkOnce(t, imageDir(mounts[0], "localhost/keep:1")); n < 50 {
		t.Errorf("the image that nobody has touched has %d files", n)
	}
}

func someCommand(r *rand.Rand, images string) []string {
	name := func(kind string) string { return fmt.Sprintf("localhost/%s:%d", kind, r.IntN(3)) }
	box := fmt.Sprintf("box%d", r.IntN(3))
	archives := []string{"alpine.docker.tar", "alpine.zstd3.oci", "alpine.oci.tar"}
	all := [][]string{
		{"load", "-q", "--name", name("img"), "-i", filepath.Join(images, archives[r.IntN(len(archives))])},
		{"load", "-q", "--name", name("big"), "-i", filepath.Join(images, "mini-debian.oci.tar")},
		{"tag", name("img"), name("img"), name("tag")},
		{"images"},
		{"rmi", name([]string{"img", "tag", "big"}[r.IntN(3)])},
		{"create", "--name", box, name("img")},
		{"rm", "--force", box},
		{"containers"},
		{"gc"},
		{"info"},
		{"layer", "create", "--name", box},
		{"layer", "rm", box},
		{"rmi", "--dry-run", name("img")},
	}
	return all[r.IntN(len(all))]
}

// walkOnce reads a tree as far as it is there, and returns how many files it has read.
func walkOnce(t *testing.T, root string) (n int) {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasPrefix(e.Name(), "layer") {
			var f *os.File
			if f, err = os.Open(path); err == nil {
				_, err = f.Read(make([]byte, 4096))
				if err != nil && err.Error() == "EOF" {
					err = nil
				}
				f.Close()
				n++
			}
		}
		if gone(err) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Errorf("walk: %v", err)
	}
	return n
}

// gone reports whether an error says that something was removed, or never was.
func gone(err error) bool {
	return err == nil || os.IsNotExist(err) || strings.Contains(err.Error(), "stale")
}
