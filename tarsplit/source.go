package tarsplit

import "io"

const (
	sourceBuffer = 256 << 10 // stays in the second-level cache
	directRead   = 32 << 10  // reads of at least this size bypass the buffer
	emptyReads   = 100       // this many reads without data or error are an error
)

// A source reads a stream through one buffer. Errors are sticky; io.EOF is one.
type source struct {
	r      io.Reader
	buf    []byte
	lo, hi int   // the unread part of buf
	off    int64 // stream offset of buf[lo]
	err    error
}

// peek returns the next n bytes, which must fit into the buffer, or fewer when
// the stream ends or fails before. They are valid until the next peek or read.
func (s *source) peek(n int) []byte {
	for s.hi-s.lo < n && s.err == nil {
		s.fill(n)
	}
	return s.buf[s.lo:min(s.hi, s.lo+n)]
}

// buffered returns all bytes at hand, at least one unless the stream is over.
func (s *source) buffered() []byte {
	s.peek(1)
	return s.buf[s.lo:s.hi]
}

func (s *source) skip(n int) {
	s.lo += n
	s.off += int64(n)
}

// fill reads once, after it has made room for n bytes from lo on.
func (s *source) fill(n int) {
	if s.lo == s.hi {
		s.lo, s.hi = 0, 0
	} else if s.lo+n > len(s.buf) {
		s.hi = copy(s.buf, s.buf[s.lo:s.hi])
		s.lo = 0
	}
	got, err := s.readSome(s.buf[s.hi:])
	s.hi += got
	s.err = err
}

func (s *source) readSome(p []byte) (int, error) {
	for range emptyReads {
		if n, err := s.r.Read(p); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// read is io.Reader on the rest of the stream; large reads are not buffered.
func (s *source) read(p []byte) (int, error) {
	if s.lo == s.hi && s.err == nil {
		if len(p) >= directRead {
			n, err := s.readSome(p)
			s.off += int64(n)
			s.err = err
			if n == 0 {
				return 0, err
			}
			return n, nil
		}
		s.fill(1)
	}
	if s.lo == s.hi {
		return 0, s.err
	}
	n := copy(p, s.buf[s.lo:s.hi])
	s.skip(n)
	return n, nil
}
