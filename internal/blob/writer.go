package blob

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/layerfs/layerfs/internal/disk"
)

const (
	batchBytes = 2 << 20 // small bodies are written together, this many bytes
	batchItems = 4096    // and this many bodies at most
	wholeMax   = 4 << 20 // bodies up to this size are hashed before anything is written
	streamSize = 1 << 20 // larger ones are written in pieces of this size
	holeSize   = 64 << 10
)

// BodyWriter takes bodies into an ingest. It is for one goroutine; it needs up
// to 7 MiB of memory.
type BodyWriter struct {
	in     *Ingest
	closed bool

	// Small bodies that were read but not stored: their bytes back to back, one
	// item each, and what the index said about those that it was asked about.
	batch []byte
	items []item

	sums  []Sum  // scratch for questions
	large []byte // scratch for a body that is not small
}

// item is a small body at batch[start:start+size].
type item struct {
	sum   Sum
	start int
	size  int
	skip  bool // is or will be stored otherwise
}

// Writer returns a new writer. The caller closes it before Commit.
func (in *Ingest) Writer() *BodyWriter {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.writers++
	return &BodyWriter{in: in}
}

// Put reads exactly size bytes, at least one, and makes them a body of the
// ingest. Input that ends early is io.ErrUnexpectedEOF. After an error of the
// input the writer can go on; after any other the ingest can only be aborted,
// and Commit says so. The body is stored when Close and Commit have returned.
func (w *BodyWriter) Put(r io.Reader, size int64) (Sum, error) {
	switch {
	case w.closed:
		return Sum{}, errUsed
	case size <= 0:
		return Sum{}, fmt.Errorf("body of %d bytes: there is nothing to store", size)
	case size < ObjectMin:
		return w.putSmall(r, int(size))
	case size <= wholeMax:
		return w.putWhole(r, int(size))
	}
	return w.putStream(r, size)
}

// Close stores what was put and not yet stored. It must be called before
// Commit; a second call does nothing.
func (w *BodyWriter) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	err := w.flush()
	w.batch, w.items, w.sums, w.large = nil, nil, nil, nil
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	w.in.writers--
	return err
}

// readFull fills p and calls every early end unexpected.
func readFull(r io.Reader, p []byte) error {
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("body ends after %d of %d bytes: %w", n, len(p), err)
	}
	return nil
}

// putSmall reads a body into the batch.
func (w *BodyWriter) putSmall(r io.Reader, size int) (Sum, error) {
	if w.batch == nil {
		w.batch = make([]byte, 0, batchBytes)
		w.items = make([]item, 0, 256)
	}
	if len(w.batch)+size > cap(w.batch) || len(w.items) == batchItems {
		if err := w.flush(); err != nil {
			return Sum{}, err
		}
	}
	start := len(w.batch)
	body := w.batch[start : start+size]
	if err := readFull(r, body); err != nil {
		return Sum{}, err
	}
	sum := Sum(sha256.Sum256(body))
	w.batch = w.batch[:start+size]
	w.items = append(w.items, item{sum: sum, start: start, size: size})
	return sum, nil
}

// flush appends the unknown bodies of the batch to the pack.
func (w *BodyWriter) flush() error {
	defer func() { w.batch, w.items = w.batch[:0], w.items[:0] }()
	if err := w.skipKnown(); err != nil {
		return w.in.fail(err)
	}
	off, n, err := w.claimBatch()
	if err != nil || n == 0 {
		return err // claimBatch has told the ingest
	}
	f, err := w.in.pack()
	if err == nil {
		_, err = f.WriteAt(w.compact(), off)
	}
	if err != nil {
		return w.in.fail(err)
	}
	f.StartWriteback(off, n)
	return nil
}

// skipKnown marks the items that the ingest or the index has.
func (w *BodyWriter) skipKnown() error {
	w.sums = w.sums[:0]
	w.in.mu.Lock()
	for i := range w.items {
		it := &w.items[i]
		it.skip = w.in.reuseClaimedLocked(it.sum, int64(it.size))
		if !it.skip {
			w.sums = append(w.sums, it.sum)
		}
	}
	w.in.mu.Unlock()
	if len(w.sums) == 0 {
		return nil
	}
	found, err := w.in.ask(w.sums)
	if err != nil {
		return err
	}
	next := 0
	for i := range w.items {
		it := &w.items[i]
		if it.skip {
			continue
		}
		if it.skip = found[next]; it.skip {
			w.in.reuse(int64(it.size))
		}
		next++
	}
	return nil
}

// claimBatch claims the items that are not skipped and returns the part of the
// pack that is theirs. Items that were claimed since, or that are twice in the
// batch, are skipped.
func (w *BodyWriter) claimBatch() (off, n int64, err error) {
	in := w.in
	in.mu.Lock()
	defer in.mu.Unlock()
	off = in.packSize
	for i := range w.items {
		it := &w.items[i]
		if it.skip {
			continue
		}
		if it.skip = in.reuseClaimedLocked(it.sum, int64(it.size)); it.skip {
			continue
		}
		if err := in.claimLocked(it.sum, claim{size: int64(it.size), offset: in.packSize}); err != nil {
			return 0, 0, err
		}
		in.packSize += int64(it.size)
	}
	return off, in.packSize - off, nil
}

// compact moves the items that are not skipped together and returns them.
func (w *BodyWriter) compact() []byte {
	n := 0
	for i := range w.items {
		if it := &w.items[i]; !it.skip {
			n += copy(w.batch[n:], w.batch[it.start:it.start+it.size])
		}
	}
	return w.batch[:n]
}

// scratch returns n bytes of memory, valid until the next call.
// Preconditions: n <= wholeMax.
func (w *BodyWriter) scratch(n int) []byte {
	if len(w.large) < n {
		w.large = make([]byte, (n+streamSize-1)/streamSize*streamSize)
	}
	return w.large[:n]
}

// putWhole hashes a body in memory and stores it when it is not known.
func (w *BodyWriter) putWhole(r io.Reader, size int) (Sum, error) {
	body := w.scratch(size)
	if err := readFull(r, body); err != nil {
		return Sum{}, err
	}
	sum := Sum(sha256.Sum256(body))
	if known, err := w.isKnown(sum, int64(size)); err != nil || known {
		return sum, err
	}
	n := w.in.nextObject()
	if mine, err := w.in.claimObject(sum, int64(size), n); err != nil || !mine {
		return sum, err
	}
	err := w.stage(n, func(f *disk.File) error { return writeSparse(f, body, 0, int64(size)) })
	if err != nil {
		return sum, w.in.fail(err)
	}
	return sum, nil
}

// isKnown asks the ingest and the index about one body, and counts it when it
// is known.
func (w *BodyWriter) isKnown(sum Sum, size int64) (bool, error) {
	if w.in.reuseClaimed(sum, size) {
		return true, nil
	}
	w.sums = append(w.sums[:0], sum)
	found, err := w.in.ask(w.sums)
	if err != nil {
		return false, w.in.fail(err)
	}
	if found[0] {
		w.in.reuse(size)
	}
	return found[0], nil
}

// stage creates staged object n, has it filled, and starts its way to the disk.
func (w *BodyWriter) stage(n uint64, fill func(f *disk.File) error) error {
	f, err := w.in.store.disk.Create(w.in.stagedObject(n), fileMode)
	if err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return errors.Join(err, f.Close())
	}
	f.StartWriteback(0, 0)
	return f.Close()
}

// putStream stages a body while hashing it and drops the staged file when the
// body turns out to be known.
func (w *BodyWriter) putStream(r io.Reader, size int64) (Sum, error) {
	n := w.in.nextObject()
	var sum Sum
	var inputErr error
	err := w.stage(n, func(f *disk.File) error {
		var err error
		sum, inputErr, err = w.copyHashed(f, r, size)
		return err
	})
	if err != nil {
		return Sum{}, w.in.fail(err)
	}
	known := false
	if inputErr == nil {
		if known, err = w.isKnown(sum, size); err != nil {
			return Sum{}, err
		}
		if !known {
			mine, err := w.in.claimObject(sum, size, n)
			if err != nil || mine {
				return sum, err
			}
			known = true
		}
	}
	if err := w.in.store.remove(w.in.stagedObject(n)); err != nil {
		return Sum{}, w.in.fail(err)
	}
	return sum, inputErr
}

// copyHashed copies size bytes to f. What goes wrong with the input is
// inputErr.
func (w *BodyWriter) copyHashed(f *disk.File, r io.Reader, size int64) (sum Sum, inputErr, err error) {
	h := sha256.New()
	for off := int64(0); off < size; {
		p := w.scratch(int(min(streamSize, size-off)))
		if err := readFull(r, p); err != nil {
			return sum, err, nil
		}
		h.Write(p)
		if err := writeSparse(f, p, off, size); err != nil {
			return sum, nil, err
		}
		off += int64(len(p))
		if off%(8*streamSize) == 0 {
			f.StartWriteback(off-8*streamSize, 8*streamSize)
		}
	}
	h.Sum(sum[:0])
	return sum, nil, nil
}

// zeros is what a hole reads as.
var zeros [holeSize]byte

// writeSparse writes the part p at off of a fresh file that shall have size
// bytes in the end, and leaves out pieces of holeSize that are all zeros.
// Preconditions: off is a multiple of holeSize.
func writeSparse(f *disk.File, p []byte, off, size int64) error {
	end := off + int64(len(p))
	for len(p) > 0 {
		hole := zeroPieces(p)
		p, off = p[hole:], off+int64(hole)
		n := dataPieces(p)
		if n == 0 {
			break
		}
		if _, err := f.WriteAt(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
		if off == size {
			return nil
		}
	}
	if end < size {
		return nil
	}
	return f.Truncate(size) // it ends with a hole
}

// isHole says whether the first piece of p is whole and all zeros.
func isHole(p []byte) bool { return len(p) >= holeSize && bytes.Equal(p[:holeSize], zeros[:]) }

// zeroPieces returns the length of the pieces at the beginning of p that are
// holes.
func zeroPieces(p []byte) int {
	n := 0
	for isHole(p[n:]) {
		n += holeSize
	}
	return n
}

// dataPieces returns the length of the pieces at the beginning of p that are
// not.
func dataPieces(p []byte) int {
	n := 0
	for n < len(p) && !isHole(p[n:]) {
		n += min(holeSize, len(p)-n)
	}
	return n
}
