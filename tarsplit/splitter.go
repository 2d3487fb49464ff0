package tarsplit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// A PutFunc stores a body and names it. It reads r to its end, which is after
// size bytes. When the stream ends inside a large body r ends early, with io.EOF:
// a PutFunc may then store the shorter body, or return an error; only with the
// former does the law hold for such a stream.
type PutFunc = func(r io.Reader, size int64) (Sum, error)

const (
	wholeBody  = 64 << 10 // bodies up to this size are known to be complete before they are put
	drainChunk = 1 << 20  // size of the bodies that Drain makes
	rawTail    = 8 << 10  // bytes behind the end of an archive that Next records without a body
	rawDrained = 4 << 10  // pieces up to this size become no body in Drain
	zeroRun    = 1 << 10  // runs of zeros of this size at the ends of a chunk are kept out of it
)

// A sink takes what a stream consists of, in order. *Writer is one.
type sink interface {
	Raw(p []byte) error
	Zeros(n int64) error
	Body(sum Sum, size int64) error
}

// A Splitter reads a stream, delivers its members and records all of it.
type Splitter struct {
	src  source
	sink sink
	w    *Writer // nil when the sink is another one

	hdr    Header
	body   int64 // bytes of the current body that were not read
	pad    int64 // bytes of padding that follow the body
	err    error // what Next returns from now on
	reader bodyReader

	memberParser
}

// NewSplitter returns a Splitter that reads r and records in w. It reads ahead.
func NewSplitter(r io.Reader, w *Writer) *Splitter {
	s := newSplitter(r, w)
	s.w = w
	w.splitting = true
	return s
}

func newSplitter(r io.Reader, to sink) *Splitter {
	return &Splitter{src: source{r: r, buf: make([]byte, sourceBuffer)}, sink: to}
}

// Next moves to the next member. The Header is valid until the next call; what
// its fields point to may be kept.
//
// At the end of the archive Next returns io.EOF, and a [*FormatError] when the
// stream is no tar from here on. After either call [Splitter.Drain], which
// records what is left of the stream (nothing, after the io.EOF of an ordinary
// archive). Other errors come from the stream's reader or the Writer.
func (s *Splitter) Next() (*Header, error) {
	if s.err != nil {
		return nil, s.err
	}
	err := s.skipMember()
	if err == nil {
		err = s.nextMember()
	}
	if err == io.EOF {
		if tailErr := s.tail(); tailErr != nil {
			err = tailErr
		}
	}
	if err != nil {
		s.err = err
		return nil, err
	}
	return &s.hdr, nil
}

// Offset returns how many bytes of the stream have been dealt with.
func (s *Splitter) Offset() int64 { return s.src.off }

// Body stores the body of the current member with put. It does nothing when the
// member has none or Body was called for it before. A body for which it is never
// called is recorded with the headers: right for a few bytes only.
//
// It returns a *FormatError when the stream ends inside the body, and the error
// of put otherwise. When put has read something of a body and fails, that is
// lost: the Writer's Close will return an error.
func (s *Splitter) Body(put PutFunc) error {
	if s.err != nil || s.body == 0 {
		return s.err
	}
	size, start := s.body, s.src.off
	if size <= wholeBody && int64(len(s.src.peek(int(size)))) < size {
		s.err = s.endOr(truncated(start, "a body"))
		return s.err
	}
	s.reader = bodyReader{s: s, left: size}
	sum, err := put(&s.reader, size)
	read := size - s.reader.left
	s.reader.s = nil
	s.body -= read
	switch {
	case err != nil && read == 0:
		return err
	case err == nil && read < size && !s.reader.short:
		err = s.endOr(nil)
		if err == nil {
			err = fmt.Errorf("body of %q: %d of %d bytes were not read", s.hdr.Name, size-read, size)
		}
	case err == nil && read > 0:
		err = s.sink.Body(sum, read)
	}
	if err != nil {
		s.abort(err)
	}
	if s.reader.short {
		s.err = s.endOr(truncated(start, "a body"))
	}
	return s.err
}

// endOr returns atEnd when the stream has ended, and its error when it failed.
func (s *Splitter) endOr(atEnd error) error {
	if s.src.err != nil && s.src.err != io.EOF {
		return s.src.err
	}
	return atEnd
}

// abort makes the record useless, because bytes of the stream are lost.
func (s *Splitter) abort(err error) {
	s.err = err
	if s.w != nil {
		s.w.fail(err)
	}
}

// A bodyReader reads the current body.
type bodyReader struct {
	s     *Splitter
	left  int64
	short bool // the stream ended first
}

var errLate = errors.New("body read after its time")

func (b *bodyReader) Read(p []byte) (int, error) {
	if b.s == nil {
		return 0, errLate
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.s.src.read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.short = err == io.EOF
	return n, err
}

// WriteTo saves a copy: it writes from the Splitter's buffer.
func (b *bodyReader) WriteTo(w io.Writer) (int64, error) {
	if b.s == nil {
		return 0, errLate
	}
	total := int64(0)
	for b.left > 0 {
		p := b.s.src.buffered()
		if len(p) == 0 {
			b.short = b.s.src.err == io.EOF
			return total, b.s.endOr(nil)
		}
		p = p[:min(int64(len(p)), b.left)]
		n, err := w.Write(p)
		b.s.src.skip(n)
		b.left -= int64(n)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// rawBody records what is left of the current body with the headers.
func (s *Splitter) rawBody() error {
	start := s.src.off
	for s.body > 0 {
		p := s.src.buffered()
		if len(p) == 0 {
			return s.endOr(truncated(start, "a body"))
		}
		n := int(min(int64(len(p)), s.body))
		if err := s.raw(n); err != nil {
			return err
		}
		s.body -= int64(n)
	}
	return nil
}

// skipMember records what is left of the current member: raw data, padding. A
// stream that ends inside the padding ends properly, as in archive/tar.
func (s *Splitter) skipMember() error {
	if err := s.rawBody(); err != nil {
		return err
	}
	pad := s.src.peek(int(s.pad))
	short := int64(len(pad)) < s.pad
	s.pad = 0
	if err := s.record(pad); err != nil {
		return err
	}
	s.src.skip(len(pad))
	if short {
		return s.endOr(io.EOF)
	}
	return nil
}

// raw records the next n bytes, which have been peeked at.
func (s *Splitter) raw(n int) error {
	if err := s.sink.Raw(s.src.buf[s.src.lo : s.src.lo+n]); err != nil {
		return err
	}
	s.src.skip(n)
	return nil
}

// record records p, as zeros if it is nothing else.
func (s *Splitter) record(p []byte) error {
	switch {
	case len(p) == 0:
		return nil
	case isZero(p):
		return s.sink.Zeros(int64(len(p)))
	}
	return s.sink.Raw(p)
}

// tail records what follows the end of the archive: any number of zeros, and a
// little of anything else; more is left for Drain.
func (s *Splitter) tail() error {
	for other := 0; ; {
		p := s.src.peek(len(zeros))
		if len(p) == 0 {
			s.finished()
			return s.endOr(nil)
		}
		if !isZero(p) {
			if other += len(p); other > rawTail {
				return nil
			}
		}
		if err := s.record(p); err != nil {
			return err
		}
		s.src.skip(len(p))
	}
}

func (s *Splitter) finished() {
	if s.w != nil {
		s.w.splitting = false
	}
}

// Drain records the rest of the stream, from wherever the Splitter is, in bodies
// of at most 1 MiB, so that the stored form stays small; runs of zeros and short
// pieces make no body. With a nil put everything is recorded in the stored form
// itself. Next then returns what it returned last, or io.EOF.
func (s *Splitter) Drain(put PutFunc) error {
	var chunk []byte
	for {
		p := s.src.peek(len(s.src.buf))
		if len(p) == 0 {
			break
		}
		if put != nil && len(p) == len(s.src.buf) {
			if chunk == nil {
				chunk = make([]byte, drainChunk)
			}
			n, _ := io.ReadFull(readFunc(s.src.read), chunk) // an error is in s.src
			p = chunk[:n]
		} else {
			s.src.skip(len(p))
		}
		if err := s.drainPiece(p, put); err != nil {
			s.abort(err)
			return err
		}
	}
	s.body, s.pad = 0, 0
	if err := s.endOr(nil); err != nil {
		s.err = err
		return err
	}
	s.finished()
	if s.err == nil {
		s.err = io.EOF
	}
	return nil
}

// drainPiece records p: zeros at its ends as such, the rest as a body.
func (s *Splitter) drainPiece(p []byte, put PutFunc) error {
	rest := bytes.TrimLeft(p, "\x00")
	front := len(p) - len(rest)
	if front < zeroRun && len(rest) > 0 {
		front = 0
	}
	core := bytes.TrimRight(p[front:], "\x00")
	if len(p)-front-len(core) < zeroRun {
		core = p[front:]
	}
	if err := s.record(p[:front]); err != nil {
		return err
	}
	switch {
	case put == nil || len(core) <= rawDrained:
		if err := s.record(core); err != nil {
			return err
		}
	default:
		sum, err := put(bytes.NewReader(core), int64(len(core)))
		if err != nil {
			return err
		}
		if err := s.sink.Body(sum, int64(len(core))); err != nil {
			return err
		}
	}
	return s.record(p[front+len(core):])
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

var zeros [4096]byte

// isZero reports whether p is nothing but zeros.
func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// Split records all of r in w, stores the bodies with put, and closes w. That r
// is no tar, or ends too early, is no error here: see [Splitter] for finding out.
func Split(r io.Reader, w *Writer, put PutFunc) error {
	s := NewSplitter(r, w)
	err := error(nil)
	for err == nil {
		if _, err = s.Next(); err == nil {
			err = s.Body(put)
		}
	}
	var noTar *FormatError
	if err != io.EOF && !errors.As(err, &noTar) {
		return err
	}
	if err := s.Drain(put); err != nil {
		return err
	}
	return w.Close()
}

// Join writes the stream of r to w.
func Join(w io.Writer, r *Reader) error {
	_, err := r.WriteTo(w)
	return err
}
