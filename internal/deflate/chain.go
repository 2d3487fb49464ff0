package deflate

import (
	"encoding/binary"
	"math/bits"
)

const (
	chainMask = maxDistance - 1
	noLink    = 1<<16 - 1
)

// A chain links the positions of equal hashes, newest first, as far back as the
// format lets a match go: prev holds how far it is to the one before, or noLink. It is
// what long searches spend their time with, and small so that it stays in the cache.
type chain struct {
	win   *window
	head  []uint32
	prev  [maxDistance]uint16
	need  int // bytes that the hash takes
	next  int64
	start int64 // of what may be matched
	end   int64 // of what the encoder saw
}

func newChain(w *window, hashBits uint, need int) chain {
	return chain{win: w, head: make([]uint32, 1<<hashBits), need: need}
}

func (c *chain) reset(pos int64, dict int) {
	clear(c.head)
	c.start = max(pos-int64(dict), 0)
	c.next = c.start
}

// visible is the end of the data that the encoder saw, as an index.
func (c *chain) visible() int {
	if c.end >= c.win.end() {
		return len(c.win.buf)
	}
	return c.win.index(c.end)
}

// shiftHash is zlib's kind of hash: each byte shifted and mixed in with xor.
func shiftHash(b []byte, bits uint) uint32 {
	s := (bits + 2) / 3
	return (uint32(b[0])<<(2*s) ^ uint32(b[1])<<s ^ uint32(b[2])) & (1<<bits - 1)
}

// mulHash is Go's: four bytes, the first on top, times a constant.
func mulHash(b []byte, bits uint) uint32 {
	return binary.BigEndian.Uint32(b) * 0x1e35a7bd >> (32 - bits)
}

// insert links the position of index i, whose hash is h.
func (c *chain) insert(i int, h, off uint32) {
	p := uint32(i) + off
	d := p - c.head[h]
	if d > maxDistance {
		d = noLink
	}
	c.prev[p&chainMask] = uint16(d)
	c.head[h] = p
}

// step is how far it is from the position of index i to the one before in its chain.
func (c *chain) step(i int, off uint32) int { return int(c.prev[(uint32(i)+off)&chainMask]) }

// A probe tells cheaply that a candidate cannot be longer than best: of the best+1
// bytes that it must have, it compares the last four.
type probe struct {
	at   int
	mask uint32
	want uint32
}

func newProbe(buf []byte, i, best int) probe {
	p := probe{at: max(best-3, 0), mask: 1<<24 - 1}
	if best >= 3 {
		p.mask = 1<<32 - 1
	}
	for k, b := range buf[i+p.at : min(i+p.at+4, len(buf))] {
		p.want |= uint32(b) << (8 * k)
	}
	p.want &= p.mask
	return p
}

// matchLength compares buf[a:] with buf[b:], b being the later, for at most limit
// bytes.
func matchLength(buf []byte, a, b, limit int) int {
	n := 0
	x, y := buf[a:b+limit], buf[b:b+limit]
	for len(y)-n >= 8 {
		d := binary.LittleEndian.Uint64(x[n:]) ^ binary.LittleEndian.Uint64(y[n:])
		if d != 0 {
			return n + bits.TrailingZeros64(d)>>3
		}
		n += 8
	}
	for n < limit && x[n] == y[n] {
		n++
	}
	return n
}

// rankDepth is how far back a chain is followed for the sake of a misprediction.
const rankDepth = 2048

func (c *chain) rank(pos int64, length, dist int) int {
	rank, found := 0, -1
	c.walk(pos, length, func(d int) bool {
		if d == dist {
			found = rank
			return false
		}
		rank++
		return d < dist
	})
	return found
}

func (c *chain) at(pos int64, length, rank int) int {
	found := 0
	c.walk(pos, length, func(d int) bool {
		if rank == 0 {
			found = d
			return false
		}
		rank--
		return true
	})
	return found
}

// walk calls f with the distances of the matches at pos of at least a length, nearest
// first. The position itself must have been inserted.
func (c *chain) walk(pos int64, length int, f func(dist int) bool) {
	i, off := c.win.index(pos), c.win.off()
	if i+max(length, c.need) > len(c.win.buf) || c.next <= pos {
		return
	}
	low := max(c.win.index(c.start), i-maxDistance)
	j := i
	for range rankDepth {
		d := c.step(j, off)
		if j -= d; j < low || d == 0 {
			return
		}
		if matchLength(c.win.buf, j, i, length) == length && !f(i-j) {
			return
		}
	}
}
