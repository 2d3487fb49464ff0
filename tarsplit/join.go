package tarsplit

import (
	"io"
	"sync"
)

const (
	joinBuffer = 256 << 10 // bytes that WriteTo writes at once
	joinDirect = 64 << 10  // bodies in memory of at least this size are written from where they are
)

var joinBuffers = sync.Pool{New: func() any { return new([joinBuffer]byte) }}

// A Swapper is a writer that goes on reading what it was given after it has
// returned, for example to hash it on another core. Reader.WriteTo then lends it
// whole buffers instead of having them copied, and what it gives to Write stays
// valid until WriteTo returns.
type Swapper interface {
	io.Writer
	// Swap writes full and returns a buffer of the same capacity to go on with.
	// full is the writer's until he returns it from a later Swap.
	Swap(full []byte) (empty []byte, err error)
}

// A joiner collects small pieces of the stream and writes large ones.
type joiner struct {
	r       *Reader
	w       io.Writer
	swap    Swapper // w, if it is one
	buf     []byte  // of joinBuffer bytes
	n       int     // used of it
	written int64
}

// WriteTo writes the whole stream to w, in pieces of 256 KiB or less. Bodies that
// are a [BytesBody] and not small are written without copying them. A [Swapper] is
// lent the buffers.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	j := &joiner{r: r, w: w}
	if j.swap, _ = w.(Swapper); j.swap != nil {
		j.buf = make([]byte, joinBuffer) // may be the writer's at the end
	} else {
		buf := joinBuffers.Get().(*[joinBuffer]byte)
		defer joinBuffers.Put(buf)
		j.buf = buf[:]
	}
	err := r.eachGroup(j.group)
	if err == nil {
		err = j.flush()
	}
	return j.written, err
}

func (j *joiner) group(g *group) error {
	for i, s := range g.spans {
		var err error
		switch length := g.spanEnd(i) - s.start; s.kind {
		case recordRaw:
			err = j.raw(g.rawBytes(i, 0))
		case recordZeros:
			err = j.zeros(length)
		default:
			err = j.body(g.sum(s), length)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// raw appends p, which is memory of the group and changes with the next: a Swapper,
// who goes on reading, gets a copy however large it is.
func (j *joiner) raw(p []byte) error {
	if j.swap == nil {
		return j.bytes(p)
	}
	for len(p) > 0 {
		room, err := j.room(int64(len(p)))
		if err != nil {
			return err
		}
		n := copy(room, p)
		j.n += n
		p = p[n:]
	}
	return nil
}

// bytes appends p, or writes it when it is large.
func (j *joiner) bytes(p []byte) error {
	if len(p) >= joinDirect {
		if err := j.flush(); err != nil {
			return err
		}
		return j.write(p)
	}
	if len(p) > len(j.buf)-j.n {
		if err := j.flush(); err != nil {
			return err
		}
	}
	j.n += copy(j.buf[j.n:], p)
	return nil
}

// room returns at least one byte and at most n of the buffer.
func (j *joiner) room(n int64) ([]byte, error) {
	if j.n == len(j.buf) {
		if err := j.flush(); err != nil {
			return nil, err
		}
	}
	return j.buf[j.n:min(int64(len(j.buf)), int64(j.n)+n)], nil
}

func (j *joiner) zeros(n int64) error {
	for n > 0 {
		p, err := j.room(n)
		if err != nil {
			return err
		}
		clear(p)
		j.n += len(p)
		n -= int64(len(p))
	}
	return nil
}

func (j *joiner) body(sum Sum, size int64) error {
	body, err := j.r.body(sum, size)
	if err != nil {
		return err
	}
	defer closeBody(body)
	if b, ok := body.(BytesBody); ok {
		data := b.Bytes()
		if int64(len(data)) < size {
			return shortBody(sum, size)
		}
		return j.bytes(data[:size])
	}
	for off := int64(0); off < size; {
		p, err := j.room(size - off)
		if err != nil {
			return err
		}
		if err := fillFrom(body, sum, size, p, off); err != nil {
			return err
		}
		j.n += len(p)
		off += int64(len(p))
	}
	return nil
}

func (j *joiner) flush() error {
	if j.n == 0 {
		return nil
	}
	p := j.buf[:j.n]
	j.n = 0
	if j.swap == nil {
		return j.write(p)
	}
	empty, err := j.swap.Swap(p)
	if err != nil {
		return err
	}
	j.written += int64(len(p))
	j.buf = empty[:cap(empty)]
	return nil
}

func (j *joiner) write(p []byte) error {
	n, err := j.w.Write(p)
	j.written += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}
