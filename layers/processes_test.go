package layers

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	processesFor = flag.Duration("processes.for", 4*time.Second, "how long TestProcesses works")
	// A process that has to wait for a processor also waits longer for a lock. The
	// limit is for a machine with other work; measure with less on an idle one.
	processesWait = flag.Duration("processes.wait", 2*time.Second, "how long a reader may wait in TestProcesses")
)

const workerVariable = "LAYERFS_TEST_WORKER"

// TestProcesses lets eight processes create, tag, list, delete, load and collect in
// one store, beside two that read layers all the time, and kills others while they do
// the same. There is no error but those that what the others do explains, no update is
// lost, no reader waits long, and in the end the store is sound and exact.
func TestProcesses(t *testing.T) {
	s := newStore(t)
	base := load(t, s, image(t, archive(t, file("base", "base"))), "base:1")
	end := strconv.FormatInt(time.Now().Add(*processesFor).UnixNano(), 10)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var waits []time.Duration
	var owned []string
	for i := range 10 {
		role := "work"
		if i >= 8 {
			role = "read"
		}
		cmd := worker(t, s, role, i, end)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		wg.Add(1)
		go func() {
			defer wg.Done()
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				word, rest, _ := strings.Cut(lines.Text(), " ")
				mu.Lock()
				switch word {
				case "wait":
					n, _ := strconv.ParseInt(rest, 10, 64)
					waits = append(waits, time.Duration(n))
				case "own":
					owned = append(owned, rest)
				default:
					t.Errorf("worker %d: %s", i, lines.Text())
				}
				mu.Unlock()
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("worker %d: %v", i, err)
			}
		}()
	}
	killed := killWorkers(t, s, end)
	wg.Wait()
	slices.Sort(waits)
	t.Logf("%d processes killed; %d reads, the longest waited %v, of 1000 the slowest %v", killed, len(waits), waits[len(waits)-1], waits[len(waits)*999/1000])
	if worst := waits[len(waits)-1]; worst > *processesWait {
		t.Errorf("a reader waited %v", worst)
	}
	wantUpdates(t, s, base, owned)
	if _, err := s.GC(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	wantExact(t, s)
}

func worker(t *testing.T, s *Store, role string, i int, end string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestWorker$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s %s", workerVariable, role, i, end, s.root))
	cmd.Stderr = os.Stderr
	return cmd
}

// killWorkers starts one process after the other and kills it after a while.
func killWorkers(t *testing.T, s *Store, end string) (n int) {
	ns, _ := strconv.ParseInt(end, 10, 64)
	for time.Now().Before(time.Unix(0, ns)) {
		cmd := worker(t, s, "work", 100+n, end)
		must(t, cmd.Start())
		time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGKILL) // unless it has ended
		_ = cmd.Wait()
		n++
	}
	return n
}

// wantUpdates checks that what each process has done to its own names and its own
// flag of a common image is there.
func wantUpdates(t *testing.T, s *Store, base *Image, owned []string) {
	t.Helper()
	img, err := s.Image(t.Context(), string(base.ID))
	must(t, err)
	for _, line := range owned {
		f := strings.Fields(line) // worker, count of the flag, name, yes or no
		if img.Flags["w"+f[0]] != f[1] {
			t.Errorf("worker %s has set its flag to %s, but it is %q", f[0], f[1], img.Flags["w"+f[0]])
		}
		_, err := s.Image(t.Context(), f[2])
		if (err == nil) != (f[3] == "true") {
			t.Errorf("worker %s: name %s is there: %s, but got %v", f[0], f[2], f[3], err)
		}
	}
}

func workerTars(t testing.TB) (tars [][]byte) {
	for i := range 6 {
		var members []member
		for j := range 5 {
			k := 3*i + j
			members = append(members, file(fmt.Sprintf("f%d", j), strings.Repeat(fmt.Sprintf("body %d ", k), []int{3, 300, 1500, 9000, 40_000}[k%5])))
		}
		tars = append(tars, archive(t, members...))
	}
	return tars
}

// TestWorker is one of the processes of TestProcesses.
func TestWorker(t *testing.T) {
	f := strings.Fields(os.Getenv(workerVariable))
	if len(f) != 4 {
		t.Skip("is run by TestProcesses")
	}
	n, _ := strconv.Atoi(f[1])
	ns, _ := strconv.ParseInt(f[2], 10, 64)
	s, err := Open(f[3], nil)
	must(t, err)
	w := &workerProcess{t: t, s: s, n: n, r: rand.New(rand.NewPCG(uint64(n), 8)), end: time.Unix(0, ns)}
	if f[0] == "read" {
		w.read()
	} else {
		w.work()
	}
	must(t, s.Close())
	os.Exit(0) // the output is for the test that has started us
}

type workerProcess struct {
	t    *testing.T
	s    *Store
	n    int
	r    *rand.Rand
	end  time.Time
	flag int
	has  map[string]bool
}

// say tells an error that nothing explains.
func (w *workerProcess) say(what string, err error) {
	for _, a := range allowedErrors {
		if err == nil || errors.Is(err, a) {
			return
		}
	}
	fmt.Printf("error %s: %s\n", what, strings.ReplaceAll(err.Error(), "\n", " | "))
}

func (w *workerProcess) name(kind string) string { return fmt.Sprintf("%s%d", kind, w.r.IntN(4)) }

func (w *workerProcess) work() {
	tars := workerTars(w.t)
	w.has = map[string]bool{}
	for time.Now().Before(w.end) {
		w.own()
		w.common(tars)
	}
	for name, has := range w.has {
		fmt.Printf("own %d %d %s %v\n", w.n, w.flag, name, has)
	}
}

// own changes what only this process changes.
func (w *workerProcess) own() {
	ctx := context.Background()
	w.flag++
	if err := w.s.SetFlag(ctx, "base:1", fmt.Sprintf("w%d", w.n), strconv.Itoa(w.flag)); err != nil {
		fmt.Printf("error flag: %v\n", err)
	}
	name := fmt.Sprintf("own-%d-%d:1", w.n, w.r.IntN(5))
	var err error
	if w.has[name] {
		_, err = w.s.Untag(ctx, name)
	} else {
		err = w.s.Tag(ctx, "base:1", name)
	}
	if err != nil {
		fmt.Printf("error %s: %v\n", name, err)
	}
	w.has[name] = !w.has[name]
}

func (w *workerProcess) common(tars [][]byte) {
	ctx, s := context.Background(), w.s
	var err error
	what := ""
	switch w.r.IntN(9) {
	case 0, 1, 2:
		stack := [][]byte{tars[w.r.IntN(3)]}
		for range w.r.IntN(3) {
			stack = append(stack, tars[w.r.IntN(6)])
		}
		what = "load"
		_, err = s.Load(ctx, image(w.t, stack...), &LoadOptions{Names: []string{w.name("image")}, DropBlobs: w.r.IntN(2) == 0})
	case 3:
		what = "tag"
		err = s.Tag(ctx, w.name("image"), w.name("image"))
	case 4:
		what = "rmi"
		_, err = s.Remove(ctx, w.name("image"), &RemoveOptions{Force: true})
	case 5:
		what = "create"
		_, err = s.CreateContainer(ctx, &ContainerOptions{Image: w.name("image"), Names: []string{w.name("box")}})
	case 6:
		what = "rm"
		_, err = s.DeleteContainer(ctx, w.name("box"), true)
	case 7:
		what = "layer"
		_, err = s.CreateLayerFrom(ctx, &CreateLayerOptions{Names: []string{w.name("layer")}}, strings.NewReader(string(tars[w.r.IntN(6)])), nil)
		w.say(what, err)
		what = "layer rm"
		_, err = s.DeleteLayer(ctx, w.name("layer"), false)
	case 8:
		what = "gc"
		_, err = s.GC(ctx, w.r.IntN(3) == 0)
	}
	w.say(what, err)
}

// read lists the store and reads whole layers, as a mount does, and says how long it
// had to wait for the index.
func (w *workerProcess) read() {
	ctx := context.Background()
	// Once at least, however long the start took.
	for first := true; first || time.Now().Before(w.end); first = false {
		start := time.Now()
		list, err := w.s.Layers(ctx)
		fmt.Printf("wait %d\n", time.Since(start))
		w.say("layers", err)
		_, err = w.s.Images(ctx)
		w.say("images", err)
		if len(list) == 0 {
			continue
		}
		l, err := w.s.OpenLayer(DiffID(list[w.r.IntN(len(list))].DiffID))
		w.say("open", err)
		if err != nil {
			continue
		}
		time.Sleep(time.Duration(w.r.IntN(20)) * time.Millisecond) // somebody may remove it now
		h := digest.SHA256.Digester()
		tar, err := l.Tar()
		if err == nil {
			_, err = tar.WriteTo(h.Hash())
		}
		if err == nil && h.Digest() != digest.Digest(l.DiffID) {
			err = fmt.Errorf("layer %s comes out as %s", l.DiffID, h.Digest())
		}
		w.say("read", errors.Join(err, l.Close()))
		w.s.CollectPending(ctx)
	}
}
