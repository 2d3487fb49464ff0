package compress

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	pipeBuffers    = 4
	pipeBufferSize = 256 << 10
)

// pipePool keeps the buffers of closed pipes for the next layer.
var pipePool = sync.Pool{New: func() any { return new([pipeBufferSize]byte) }}

// errPipeClosed is returned when reading from a pipe after Close.
var errPipeClosed = errors.New("pipe is closed")

// A chunk is a buffer on its way to the reader, with the error that came after it.
type chunk struct {
	buf *[pipeBufferSize]byte
	n   int
	err error
}

// A pipe reads ahead in a goroutine of its own.
type pipe struct {
	rc   io.ReadCloser
	full chan chunk
	free chan *[pipeBufferSize]byte
	stop chan struct{}

	// What follows belongs to the reading side.
	cur    chunk
	off    int // of cur, already read
	err    error
	closed bool
}

// Pipe reads rc ahead in a goroutine of its own, through a ring of four buffers
// of 256 KiB, so that inflating and whatever the caller does use two cores. The
// result implements io.WriterTo, which passes the buffers on without a copy.
//
// Read, WriteTo and Close are for one goroutine. Close stops reading ahead, waits
// for the Read of rc that is under way, and closes rc; rc is not touched later.
func Pipe(rc io.ReadCloser) io.ReadCloser {
	p := &pipe{
		rc:   rc,
		full: make(chan chunk, pipeBuffers),
		free: make(chan *[pipeBufferSize]byte, pipeBuffers),
		stop: make(chan struct{}),
	}
	for range pipeBuffers {
		p.free <- pipePool.Get().(*[pipeBufferSize]byte)
	}
	go p.fill()
	return p
}

// fill is the goroutine: it closes full when it will touch rc no more.
func (p *pipe) fill() {
	defer close(p.full)
	for {
		var buf *[pipeBufferSize]byte
		select {
		case <-p.stop:
			return
		case buf = <-p.free:
		}
		n, err := p.readFull(buf[:])
		p.full <- chunk{buf, n, err} // never blocks: there are as many places as buffers
		if err != nil {
			return
		}
	}
}

// readFull fills buf unless rc ends or the pipe is closed. A panic of a decoder on
// hostile data becomes an error, because here no caller could recover from it.
func (p *pipe) readFull(buf []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: the decoder panicked: %v", ErrCorrupt, r)
		}
	}()
	for n < len(buf) && err == nil {
		var k int
		k, err = p.rc.Read(buf[n:])
		n += k
		select {
		case <-p.stop:
			return n, err
		default:
		}
	}
	return n, err
}

// next makes the following chunk the current one; an error is kept for good.
func (p *pipe) next() error {
	if p.err != nil {
		return p.err
	}
	if p.cur.err != nil {
		p.err = p.cur.err
		return p.err
	}
	if p.cur.buf != nil {
		p.free <- p.cur.buf
	}
	p.cur, p.off = <-p.full, 0
	return nil
}

// Read implements io.Reader.
func (p *pipe) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for p.off == p.cur.n {
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.cur.buf[p.off:p.cur.n])
	p.off += n
	return n, nil
}

// WriteTo implements io.WriterTo.
func (p *pipe) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if p.off < p.cur.n {
			n, err := w.Write(p.cur.buf[p.off:p.cur.n])
			total += int64(n)
			p.off += n
			if err != nil {
				return total, err
			}
			if p.off < p.cur.n {
				return total, io.ErrShortWrite
			}
		}
		if err := p.next(); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
	}
}

// Close implements io.Closer. A second call does nothing.
func (p *pipe) Close() error {
	if p.closed {
		return nil
	}
	p.closed = true
	close(p.stop)
	for c := range p.full {
		pipePool.Put(c.buf)
	}
	if p.cur.buf != nil {
		pipePool.Put(p.cur.buf)
	}
	for len(p.free) > 0 {
		pipePool.Put(<-p.free)
	}
	p.cur, p.off, p.err = chunk{}, 0, errPipeClosed
	return p.rc.Close()
}
