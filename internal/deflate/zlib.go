package deflate

import "encoding/binary"

// zlibParams are the settings of a level of zlib and of its relatives.
type zlibParams struct {
	good, lazy, nice, chain int
	greedy                  bool // levels 1 to 3: no lazy matching, and lazy is the longest match that is inserted
	hashBits                uint
}

const (
	// zlib keeps a margin in its window, so that it need not look where it reads.
	zlibDistance = maxDistance - (maxMatch + minMatch + 1)
	// A match of three bytes further away than this costs more than its bytes.
	tooFar = 4096
)

// A zlibPredictor behaves like zlib and GNU gzip.
type zlibPredictor struct {
	zlibParams
	chain
	from    int64 // the position that the encoder's window begins with is never matched
	pending match // found at pendPos when the position before was looked at
	pendPos int64
	guess   match
}

func newZlibPredictor(w *window, p zlibParams) *zlibPredictor {
	return &zlibPredictor{zlibParams: p, chain: newChain(w, p.hashBits, minMatch), pendPos: -1}
}

func (z *zlibPredictor) restart(pos int64, dict int) {
	z.chain.reset(pos, dict)
	z.from = z.chain.start
	z.pendPos = -1
}

func (z *zlibPredictor) unit(_, end int64, hard, _ bool) {
	z.end = 1 << 62
	if hard {
		z.end = end
	}
}

// upTo inserts all positions before pos.
func (z *zlibPredictor) upTo(pos int64) {
	buf, off := z.win.buf, z.win.off()
	i := z.win.index(z.next)
	end := min(z.win.index(pos), len(buf)-minMatch+1)
	for ; i < end; i++ {
		z.insert(i, shiftHash(buf[i:i+3], z.hashBits), off)
	}
	z.next = max(z.next, pos)
}

// longest looks for a match at pos that is longer than best.
func (z *zlibPredictor) longest(pos int64, best int) match {
	i, off := z.win.index(pos), z.win.off()
	limit := min(z.visible()-i, maxMatch)
	if limit < minMatch {
		return match{}
	}
	z.upTo(pos + 1)
	tries, nice := z.zlibParams.chain, min(z.nice, limit)
	if best >= z.good {
		tries >>= 2
	}
	if best >= limit {
		return match{}
	}
	buf, prev := z.win.buf, &z.prev
	from := z.win.index(z.from) + 1
	low := max(from, i-zlibDistance+1)
	q := newProbe(buf, i, best)
	var found match
	for j := i; tries > 0; tries-- {
		d := int(prev[(uint32(j)+off)&chainMask])
		// Only the first may be as far away as the margin.
		if j -= d; j < low && (d != zlibDistance || j < from || j+d != i) {
			break
		}
		if binary.LittleEndian.Uint32(buf[j+q.at:])&q.mask != q.want {
			continue
		}
		if n := matchLength(buf, j, i, limit); n > best {
			best, found = n, match{n, i - j}
			if n >= nice {
				break
			}
			q = newProbe(buf, i, best)
		}
	}
	return found
}

// lazyMatch is longest with the rule about short matches that are far away.
func (z *zlibPredictor) lazyMatch(pos int64, best int) match {
	m := z.longest(pos, best)
	if m.length == minMatch && m.dist > tooFar {
		return match{}
	}
	return m
}

func (z *zlibPredictor) predict(pos int64) (length, dist int) {
	if z.greedy {
		z.guess = z.longest(pos, minMatch-1)
	} else {
		z.guess = z.lazy2(pos)
	}
	if z.guess.length == 0 {
		return 1, 0
	}
	return z.guess.length, z.guess.dist
}

// lazy2 takes the match at pos unless there is a longer one a byte later.
func (z *zlibPredictor) lazy2(pos int64) match {
	var m match
	if z.pendPos == pos {
		m = z.pending
	} else {
		m = z.lazyMatch(pos, minMatch-1)
	}
	z.pendPos = -1
	if m.length == 0 || m.length >= z.lazy {
		return m
	}
	if next := z.lazyMatch(pos+1, m.length); next.length > 0 {
		z.pendPos, z.pending = pos+1, next
		return match{}
	}
	return m
}

func (z *zlibPredictor) accept(pos int64, length, _ int) {
	if !z.greedy {
		return // every position is inserted when it is looked at
	}
	z.upTo(min(pos+1, z.inserted()))
	if length == 1 || length <= z.lazy {
		z.upTo(min(pos+int64(length), z.inserted()))
	} else {
		z.next = max(z.next, pos+int64(length))
	}
}

// inserted is the first position that the encoder could not insert yet.
func (z *zlibPredictor) inserted() int64 {
	return z.win.base + int64(z.visible()) - minMatch + 1
}

func (z *zlibPredictor) skip(pos int64, n int) {
	z.upTo(min(pos+int64(n), z.win.end()-minMatch+1))
}
