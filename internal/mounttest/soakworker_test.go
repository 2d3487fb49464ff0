package mounttest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/layerfs/layerfs/internal/treetest"
)

// soakVariable makes the test program a worker of the soak; it holds the job.
const soakVariable = "LAYERFS_TEST_SOAK_WORKER"

// A soakJob is what one worker does.
type soakJob struct {
	Kind, Dir, What string
	List            string // of what "read" reads
	First           bool   // nobody has worked there yet
	Seed            uint64
	For             time.Duration
}

// soakWorker does a job and prints how often it did what.
func soakWorker(text string) int {
	var job soakJob
	counts := map[string]int{}
	err := json.Unmarshal([]byte(text), &job)
	if err == nil {
		work := map[string]func(soakJob, map[string]int) error{"fsx": runFSX, "stress": runStress, "read": runRead}
		err = work[job.Kind](job, counts)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(counts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A readerFile is what a path of an image must be.
type readerFile struct {
	Path, Kind, Link string
	Size             int64
	Sum              [sha256.Size]byte
	Subdirs          int
}

// runRead reads at random in a tree that nobody changes.
func runRead(job soakJob, counts map[string]int) error {
	var files []readerFile
	text, err := os.ReadFile(job.List)
	if err == nil {
		err = json.Unmarshal(text, &files)
	}
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(job.Seed, 3))
	for end := time.Now().Add(job.For); time.Now().Before(end); {
		f := files[r.IntN(len(files))]
		if err := f.check(r, filepath.Join(job.Dir, f.Path)); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		counts["image "+f.Kind]++
	}
	return nil
}

func (f readerFile) check(r *rand.Rand, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	switch f.Kind {
	case treetest.Regular.String():
		if info.Size() != f.Size {
			return fmt.Errorf("size %d, want %d", info.Size(), f.Size)
		}
		return f.read(r, path)
	case treetest.Symlink.String():
		if got, err := os.Readlink(path); err != nil || got != f.Link {
			return fmt.Errorf("link to %q, want %q: %w", got, f.Link, err)
		}
	case treetest.Directory.String():
		list, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.IsDir() {
				f.Subdirs--
			}
		}
		if f.Subdirs != 0 {
			return fmt.Errorf("%d directories too few", f.Subdirs)
		}
	}
	return nil
}

// read reads all of the file, in pieces of any size, and then some of it again.
func (f readerFile) read(r *rand.Rand, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	all, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if sha256.Sum256(all) != f.Sum {
		return fmt.Errorf("other content than at first, %d bytes", len(all))
	}
	for range 4 {
		if len(all) == 0 {
			return nil
		}
		off := r.IntN(len(all))
		p := make([]byte, 1+r.IntN(len(all)-off))
		if _, err := in.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, all[off:off+len(p)]) {
			return fmt.Errorf("%d bytes at %d: other content than in the whole, or %w", len(p), off, err)
		}
	}
	return nil
}
