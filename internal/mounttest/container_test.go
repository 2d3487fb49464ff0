package mounttest_test

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// eachAccount runs a test as root and as an ordinary user.
func eachAccount(t *testing.T, test func(t *testing.T, a *testenv.Account)) {
	testenv.Require(t, "fuse", "root")
	t.Run("root", func(t *testing.T) { test(t, nil) })
	t.Run("user", func(t *testing.T) {
		a := testenv.User(t)
		testenv.Require(t, "fusermount3")
		test(t, &a)
	})
}

// as calls fn as the account.
func as(a *testenv.Account, fn func() error) error {
	if a == nil {
		return fn()
	}
	return treetest.AsUser(a.UID, a.GID, fn)
}

// newContainer makes a container of a real image.
func (s *store) newContainer(name string) {
	s.t.Helper()
	image := s.load("-i", s.readableImage("mini-debian.oci.tar"))
	s.ok("create", "--name", name, image)
}

func (s *store) readableImage(name string) string {
	path := filepath.Join(testenv.Shared(s.t), "images", name)
	if s.account == nil {
		return path
	}
	t, _ := s.t.(*testing.T)
	return readable(t, path, *s.account)
}

// TestContainerKill kills the server of a container while several write into it, mounts again, and wants everything
// that was done, and nothing else but what was being done.
func TestContainerKill(t *testing.T) {
	kills := 4
	if n, err := strconv.Atoi(os.Getenv("LAYERFS_TEST_KILLS")); err == nil {
		kills = n
	}
	eachAccount(t, func(t *testing.T, a *testenv.Account) {
		s := newStore(t, a)
		s.newContainer("c")
		dir := testenv.Mountpoint(t, a)
		workers := make([]*killWorker, 3)
		for i := range workers {
			workers[i] = &killWorker{rnd: rand.New(rand.NewSource(int64(i))), dir: filepath.Join(dir, "usr/share", fmt.Sprint("w", i)), files: map[string]string{}}
		}
		for i := range kills {
			s.ok("mount", "--container", "c", "--driver", "fuse", dir)
			for _, w := range workers {
				if err := as(a, w.check); err != nil {
					t.Fatalf("after kill %d: %v", i, err)
				}
			}
			var wg sync.WaitGroup
			for _, w := range workers {
				wg.Go(func() { w.err = as(a, w.run) })
			}
			time.Sleep(time.Duration(200+rand.Intn(400)) * time.Millisecond)
			s.kill(dir)
			wg.Wait()
			for _, w := range workers {
				// EIO comes from a close that could not write what the kernel had kept.
				if !errors.Is(w.err, syscall.ENOTCONN) && !errors.Is(w.err, syscall.ECONNABORTED) && !errors.Is(w.err, syscall.EIO) {
					t.Errorf("a worker ended with %v", w.err)
				}
			}
		}
		s.mountAt(dir, "--container", "c", "--driver", "fuse")
		done := 0
		for _, w := range workers {
			if err := as(a, w.check); err != nil {
				t.Error(err)
			}
			done += w.done
		}
		t.Logf("%d kills, %d operations", kills, done)
		if done < 50*kills {
			t.Errorf("only %d operations were done in %d rounds", done, kills)
		}
	})
}

// A killWorker changes files in a directory of its own until it gets an error, and knows what must be there.
type killWorker struct {
	rnd     *rand.Rand
	dir     string
	files   map[string]string // contents by name
	pending [2]string         // names that the operation that failed was about
	done    int
	err     error
}

// run works until an operation fails.
func (w *killWorker) run() error {
	if err := os.Mkdir(w.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for {
		a, b := fmt.Sprint("f", w.rnd.Intn(30)), fmt.Sprint("f", w.rnd.Intn(30))
		w.pending = [2]string{a, b}
		if err := w.step(a, b); err != nil {
			return err
		}
		w.done++
	}
}

func (w *killWorker) step(a, b string) error {
	at := func(name string) string { return filepath.Join(w.dir, name) }
	body, there := w.files[a]
	switch kind := w.rnd.Intn(6); {
	case !there || kind == 0:
		body = strings.Repeat(fmt.Sprint(a, w.done, " "), w.rnd.Intn(2000))
		if err := os.WriteFile(at(a), []byte(body), 0o644); err != nil {
			return err
		}
		w.files[a] = body
	case kind == 1:
		if err := os.Remove(at(a)); err != nil {
			return err
		}
		delete(w.files, a)
	case kind == 2 && a != b:
		if err := os.Rename(at(a), at(b)); err != nil {
			return err
		}
		w.files[b] = body
		delete(w.files, a)
	case kind == 3:
		return os.Chmod(at(a), 0o600)
	case kind == 4:
		return w.appendSynced(at(a), a)
	default:
		got, err := os.ReadFile(at(a))
		if err == nil && string(got) != body {
			err = fmt.Errorf("%s: %d bytes, want %d", a, len(got), len(body))
		}
		return err
	}
	return nil
}

func (w *killWorker) appendSynced(path, name string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("more"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	w.files[name] += "more"
	return f.Close()
}

// check compares the directory with what must be there. What the operation that failed was about is taken as it is.
func (w *killWorker) check() error {
	list, err := os.ReadDir(w.dir)
	if errors.Is(err, os.ErrNotExist) && w.done == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	there := map[string]string{}
	for _, e := range list {
		body, err := os.ReadFile(filepath.Join(w.dir, e.Name()))
		if err != nil {
			return err
		}
		there[e.Name()] = string(body)
	}
	for _, name := range w.pending {
		delete(w.files, name)
		if body, ok := there[name]; ok {
			w.files[name] = body
		}
	}
	for name, body := range w.files {
		if got, ok := there[name]; !ok || got != body {
			return fmt.Errorf("%s: there %v, %d bytes, want %d", filepath.Join(w.dir, name), ok, len(got), len(body))
		}
		delete(there, name)
	}
	if len(there) > 0 {
		return fmt.Errorf("%s holds %d files that were removed", w.dir, len(there))
	}
	return nil
}

// TestContainerFull fills the file system under a container.
func TestContainerFull(t *testing.T) {
	testenv.Require(t, "fuse", "root")
	s := newStore(t, nil)
	if err := os.Mkdir(s.root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", s.root, "tmpfs", 0, "size=96m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(s.root, unix.MNT_DETACH) })
	s.newContainer("c")
	dir := s.mount("--container", "c", "--driver", "fuse")
	kept := filepath.Join(dir, "etc/kept")
	if err := os.WriteFile(kept, []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fill(filepath.Join(dir, "filler")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a full file system gives %v", err)
	}
	// A file of the image cannot be copied up now, and stays what it is.
	large := largestFile(t, filepath.Join(dir, "usr/bin"))
	before, err := os.ReadFile(large)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := os.OpenFile(large, os.O_WRONLY, 0); !errors.Is(err, syscall.ENOSPC) {
		f.Close()
		t.Errorf("opening a file of the image for writing gives %v", err)
	}
	after, err := os.ReadFile(large)
	if err != nil || string(before) != string(after) {
		t.Errorf("the file of the image has changed: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Error(err)
	}
	// The kernel tells of closed files when it comes to it; their space is free then.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = os.WriteFile(large, []byte("new"), 0o755); !errors.Is(err, syscall.ENOSPC) || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Errorf("with space again: %v", err)
	}
	if got, err := os.ReadFile(kept); err != nil || string(got) != "kept" {
		t.Errorf("another file: %q, %v", got, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "usr/share")); err != nil {
		t.Errorf("rm -rf: %v", err)
	}
}

func largestFile(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	best, size := "", int64(0)
	for _, e := range list {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Size() > size {
			best, size = filepath.Join(dir, e.Name()), info.Size()
		}
	}
	return best
}

// fill writes until there is no more room.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 1<<20); ; {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
}

// TestContainerWork lets programs work in a container.
func TestContainerWork(t *testing.T) {
	testenv.Require(t, "git", "sqlite3", "python3")
	script, err := os.ReadFile("testdata/work.sh")
	if err != nil {
		t.Fatal(err)
	}
	eachAccount(t, func(t *testing.T, a *testenv.Account) {
		s := newStore(t, a)
		s.newContainer("c")
		dir := s.mount("--container", "c", "--driver", "fuse")
		cmd := exec.Command("timeout", "50", "bash", "-c", string(script), "work", dir)
		if a != nil {
			cmd = testenv.RunAs(t, *a, cmd.Path, cmd.Args[1:]...)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
