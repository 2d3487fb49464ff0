package mounttest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/layerfs/layerfs/internal/treetest"
)

// A footprint is what a serving process holds.
type footprint struct {
	what       string
	pid        int
	anonymous  int64 // KiB of memory that is not of files
	fds        int
	threads    int64
	locks      int
	goroutines int // of the process that serves the store; 0 for others
}

func (f footprint) String() string {
	return fmt.Sprintf("%s: %d KiB anonymous, %d descriptors, %d threads, %d locks, %d goroutines", f.what, f.anonymous, f.fds, f.threads, f.locks, f.goroutines)
}

// footprintLimits is by how much each figure of a footprint may be larger after the work than before. A process at
// rest differs by what its caches (of descriptors of large files and directories, too), the collector of garbage and the kernel's memory of inodes happen to hold.
var footprintLimits = footprint{anonymous: 48 << 10, fds: 64, threads: 16, locks: 4, goroutines: 8}

// beyond says in which figure f is larger than before by more than the limits, or "".
func (f footprint) beyond(before footprint) string {
	switch {
	case f.anonymous > before.anonymous+footprintLimits.anonymous:
		return "anonymous memory"
	case f.fds > before.fds+footprintLimits.fds:
		return "descriptors"
	case f.threads > before.threads+footprintLimits.threads:
		return "threads"
	case f.locks > before.locks+footprintLimits.locks:
		return "locks"
	case f.goroutines > before.goroutines+footprintLimits.goroutines:
		return "goroutines"
	}
	return ""
}

// sample returns the footprints of all serving processes, after the work was removed: a process keeps descriptors of
// some hundred files that the kernel knows, which would hide what it forgets to close.
func (k *soak) sample() []footprint {
	k.t.Helper()
	for _, p := range k.places {
		if err := as(k.account, func() error { return removeBelow(filepath.Join(p.dir, "work"), filepath.Join(p.dir, "fsx")) }); err != nil {
			k.t.Fatalf("%s: %v", p.what, err)
		}
	}
	time.Sleep(500 * time.Millisecond) // what was closed and forgotten last gets through
	var list []footprint
	for _, p := range k.places {
		f, err := footprintOf(k.server(p.mount))
		if err != nil {
			k.t.Fatal(err)
		}
		f.what = p.what
		if p.args == nil {
			f.goroutines = k.goroutines()
		}
		list = append(list, f)
	}
	return list
}

// removeBelow empties directories.
func removeBelow(dirs ...string) error {
	for _, dir := range dirs {
		list, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// goroutines reads the number from the status of the store's mount.
func (k *soak) goroutines() int {
	k.t.Helper()
	var text []byte
	err := as(k.account, func() (err error) {
		text, err = os.ReadFile(filepath.Join(k.mnt, ".layerfs/status.json"))
		return err
	})
	var status struct{ Goroutines int }
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	if err != nil || status.Goroutines == 0 {
		k.t.Errorf("status.json: %d goroutines, %v", status.Goroutines, err)
	}
	return status.Goroutines
}

// footprintOf reads what /proc knows of a process.
func footprintOf(pid int) (f footprint, err error) {
	f.pid = pid
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "RssAnon: %d kB", &f.anonymous)
		_, _ = fmt.Sscanf(line, "Threads: %d", &f.threads)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return f, err
	}
	f.fds = len(fds)
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(locks)) {
		if words := strings.Fields(line); len(words) > 4 && words[4] == fmt.Sprint(pid) {
			f.locks++
		}
	}
	if f.anonymous == 0 || f.threads == 0 {
		return f, fmt.Errorf("process %d: /proc says %q", pid, status)
	}
	return f, nil
}

// compare wants that no process holds more than before. A process may take a while to let go.
func (k *soak) compare(before, after []footprint) {
	k.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; after = k.sample() {
		beyond := ""
		for i := range before {
			beyond += after[i].beyond(before[i])
		}
		if beyond == "" || time.Now().After(end) {
			break
		}
	}
	for i, b := range before {
		k.t.Logf("before: %v", b)
		k.t.Logf("after:  %v", after[i])
		if what := after[i].beyond(b); what != "" {
			k.t.Errorf("%s: the process %d has grown: %s", b.what, after[i].pid, what)
		}
		if after[i].pid != b.pid && os.Getenv("LAYERFS_TEST_SOAK_KILL") == "" {
			k.t.Errorf("%s: process %d has become %d", b.what, b.pid, after[i].pid)
		}
	}
}

// listFiles writes down what a tree holds, for the readers.
func (k *soak) listFiles(snap *treetest.Snapshot) string {
	k.t.Helper()
	subdirs := snap.Subdirs()
	var list []readerFile
	for p, e := range snap.Entries {
		if !e.Unreadable {
			list = append(list, readerFile{Path: p, Kind: e.Kind.String(), Size: e.Size, Link: e.Target, Sum: e.Sum, Subdirs: subdirs[p]})
		}
	}
	name := filepath.Join(filepath.Dir(k.root), "files.json")
	if err := os.WriteFile(name, mustJSON(list), 0o644); err != nil {
		k.t.Fatal(err)
	}
	return name
}
