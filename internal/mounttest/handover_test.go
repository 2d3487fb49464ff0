package mounttest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
)

// kills is how often a test kills: the number that is meant for go test, or that of LAYERFS_TEST_KILLS.
func kills(quick int) int {
	if n, err := strconv.Atoi(os.Getenv("LAYERFS_TEST_KILLS")); err == nil {
		return n
	}
	return quick
}

// A mounted is what "layerfs mounts" says of a mount.
type mounted struct {
	Mountpoint             string
	PID, Holder, Takeovers int
}

// held waits until a mount has a holder and has been taken over so often, and returns what mounts says of it.
func (s *store) held(dir string, takeovers int) mounted {
	s.t.Helper()
	var list []mounted
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		list = nil
		s.json(&list, "mounts", "--format", "json")
		for _, m := range list {
			if m.Mountpoint == dir && m.Holder != 0 && m.Takeovers >= takeovers && alive(m.PID) {
				return m
			}
		}
	}
	s.t.Fatalf("%s has no holder, or no takeover %d: %+v", dir, takeovers, list)
	return mounted{}
}

// kill kills everything that serves a mount, and waits for the death of it.
func (s *store) kill(dir string) {
	s.t.Helper()
	m := s.held(dir, 0)
	pids := []int{m.Holder, m.PID}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, pid := range pids {
		for alive(pid) {
			time.Sleep(time.Millisecond)
		}
	}
}

// killServer kills the server of a mount again and again, and returns when the last one that has taken over serves.
func (s *store) killServer(dir string, times int) {
	s.t.Helper()
	m := s.held(dir, 0)
	for i := range times {
		time.Sleep(time.Duration(50+rand.Intn(250)) * time.Millisecond)
		if err := syscall.Kill(m.PID, syscall.SIGKILL); err != nil {
			s.t.Fatal(err)
		}
		m = s.held(dir, i+1)
	}
}

// A readers is a load on a tree of which every file is known.
type readers struct {
	dir   string
	files []string // below dir
	want  map[string][]byte

	stop  atomic.Bool
	done  atomic.Int64
	worst atomic.Int64 // duration of the slowest operation
}

// newReaders reads a tree once.
func newReaders(t *testing.T, dir string) *readers {
	t.Helper()
	r := &readers{dir: dir, want: map[string][]byte{}}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		r.files, r.want[name] = append(r.files, name), raw
		return err
	})
	if err != nil || len(r.files) < 100 {
		t.Fatalf("%d files, %v", len(r.files), err)
	}
	return r
}

// run reads files until it is stopped, by whichever of some directories that show the same.
func (r *readers) run(seed int64, dirs ...string) error {
	rnd := rand.New(rand.NewSource(seed))
	for !r.stop.Load() {
		name := r.files[rnd.Intn(len(r.files))]
		began := time.Now()
		if err := r.one(filepath.Join(dirs[rnd.Intn(len(dirs))], name), r.want[name], rnd); err != nil {
			return err
		}
		took := int64(time.Since(began))
		for w := r.worst.Load(); took > w && !r.worst.CompareAndSwap(w, took); w = r.worst.Load() {
		}
		r.done.Add(1)
	}
	return nil
}

// one reads a file, and what the kernel has of it is forgotten.
func (r *readers) one(path string, want []byte, rnd *rand.Rand) error {
	if rnd.Intn(4) == 0 {
		if _, err := os.ReadDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s: %d bytes, want %d", path, len(got), len(want))
	}
	return errors.Join(err, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// load runs several readers while fn runs, and wants no errors.
func (r *readers) load(t *testing.T, a *testenv.Account, dirs []string, fn func()) {
	t.Helper()
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = as(a, func() error { return r.run(int64(i), dirs...) }) })
	}
	fn()
	r.stop.Store(true)
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("an operation hangs")
	}
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d files were read, the slowest took %v", r.done.Load(), time.Duration(r.worst.Load()))
}

// TestServerKilled kills the server of a mount of images again and again: nobody who reads notices.
func TestServerKilled(t *testing.T) {
	n := kills(5)
	eachAccount(t, func(t *testing.T, a *testenv.Account) {
		s := newStore(t, a)
		image := s.load("-i", s.readableImage("mini-debian.oci.tar"))
		dir := s.mount()
		root := filepath.Join(imageDir(dir, image), "rootfs")
		var r *readers
		if err := as(a, func() error { r = newReaders(t, root); return nil }); err != nil {
			t.Fatal(err)
		}
		byID, err := filepath.Glob(filepath.Join(dir, "images/by-id/*/rootfs"))
		if err != nil || a == nil && len(byID) != 1 {
			t.Fatalf("%v, %v", byID, err)
		}
		r.load(t, a, append(byID, root), func() { s.killServer(dir, n) })
		if r.done.Load() < int64(10*n) {
			t.Errorf("only %d files were read", r.done.Load())
		}
		m := s.held(dir, n)
		s.ok("umount", dir)
		for end := time.Now().Add(20 * time.Second); alive(m.Holder) || alive(m.PID); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%+v: its processes are still there", m)
			}
		}
	})
}

// TestTakeover lets another process take over again and again: nobody who reads notices.
func TestTakeover(t *testing.T) {
	n := kills(3)
	eachAccount(t, func(t *testing.T, a *testenv.Account) {
		s := newStore(t, a)
		image := s.load("-i", s.readableImage("mini-debian.oci.tar"))
		dir := s.mount("--image", image)
		var r *readers
		if err := as(a, func() error { r = newReaders(t, dir); return nil }); err != nil {
			t.Fatal(err)
		}
		first := s.held(dir, 0)
		r.load(t, a, []string{dir}, func() {
			for i := range n {
				s.ok("mount", "--takeover", dir)
				s.held(dir, i+1)
			}
		})
		if m := s.held(dir, n); m.PID == first.PID || m.Holder == first.Holder || alive(first.PID) || alive(first.Holder) {
			t.Errorf("%+v was to be replaced, there is %+v", first, m)
		}
	})
}

// TestContainerServerKilled kills the server of a container again and again, and lets another one take over in between:
// nobody who works in it notices.
func TestContainerServerKilled(t *testing.T) {
	testenv.Require(t, "python3")
	script, err := os.ReadFile("testdata/handover.py")
	if err != nil {
		t.Fatal(err)
	}
	n := kills(6)
	eachAccount(t, func(t *testing.T, a *testenv.Account) {
		s := newStore(t, a)
		s.newContainer("c")
		dir := s.mount("--container", "c", "--driver", "fuse")
		stop := filepath.Join(filepath.Dir(s.root), "stop") // where both can look
		var wg sync.WaitGroup
		for i := range 3 {
			args := []string{"300", "python3", "-c", string(script), dir, strconv.Itoa(i), stop}
			cmd := exec.Command("timeout", args...)
			if a != nil {
				cmd = testenv.RunAs(t, *a, cmd.Path, args...)
			}
			wg.Go(func() {
				out, err := cmd.CombinedOutput()
				t.Logf("worker %d: steps, the slowest in s: %s", i, out)
				if err != nil {
					t.Error(err)
				}
			})
		}
		for i := range 3 {
			await(t, stop+strconv.Itoa(i))
		}
		s.killServer(dir, n)
		s.ok("mount", "--takeover", dir)
		s.held(dir, n+1)
		if err := os.WriteFile(stop, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	})
}

// await returns when a file is there.
func await(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not appear", path)
		}
	}
}
