package faulttest_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
)

const workerVariable = "LAYERFS_FAULT_WORKER"

func TestMain(m *testing.M) {
	syscall.Umask(0o022)
	if os.Getenv(workerVariable) != "" {
		serveWorker(os.Stdin, os.Stdout)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// places returns how many places are to be tried for one thing at one action: few,
// unless LAYERFS_TEST_FAULTS says otherwise.
func places(few int) int {
	switch v := os.Getenv("LAYERFS_TEST_FAULTS"); v {
	case "":
		return few
	case "all":
		return 1 << 30
	default:
		n, err := strconv.Atoi(v)
		if err != nil {
			panic("LAYERFS_TEST_FAULTS: " + err.Error())
		}
		return n
	}
}

// long reports whether more than a sample is wanted.
func long() bool { return os.Getenv("LAYERFS_TEST_FAULTS") != "" }

// random returns a source of random numbers that a failure can be repeated with.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("LAYERFS_TEST_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("LAYERFS_TEST_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// A request asks a worker for one operation on a store.
type request struct {
	Root string
	Do   string
	Arg  string
	Boot string // of the machine
}

// An answer is what came of it.
type answer struct {
	Err   string   // empty: it was done
	Errno []string // those that the error leads to
	Lines []string
}

// is reports whether the error leads to one of the errnos.
func (a *answer) is(errnos ...syscall.Errno) bool {
	for _, e := range errnos {
		if slices.Contains(a.Errno, e.Error()) {
			return true
		}
	}
	return false
}

var reported = []syscall.Errno{unix.EIO, unix.ENOSPC, unix.EROFS, unix.EACCES, unix.EPERM, unix.EDQUOT, unix.EINTR}

// serveWorker does what it is asked for until its input ends.
func serveWorker(r io.Reader, w io.Writer) {
	in := json.NewDecoder(r)
	out := json.NewEncoder(w)
	for {
		var q request
		if in.Decode(&q) != nil {
			return
		}
		lines, err := perform(&q)
		a := answer{Lines: lines}
		if err != nil {
			a.Err = err.Error()
			for _, e := range reported {
				if errors.Is(err, e) {
					a.Errno = append(a.Errno, e.Error())
				}
			}
		}
		if out.Encode(&a) != nil {
			return
		}
	}
}

// A worker is a process that performs operations.
type worker struct {
	t       testing.TB
	account *testenv.Account // nil: as the test
	program string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader

	mu   sync.Mutex // guards dead
	dead bool
}

// newWorker starts a process that ends with the test.
func newWorker(t testing.TB) *worker {
	t.Helper()
	return newWorkerAs(t, nil)
}

// newWorkerAs starts one as another user.
func newWorkerAs(t testing.TB, a *testenv.Account) *worker {
	t.Helper()
	w := &worker{t: t, account: a, program: os.Args[0]}
	if a != nil { // who may not look into the directory of the test
		w.program = filepath.Join(a.TempDir(t), "worker")
		raw, err := os.ReadFile(os.Args[0])
		must(t, err)
		must(t, os.WriteFile(w.program, raw, 0o755))
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *worker) start() {
	w.t.Helper()
	w.cmd = exec.Command(w.program)
	w.cmd.Env = append(os.Environ(), workerVariable+"=1")
	w.cmd.Stderr = os.Stderr
	if w.account != nil {
		w.account.Apply(w.cmd)
	}
	in, err := w.cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.in, w.out, w.dead = in, bufio.NewReader(out), false
}

func (w *worker) stop() {
	w.in.Close()
	w.kill()
	_ = w.cmd.Wait() // it was killed
}

// kill ends the process at once; it may be called from anywhere.
func (w *worker) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	_ = w.cmd.Process.Kill() // unless it has ended
}

func (w *worker) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// again starts another process after the first was killed.
func (w *worker) again() {
	w.t.Helper()
	w.in.Close()
	_ = w.cmd.Wait() // it was killed
	w.start()
}

// patience is how long one operation may take, on a machine with other work.
const patience = 2 * time.Minute

// ask performs one operation; nil when the process was killed meanwhile, and then
// there is a new one.
func (w *worker) ask(q request) *answer {
	w.t.Helper()
	timer := time.AfterFunc(patience, func() {
		w.t.Errorf("%s: no end after %v", q.Do, patience)
		_ = w.cmd.Process.Signal(syscall.SIGQUIT)
	})
	defer timer.Stop()
	var line []byte
	raw, err := json.Marshal(q)
	if err == nil {
		_, err = w.in.Write(append(raw, '\n'))
	}
	if err == nil {
		line, err = w.out.ReadBytes('\n')
	}
	if err != nil {
		if !w.isDead() {
			_ = w.cmd.Wait()
			w.t.Fatalf("%s: the worker ended: %v", q.Do, w.cmd.ProcessState)
		}
		w.again()
		return nil
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		w.t.Fatalf("%s: %v: %q", q.Do, err, line)
	}
	return &a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// some returns a quarter of the numbers below n, or all of them when more than a sample is
// wanted. Over time all have their turn.
func some(t testing.TB, n int) []int {
	list := random(t).Perm(n)
	if !long() {
		list = list[:(n+3)/4]
	}
	return list
}

// choose returns up to n different numbers from 1 to last.
func choose(r *rand.Rand, last, n int) []int {
	list := r.Perm(last)[:min(last, n)]
	for i := range list {
		list[i]++
	}
	slices.Sort(list)
	return list
}

func diff(want, got []string) string {
	var out string
	for _, l := range want {
		if !slices.Contains(got, l) {
			out += fmt.Sprintf("\n- %s", l)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			out += fmt.Sprintf("\n+ %s", l)
		}
	}
	return out
}
