package deflate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A bitReader reads bits, lowest first, and counts and sums what it has taken from
// its source.
type bitReader struct {
	src  io.Reader
	buf  []byte
	pos  int
	end  int
	acc  uint64
	n    uint // bits in acc
	size int64
	crc  uint32
	err  error // of the source; io.EOF at its end
}

func newBitReader(src io.Reader) *bitReader {
	return &bitReader{src: src, buf: make([]byte, 64<<10)}
}

// load reads the next piece of the source; false means that there is none.
func (r *bitReader) load() bool {
	for r.err == nil {
		n, err := r.src.Read(r.buf)
		r.err = err
		if n > 0 {
			r.pos, r.end = 0, n
			r.size += int64(n)
			r.crc = crc32.Update(r.crc, crc32.IEEETable, r.buf[:n])
			return true
		}
	}
	return false
}

// refill brings at least 56 bits into acc, or all that are left.
func (r *bitReader) refill() {
	if r.end-r.pos >= 8 {
		r.acc |= binary.LittleEndian.Uint64(r.buf[r.pos:]) << r.n
		r.pos += int(63-r.n) >> 3
		r.n |= 56
		return
	}
	for r.n <= 56 {
		if r.pos == r.end && !r.load() {
			return
		}
		r.acc |= uint64(r.buf[r.pos]) << r.n
		r.pos++
		r.n += 8
	}
}

// failure is the error for a stream that ends where more was needed.
func (r *bitReader) failure() error {
	if r.err != nil && !errors.Is(r.err, io.EOF) {
		return r.err
	}
	return notGzip("it ends too early")
}

// take returns the next n bits, n at most 32.
func (r *bitReader) take(n uint) (uint32, error) {
	if r.n < n {
		r.refill()
		if r.n < n {
			return 0, r.failure()
		}
	}
	v := uint32(r.acc & (1<<n - 1))
	r.acc >>= n
	r.n -= n
	return v, nil
}

// align returns the bits that are left of the current byte.
func (r *bitReader) align() byte {
	n := r.n & 7
	v := byte(r.acc & (1<<n - 1))
	r.acc >>= n
	r.n -= n
	return v
}

// bytes fills p from a byte boundary and returns how much there was.
func (r *bitReader) bytes(p []byte) int {
	done := 0
	for done < len(p) && r.n >= 8 {
		p[done] = byte(r.acc)
		r.acc >>= 8
		r.n -= 8
		done++
	}
	if r.n == 0 {
		r.acc = 0 // bits above n may be left over from refill
	}
	for done < len(p) {
		if r.pos == r.end && !r.load() {
			break
		}
		n := copy(p[done:], r.buf[r.pos:r.end])
		r.pos += n
		done += n
	}
	return done
}

// A bitWriter writes bits, lowest first.
type bitWriter struct {
	w    *bufio.Writer
	acc  uint64
	n    uint
	crc  uint32
	size int64
	buf  []byte
	err  error
}

func newBitWriter(w io.Writer) *bitWriter {
	return &bitWriter{w: bufio.NewWriterSize(w, 64<<10), buf: make([]byte, 0, 32<<10)}
}

// put writes the n low bits of v, n at most 32; the bits above must be zero.
func (w *bitWriter) put(v uint64, n uint) {
	w.acc |= v << w.n
	w.n += n
	if w.n >= 32 {
		w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(w.acc))
		w.acc >>= 32
		w.n -= 32
		if len(w.buf) >= cap(w.buf)-8 {
			w.drain()
		}
	}
}

// align fills the current byte with the given bits.
func (w *bitWriter) align(pad byte) {
	if k := w.n & 7; k != 0 {
		w.put(uint64(pad)&(1<<(8-k)-1), 8-k)
	}
	for ; w.n > 0; w.n -= 8 {
		w.buf = append(w.buf, byte(w.acc))
		w.acc >>= 8
	}
}

// bytes writes p at a byte boundary.
func (w *bitWriter) bytes(p []byte) {
	w.drain()
	w.emit(p)
}

func (w *bitWriter) drain() {
	w.emit(w.buf)
	w.buf = w.buf[:0]
}

func (w *bitWriter) emit(p []byte) {
	if w.err != nil {
		return
	}
	w.crc = crc32.Update(w.crc, crc32.IEEETable, p)
	w.size += int64(len(p))
	_, w.err = w.w.Write(p)
}

func (w *bitWriter) flush() error {
	w.drain()
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.err
}
