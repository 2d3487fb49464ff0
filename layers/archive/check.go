package archive

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers"
)

// checkable is content that can leave the verification to who has written it.
type checkable interface {
	io.WriterTo // verifies
	WriteUnverified(w io.Writer) (int64, error)
	Digest() digest.Digest
}

const (
	// checkMin is the size from which on content is checked beside the writing.
	checkMin = 1 << 20
	// writebackStep is how much is written before the kernel is asked to begin with its
	// way to the disk.
	writebackStep = 8 << 20
)

// A checker compares the digests of what is written to a file while more is written:
// several layers at once, each from its beginning on, from the very pages that go to the
// disk. So the writing waits for no hash, and a hash for nothing but the bytes.
type checker struct {
	ctx   context.Context
	stop  context.CancelFunc
	slots chan struct{} // one for each check that may run
	wg    sync.WaitGroup

	mu  sync.Mutex // guards err
	err error      // the first
}

func newChecker(ctx context.Context) *checker {
	c := &checker{slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
	c.ctx, c.stop = context.WithCancel(ctx)
	return c
}

// canCheck reports whether what is written to a file can be read back from where it was
// written.
func canCheck(f *os.File) bool {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDWR && flags&unix.O_APPEND == 0
}

// write writes size bytes of content to f, which canCheck; wait says whether they are
// right.
func (c *checker) write(f *os.File, from checkable, size int64) (int64, error) {
	if err := c.failed(); err != nil {
		return 0, err
	}
	if size < checkMin {
		return from.WriteTo(f)
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	w := &checkedWriter{f: f, start: at}
	w.moved.L = &w.mu
	c.wg.Go(func() {
		if err := c.check(w, size, from.Digest()); err != nil {
			c.fail(err)
		}
	})
	n, err := from.WriteUnverified(w)
	w.end()
	if err == nil && w.n != size {
		err = fmt.Errorf("%w: %s has %d bytes instead of %d; run `layerfs check`", layers.ErrDamaged, from.Digest(), w.n, size)
	}
	return n, err
}

// check hashes what w writes.
func (c *checker) check(w *checkedWriter, size int64, want digest.Digest) error {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	h := sha256.New()
	for done := int64(0); done < size; {
		n := w.wait(done) - done
		if n <= 0 {
			return nil // who writes knows why
		}
		n = min(n, size-done)
		if err := layers.HashFile(c.ctx, h, w.f, w.start+done, n); err != nil {
			return fmt.Errorf("reading what was written of %s: %w", want, err)
		}
		done += n
	}
	if got := digest.NewDigest(digest.SHA256, h); got != want {
		return fmt.Errorf("%w: %s comes out with the digest %s; run `layerfs check`", layers.ErrDamaged, want, got)
	}
	return nil
}

func (c *checker) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

func (c *checker) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// wait returns when all that was written is checked, with the first error.
func (c *checker) wait() error {
	c.wg.Wait()
	return c.failed()
}

// close ends all checks. What is checked must not be closed before.
func (c *checker) close() {
	c.stop()
	c.wg.Wait()
}

// A checkedWriter writes to a file, tells how far it has come, and sends what it has
// written on its way to the disk.
type checkedWriter struct {
	f     *os.File
	start int64 // where in the file it began
	sent  int64 // to the disk; belongs to who writes

	mu    sync.Mutex // guards n and ended
	moved sync.Cond
	n     int64
	ended bool
}

// Write implements io.Writer.
func (w *checkedWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.wrote(int64(n))
	return n, err
}

// ReadFrom implements io.ReaderFrom: from another file the kernel copies.
func (w *checkedWriter) ReadFrom(r io.Reader) (int64, error) {
	n, err := w.f.ReadFrom(r)
	w.wrote(n)
	return n, err
}

func (w *checkedWriter) wrote(n int64) {
	w.mu.Lock()
	w.n += n
	total := w.n
	w.mu.Unlock()
	w.moved.Signal()
	if total-w.sent >= writebackStep {
		// It promises nothing: errors are left to the sync, which reports them.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.start+w.sent, total-w.sent, unix.SYNC_FILE_RANGE_WRITE)
		w.sent = total
	}
}

func (w *checkedWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.moved.Signal()
}

// wait returns how much was written, when that is more than done or the end.
func (w *checkedWriter) wait(done int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.n <= done && !w.ended {
		w.moved.Wait()
	}
	return w.n
}
