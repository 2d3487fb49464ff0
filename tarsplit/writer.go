package tarsplit

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A Writer writes the stored form of one stream: what [Writer.Raw],
// [Writer.Zeros] and [Writer.Body] are called with, in order, is the stream. The
// first error stays.
type Writer struct {
	w   io.Writer
	err error

	written int64 // bytes of the stored form
	size    int64 // bytes of the stream
	groups  []entry

	groupStart int64 // stream offset of the group that is being filled

	records []byte
	count   int // of records in the group, without the pending one
	raw     []byte
	sums    []byte
	pending int64 // length of the last record, which may grow
	kind    recordKind

	payload, out []byte // scratch

	splitting bool // a Splitter has not recorded all of its stream
	closed    bool
}

// NewWriter returns a Writer of the stored form to w, which gets one Write for
// about every 128 KiB of headers.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, out: formatHeader()}
}

var (
	errTooLong    = errors.New("tar stream is too long to be stored")
	errClosed     = errors.New("tar-split writer is closed")
	errNotDrained = errors.New("tar stream was not recorded to its end: call Drain before Close")
	errZeroLength = errors.New("tar-split record of negative length")
)

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// Raw appends bytes that are kept in the stored form itself.
func (w *Writer) Raw(p []byte) error {
	for len(p) > 0 && w.err == nil {
		n := min(len(p), groupRaw-len(w.raw))
		if w.begin(recordRaw, int64(n)) {
			w.raw = append(w.raw, p[:n]...)
			p = p[n:]
		}
		if len(w.raw) == groupRaw {
			w.flush()
		}
	}
	return w.err
}

// Zeros appends n zeros.
func (w *Writer) Zeros(n int64) error {
	w.begin(recordZeros, n)
	return w.err
}

// Body appends the bytes of a body that is kept elsewhere. Size 0 is nothing.
func (w *Writer) Body(sum Sum, size int64) error {
	if w.begin(recordBody, size) {
		w.sums = append(w.sums, sum[:]...)
	}
	return w.err
}

// begin counts n bytes and opens a record for them, unless the last one is of
// the same kind and can grow. It reports whether there is anything to append.
func (w *Writer) begin(kind recordKind, n int64) bool {
	switch {
	case w.err != nil:
	case w.closed:
		w.fail(errClosed)
	case n < 0:
		w.fail(errZeroLength)
	case n > maxLength-w.size:
		w.fail(errTooLong)
	}
	if w.err != nil || n == 0 {
		return false
	}
	if w.pending > 0 && (kind == recordBody || kind != w.kind) {
		w.endRecord()
		if w.count == groupRecords {
			w.flush()
			if w.err != nil {
				return false
			}
		}
	}
	w.kind = kind
	w.pending += n
	w.size += n
	return true
}

func (w *Writer) endRecord() {
	w.records = binary.AppendUvarint(w.records, uint64(w.pending)<<2|uint64(w.kind))
	w.count++
	w.pending = 0
}

// flush ends the group and writes it.
func (w *Writer) flush() {
	if w.pending > 0 {
		w.endRecord()
	}
	if w.count == 0 || w.err != nil {
		return
	}
	if len(w.groups) == maxGroups {
		w.fail(errTooLong)
		return
	}
	p := binary.LittleEndian.AppendUint32(w.payload[:0], crc32.Checksum(w.sums, castagnoli))
	p = binary.LittleEndian.AppendUint32(p, uint32(len(w.records)))
	p = append(append(p, w.records...), w.raw...)

	w.groups = append(w.groups, entry{stream: w.groupStart, file: w.written + int64(len(w.out))})
	if len(w.sums) > 0 {
		w.out = append(appendSkippable(w.out, magicSums, len(w.sums)), w.sums...)
	}
	w.out = encoder().EncodeAll(p, w.out)
	w.payload = p
	w.records, w.raw, w.sums, w.count = w.records[:0], w.raw[:0], w.sums[:0], 0
	w.groupStart = w.size
	w.write()
}

func (w *Writer) write() {
	n, err := w.w.Write(w.out)
	w.written += int64(n)
	if err == nil && n < len(w.out) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.fail(err)
	}
	w.out = w.out[:0]
}

// Size returns the length of the stream so far.
func (w *Writer) Size() int64 { return w.size }

// Close writes what is left and the index. It does not close the underlying
// writer. It returns the first error of any call, and an error when a Splitter
// has not recorded the whole of its stream. A second Close does nothing.
func (w *Writer) Close() error {
	if w.closed {
		return w.err
	}
	if w.splitting {
		w.fail(errNotDrained)
	}
	w.flush()
	w.closed = true
	if w.err != nil {
		return w.err
	}
	w.out = appendIndex(w.out, w.groups, w.size, w.written+int64(len(w.out)))
	w.write()
	w.records, w.raw, w.sums, w.payload, w.out = nil, nil, nil, nil, nil
	return w.err
}
