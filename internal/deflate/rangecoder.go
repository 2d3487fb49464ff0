package deflate

import (
	"bufio"
	"errors"
	"io"
)

// A prob is an adaptive estimate that the next bit is zero: 22 bits of probability
// above 8 bits that count how often it was used, so that it learns fast at first.
type prob uint32

const (
	probBits  = 22
	probOne   = 1 << probBits
	probStart = prob(probOne/2) << 8
	slowest   = 7 // an old estimate moves by 1/128 of the error
)

func (p *prob) update(bit uint32) {
	v, n := uint32(*p)>>8, uint32(*p)&0xff
	if n < slowest {
		n++
	}
	if bit == 0 {
		v += (probOne - v) >> n
	} else {
		v -= v >> n
	}
	// An estimate of 0 or 1 would make the other bit impossible to write.
	*p = prob(min(max(v, 1), probOne-1)<<8 | n)
}

// A coder is a binary arithmetic coder that runs either way, so that the model that
// uses it is written once: when encoding, bit writes the bit that it is given and
// returns it; when decoding, it ignores the bit and returns the one that was read.
//
// low and rng span 56 bits; a carry out of low ripples into the bytes held back in
// cache and pending.
type coder struct {
	encoding bool
	rng      uint64
	size     int64 // bytes written or read
	limit    int64 // when only counting: err is set beyond
	err      error

	low     uint64
	cache   byte
	pending int
	w       *bufio.Writer // nil counts only

	code uint64
	r    *bufio.Reader
}

// errTooLarge ends the trial of a spec.
var errTooLarge = errors.New("correction is too large")

const (
	rangeTop = 1 << 56
	rangeLow = 1 << 48
)

func newEncoder(w io.Writer) *coder {
	c := &coder{encoding: true, rng: rangeTop}
	if w != nil {
		c.w = bufio.NewWriter(w)
	}
	return c
}

func newDecoder(r *bufio.Reader) *coder {
	c := &coder{rng: rangeTop, r: r}
	for range 8 {
		c.code = c.code<<8 | uint64(c.readByte())
	}
	return c
}

// bit codes one bit with an adaptive estimate.
func (c *coder) bit(p *prob, bit uint32) uint32 {
	bound := c.rng >> probBits * uint64(uint32(*p)>>8)
	if c.encoding {
		if bit == 0 {
			c.rng = bound
		} else {
			c.low += bound
			c.rng -= bound
		}
	} else {
		if c.code < bound {
			bit, c.rng = 0, bound
		} else {
			bit = 1
			c.code -= bound
			c.rng -= bound
		}
	}
	p.update(bit)
	for c.rng < rangeLow {
		c.shift()
	}
	return bit
}

// flag is bit for a bool.
func (c *coder) flag(p *prob, v bool) bool {
	var bit uint32
	if v {
		bit = 1
	}
	return c.bit(p, bit) != 0
}

// raw codes the n low bits of v without a model.
func (c *coder) raw(v uint64, n uint) uint64 {
	var out uint64
	for n > 0 {
		n--
		half := probStart
		out = out<<1 | uint64(c.bit(&half, uint32(v>>n)&1))
	}
	return out
}

func (c *coder) shift() {
	c.rng <<= 8
	if !c.encoding {
		c.code = c.code<<8 | uint64(c.readByte())
		return
	}
	if c.low >= rangeTop || c.low < 0xff<<48 {
		carry := byte(c.low >> 56)
		c.writeByte(c.cache + carry)
		for ; c.pending > 0; c.pending-- {
			c.writeByte(0xff + carry)
		}
		c.cache = byte(c.low >> 48)
	} else {
		c.pending++
	}
	c.low = c.low & (rangeLow - 1) << 8
}

func (c *coder) writeByte(b byte) {
	c.size++
	switch {
	case c.w == nil && c.size > c.limit:
		c.err = errTooLarge
	case c.w != nil && c.err == nil:
		c.err = c.w.WriteByte(b)
	}
}

// readByte returns zeros after an error, which the caller of the model sees in err
// before it believes what was decoded.
func (c *coder) readByte() byte {
	if c.err != nil {
		return 0
	}
	b, err := c.r.ReadByte()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = corrupt("it ends too early")
		}
		c.err = err
		return 0
	}
	c.size++
	return b
}

// close ends the stream: all of it is written, or all of it has been read.
func (c *coder) close() error {
	if c.encoding {
		for range 8 {
			c.shift()
		}
		if c.w != nil && c.err == nil {
			c.err = c.w.Flush()
		}
		return c.err
	}
	if c.err != nil {
		return c.err
	}
	if _, err := c.r.ReadByte(); err == nil {
		return corrupt("bytes after its end")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// fail records that what was decoded cannot be.
func (c *coder) fail(format string, args ...any) {
	if c.err == nil {
		c.err = corrupt(format, args...)
	}
}
