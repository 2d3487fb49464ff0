package fs

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers"
)

// What is counted here happens as often on a slow machine as on a fast one. The bounds leave room for what one version of
// find or of the kernel asks more than another, not for a request more per file.

const (
	countedDirs  = 20
	countedFiles = 100 // in each directory
)

// countedStore is a store with an image of many files.
func countedStore(t *testing.T) *layers.Store {
	st := newStore(t)
	load(t, st, newImage(t, "me", wideLayer(t, countedDirs, countedFiles), wideLayer(t, 3, 10)), "wide:1")
	return st
}

// countedMount mounts it anew and returns its tree.
func countedMount(t *testing.T, st *layers.Store) (*Server, string) {
	s := mounted(t, st, nil)
	return s, filepath.Join(s.Mountpoint(), "images/docker.io/library/wide@1/rootfs")
}

// requestsOf counts the requests that something makes, without what the kernel says when it forgets inodes.
func requestsOf(s *Server, do func()) (each map[string]uint64, sum uint64) {
	before := s.Stats().Requests
	do()
	each = map[string]uint64{}
	for op, n := range s.Stats().Requests {
		if n -= before[op]; n > 0 && !strings.Contains(op, "forget") {
			each[op] = n
			sum += n
		}
	}
	return each, sum
}

// shell runs a script in a directory.
func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// TestMountedCountsOfWalks wants a first walk to cost requests for directories and none for files, and a second walk by
// the same program nothing for either.
func TestMountedCountsOfWalks(t *testing.T) {
	st := countedStore(t)
	for _, c := range []struct {
		script string
		first  uint64 // for a directory
		guess  uint64 // look-ups until the server knows that the program wants attributes, see walker
		second uint64 // all in all: what the programs ask about the file system and access lists, once in a run
	}{
		{"find . | wc -l", 4, 0, 4},
		{"ls -lR . | wc -l", 8, 3 * countedFiles, 4},
	} {
		s, root := countedMount(t, st)
		each, sum := requestsOf(s, func() { shell(t, root, c.script) })
		if limit := c.first*(countedDirs+5) + c.guess; sum > limit || sum < countedDirs {
			t.Errorf("%s, first: %d requests, want at most %d: %v", c.script, sum, limit, each)
		}
		// Once more: at the second look the kernel asks about some directories again, to keep their lists this time.
		shell(t, root, c.script)
		if each, sum := requestsOf(s, func() { shell(t, root, c.script) }); sum > c.second {
			t.Errorf("%s, again: %d requests, want at most %d: %v", c.script, sum, c.second, each)
		}
	}
}

// TestMountedCountsOfFiles wants one read and nothing else for the first open-read-close of a file that the kernel knows,
// and nothing for the second.
func TestMountedCountsOfFiles(t *testing.T) {
	s, root := countedMount(t, countedStore(t))
	buf := make([]byte, 4096)
	read := func(name string) {
		fd, err := unix.Open(filepath.Join(root, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(name, err)
		}
		defer unix.Close(fd)
		for n := 1; n > 0; {
			if n, err = unix.Read(fd, buf); err != nil {
				t.Fatal(name, err)
			}
		}
	}
	read("d00/file-0000") // OPEN and FLUSH are refused once in the life of a mount
	var names []string
	for i := range 100 {
		names = append(names, filepath.Join("d01", fileName(i)))
	}
	all := func() {
		for _, name := range names {
			read(name)
		}
	}
	stat := func() {
		for _, name := range names {
			if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	none := func() {
		for _, name := range names {
			if _, err := os.Lstat(filepath.Join(root, name+".absent")); !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		what string
		do   func()
		want map[string]uint64
		more uint64 // for the directory
	}{
		{"first stat", stat, map[string]uint64{"lookup": 100}, 2},
		{"second stat", stat, nil, 0},
		{"first open-read-close", all, map[string]uint64{"read": 100}, 0},
		{"second open-read-close", all, nil, 0},
		{"first stat of what is not there", none, map[string]uint64{"lookup": 100}, 0},
		{"second stat of what is not there", none, nil, 0},
	} {
		each, sum := requestsOf(s, c.do)
		want := c.more
		for op, n := range c.want {
			want += n
			if each[op] < n {
				t.Errorf("%s: %d %s, want %d: nothing was counted", c.what, each[op], op, n)
			}
		}
		if sum > want {
			t.Errorf("%s: %d requests, want at most %d: %v", c.what, sum, want, each)
		}
	}
}

// fileName is how wideLayer calls a file.
func fileName(i int) string {
	return "file-" + string([]byte{'0', byte('0' + i/100), byte('0' + i/10%10), byte('0' + i%10)})
}

// TestMountedAllocations wants the whole way of a request, from /dev/fuse and back, to allocate nothing. What the test
// itself and the other goroutines of a mount allocate meanwhile is far below one for ten requests.
func TestMountedAllocations(t *testing.T) {
	st := countedStore(t)
	for _, script := range []string{"find . | wc -l; find . -type f -exec cat {} + | wc -c", "ls -lR . | wc -l", "find . -exec stat {} + | wc -l"} {
		s, root := countedMount(t, st)
		shell(t, root, "true")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		each, sum := requestsOf(s, func() { shell(t, root, script) })
		runtime.ReadMemStats(&after)
		n := after.Mallocs - before.Mallocs
		t.Logf("%s: %d allocations, %d requests: %v", script, n, sum, each)
		if sum < countedDirs {
			t.Errorf("%s: only %d requests", script, sum)
		}
		if limit := 400 + sum/10; n > limit {
			t.Errorf("%s: %d allocations for %d requests, want at most %d: %v", script, n, sum, limit, each)
		}
	}
}
