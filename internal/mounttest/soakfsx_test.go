package mounttest_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// fsxLimit is how large the files are that fsx works on.
const fsxLimit = 1 << 20

// An fsx changes one file at random and holds it against what it must contain, as the program of that name does: it
// writes, truncates, maps, punches holes, appends, syncs, renames and opens again, and compares after each step.
type fsx struct {
	rnd    *rand.Rand
	path   string
	f      *os.File
	model  []byte
	log    []string // the last steps
	counts map[string]int
	// untouched says that the image's file must be as it was made.
	untouched bool
}

// runFSX works on new files and on the image's file until the time is over.
func runFSX(job soakJob, counts map[string]int) error {
	w := &fsx{rnd: rand.New(rand.NewPCG(job.Seed, 1)), counts: counts, untouched: job.First}
	for end := time.Now().Add(job.For); time.Now().Before(end); {
		name := fmt.Sprintf("fsx-%d-%d", os.Getpid(), w.rnd.IntN(4))
		if w.rnd.IntN(4) == 0 {
			name = "lower" // of the image, as long as nobody has changed it
		}
		if err := w.file(filepath.Join(job.Dir, name), end); err != nil {
			return fmt.Errorf("%w; the last steps:\n%v", err, w.log)
		}
	}
	return nil
}

// file works on one file for some hundred steps.
func (w *fsx) file(path string, end time.Time) (err error) {
	w.path = path
	w.note("open", 0, 0)
	if w.f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.f.Close()) }()
	if w.model, err = os.ReadFile(path); err != nil {
		return err
	}
	if w.untouched && filepath.Base(path) == "lower" && !bytes.Equal(w.model, pattern(0, 200_000)) {
		return fmt.Errorf("%s: the image's file is not what it was made as", path)
	}
	if filepath.Base(path) == "lower" {
		w.untouched = false
	}
	for i := 0; i < 300 && time.Now().Before(end); i++ {
		if err := w.step(); err != nil {
			return err
		}
		info, err := w.f.Stat()
		if err != nil {
			return err
		}
		if info.Size() != int64(len(w.model)) {
			return fmt.Errorf("%s: size %d, want %d", w.path, info.Size(), len(w.model))
		}
	}
	if err := w.whole(); err != nil {
		return err
	}
	if filepath.Base(path) != "lower" && w.rnd.IntN(2) == 0 {
		return os.Remove(w.path)
	}
	return nil
}

// note remembers a step for the report of an error.
func (w *fsx) note(what string, off, n int) {
	w.counts["fsx "+what]++
	if w.log = append(w.log, fmt.Sprintf("%s %s %d+%d (of %d)\n", filepath.Base(w.path), what, off, n, len(w.model))); len(w.log) > 60 {
		w.log = w.log[20:]
	}
}

// step does one thing.
func (w *fsx) step() error {
	off := w.rnd.IntN(fsxLimit)
	if w.rnd.IntN(2) == 0 {
		off = w.rnd.IntN(len(w.model) + 1)
	}
	n := 1 + w.rnd.IntN(min(fsxLimit-off, 1<<(1+w.rnd.IntN(17))))
	switch w.rnd.IntN(16) {
	case 0, 1, 2:
		return w.write(off, n)
	case 3, 4, 5:
		return w.read(off, n)
	case 6:
		return w.truncate(off)
	case 7:
		return w.mapped(off, n, false)
	case 8, 9:
		return w.mapped(off, n, true)
	case 10:
		return w.hole(off, n)
	case 11:
		return w.appended(n)
	case 12:
		w.note("sync", 0, 0)
		if w.rnd.IntN(2) == 0 {
			return w.f.Sync()
		}
		return unix.Fdatasync(int(w.f.Fd()))
	case 13:
		return w.reopen()
	case 14:
		return w.copied(off, n)
	}
	return w.whole()
}

// fresh returns bytes that were not there before.
func (w *fsx) fresh(n int) []byte {
	p := make([]byte, n)
	x := w.rnd.Uint64()
	for i := range p {
		p[i] = byte(x>>(8*(i%8))) ^ byte(i>>3)
	}
	return p
}

// put changes the model as a write does.
func (w *fsx) put(off int, p []byte) {
	if need := off + len(p); need > len(w.model) {
		w.model = append(w.model, make([]byte, need-len(w.model))...)
	}
	copy(w.model[off:], p)
}

func (w *fsx) write(off, n int) error {
	w.note("write", off, n)
	p := w.fresh(n)
	if _, err := w.f.WriteAt(p, int64(off)); err != nil {
		return err
	}
	w.put(off, p)
	return nil
}

// same compares what was read with the model.
func (w *fsx) same(what string, got []byte, off int) error {
	want := w.model[min(off, len(w.model)):min(off+len(got), len(w.model))]
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("%s: %s at %d: byte %d is %#x, want %#x", w.path, what, off, off+i, got[i], want[i])
		}
	}
	return fmt.Errorf("%s: %s at %d: %d bytes, want %d", w.path, what, off, len(got), len(want))
}

func (w *fsx) read(off, n int) error {
	w.note("read", off, n)
	p := make([]byte, n)
	got, err := w.f.ReadAt(p, int64(off))
	if want := max(0, min(n, len(w.model)-off)); got != want {
		return fmt.Errorf("%s: read at %d: %d bytes, want %d: %v", w.path, off, got, want, err)
	}
	return w.same("read", p[:got], off)
}

// whole reads the file by another descriptor.
func (w *fsx) whole() error {
	w.note("whole", 0, len(w.model))
	got, err := os.ReadFile(w.path)
	if err != nil {
		return err
	}
	if len(got) != len(w.model) {
		return fmt.Errorf("%s: it reads as %d bytes, want %d", w.path, len(got), len(w.model))
	}
	return w.same("whole", got, 0)
}

func (w *fsx) truncate(size int) error {
	w.note("truncate", size, 0)
	if err := w.f.Truncate(int64(size)); err != nil {
		return err
	}
	if size <= len(w.model) {
		w.model = w.model[:size:size]
		return nil
	}
	w.put(size, nil)
	return nil
}

// mapped reads or changes a piece of the file through a shared mapping.
func (w *fsx) mapped(off, n int, change bool) error {
	n = min(n, len(w.model)-off)
	if n <= 0 {
		return nil
	}
	prot := unix.PROT_READ
	if change {
		prot |= unix.PROT_WRITE
	}
	page := os.Getpagesize()
	front := off % page
	m, err := unix.Mmap(int(w.f.Fd()), int64(off-front), n+front, prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("%s: mmap at %d: %w", w.path, off-front, err)
	}
	defer unix.Munmap(m)
	if !change {
		w.note("mapread", off, n)
		return w.same("map", m[front:], off)
	}
	w.note("mapwrite", off, n)
	p := w.fresh(n)
	copy(m[front:], p)
	w.put(off, p)
	if w.rnd.IntN(3) == 0 {
		return unix.Msync(m, unix.MS_SYNC)
	}
	return nil
}

// hole punches a hole, or allocates.
func (w *fsx) hole(off, n int) error {
	mode, what := uint32(0), "allocate"
	switch w.rnd.IntN(3) {
	case 0:
		mode, what = unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, "punch"
	case 1:
		mode, what = unix.FALLOC_FL_KEEP_SIZE, "keep"
	}
	w.note(what, off, n)
	err := unix.Fallocate(int(w.f.Fd()), mode, int64(off), int64(n))
	if errors.Is(err, unix.EOPNOTSUPP) { // by the file system below
		w.counts["fsx "+what+" not supported"]++
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: fallocate %#x: %w", w.path, mode, err)
	}
	switch what {
	case "punch":
		if end := min(off+n, len(w.model)); off < end {
			clear(w.model[off:end])
		}
	case "allocate":
		w.put(off+n, nil)
	}
	return nil
}

// appended appends by a descriptor that does nothing else.
func (w *fsx) appended(n int) error {
	if len(w.model)+n > fsxLimit {
		return nil
	}
	w.note("append", len(w.model), n)
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	p := w.fresh(n)
	_, err = f.Write(p)
	w.put(len(w.model), p)
	return errors.Join(err, f.Close())
}

// reopen closes the file and opens it again, perhaps under another name.
func (w *fsx) reopen() error {
	w.note("reopen", 0, 0)
	if w.rnd.IntN(2) == 0 && filepath.Base(w.path) != "lower" {
		to := w.path + "r"
		if len(to) > len(filepath.Dir(w.path))+60 {
			to = filepath.Join(filepath.Dir(w.path), fmt.Sprintf("fsx-%d-%d", os.Getpid(), w.rnd.IntN(4)))
		}
		if err := os.Rename(w.path, to); err != nil {
			return err
		}
		w.path = to
	}
	if err := w.f.Close(); err != nil {
		return err
	}
	f, err := os.OpenFile(w.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	w.f = f
	return nil
}

// copied copies a piece inside the file by copy_file_range.
func (w *fsx) copied(from, n int) error {
	n = min(n, len(w.model)-from)
	to := w.rnd.IntN(fsxLimit)
	n = min(n, fsxLimit-to)
	if n <= 0 || from < to+n && to < from+n {
		return nil
	}
	w.note("copy", from, n)
	src, dst := int64(from), int64(to)
	for left := n; left > 0; {
		got, err := unix.CopyFileRange(int(w.f.Fd()), &src, int(w.f.Fd()), &dst, left, 0)
		if err != nil {
			return fmt.Errorf("%s: copy_file_range: %w", w.path, err)
		}
		if got == 0 {
			return fmt.Errorf("%s: copy_file_range has copied %d of %d bytes", w.path, n-left, n)
		}
		left -= got
	}
	w.put(to, bytes.Clone(w.model[from:from+n]))
	return nil
}
