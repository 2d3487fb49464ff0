package deflate

import (
	"encoding/binary"
	"math/bits"
)

const chainMask = maxDistance - 1

// A chain links the positions of equal hashes, newest first, as far back as the
// format lets a match go.
type chain struct {
	win   *window
	head  []uint32
	prev  [maxDistance]uint32
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
	c.prev[p&chainMask] = c.head[h]
	c.head[h] = p
}

// back is the index of what is linked behind a position, negative if nothing.
func (c *chain) back(p, off uint32) int { return int(int32(c.prev[p&chainMask] - off)) }

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
	for j, n := c.back(uint32(i)+off, off), 0; j >= low && j < i && n < rankDepth; n++ {
		if matchLength(c.win.buf, j, i, length) == length && !f(i-j) {
			return
		}
		k := c.back(uint32(j)+off, off)
		if k >= j {
			return
		}
		j = k
	}
}
