package deflate

import "encoding/binary"

// goParams are the settings of a level of Go's compress/flate from 2 on.
type goParams struct {
	lazy, nice, chain int
	insertMax         int // matches longer than this are not inserted; 0 is lazy matching
}

const (
	goHashBits = 17
	goMinMatch = 4
	// The encoder's window is 64 KiB; when what is left of it is too little for a
	// match, its second half becomes the first.
	goShift = 2*maxDistance - (goMinMatch + maxMatch)
)

// A goPredictor behaves like Go's compress/flate until Go 1.26, levels 2 to 9.
type goPredictor struct {
	goParams
	chain
	from    int64 // position of the start of the encoder's window
	pending match
	pendPos int64
}

func newGoPredictor(w *window, p goParams) *goPredictor {
	return &goPredictor{goParams: p, chain: newChain(w, goHashBits, goMinMatch), pendPos: -1}
}

func (g *goPredictor) restart(pos int64, dict int) {
	g.reset(pos, dict)
	g.from, g.pendPos = g.chain.start, -1
}

func (g *goPredictor) unit(_, end int64, hard, _ bool) {
	g.end = 1 << 62
	if hard {
		g.end = end
	}
}

func (g *goPredictor) upTo(pos int64) {
	buf, off := g.win.buf, g.win.off()
	i := g.win.index(g.next)
	end := min(g.win.index(pos), len(buf)-goMinMatch+1)
	for ; i < end; i++ {
		g.insert(i, mulHash(buf[i:i+4], goHashBits), off)
	}
	g.next = max(g.next, pos)
}

// longest looks for the longest match at pos.
func (g *goPredictor) longest(pos int64) match {
	for pos >= g.from+goShift+1 {
		g.from += maxDistance
	}
	i, off := g.win.index(pos), g.win.off()
	limit := min(g.visible()-i, maxMatch)
	if limit < goMinMatch {
		return match{}
	}
	g.upTo(pos + 1)
	best, nice, tries := goMinMatch-1, min(g.nice, limit), g.goParams.chain
	buf, prev := g.win.buf, &g.prev
	low := max(g.win.index(g.from), i-maxDistance)
	q := newProbe(buf, i, best)
	var found match
	for j := i; tries > 0; tries-- {
		d := int(prev[(uint32(j)+off)&chainMask])
		if j -= d; j < low {
			break
		}
		if binary.LittleEndian.Uint32(buf[j+q.at:])&q.mask == q.want {
			if n := matchLength(buf, j, i, limit); n > best && (n > goMinMatch || i-j <= tooFar) {
				best, found = n, match{n, i - j}
				if n >= nice {
					break
				}
				q = newProbe(buf, i, best)
			}
		}
		if j == i-maxDistance {
			break
		}
	}
	return found
}

func (g *goPredictor) predict(pos int64) (length, dist int) {
	var m match
	if g.pendPos == pos {
		m = g.pending
	} else {
		m = g.longest(pos)
	}
	g.pendPos = -1
	if m.length == 0 {
		return 1, 0
	}
	if g.insertMax != 0 || m.length >= g.lazy || g.visible()-g.win.index(pos+1) <= m.length {
		return m.length, m.dist
	}
	if next := g.longest(pos + 1); next.length > m.length {
		g.pendPos, g.pending = pos+1, next
		return 1, 0
	}
	return m.length, m.dist
}

func (g *goPredictor) accept(pos int64, length, _ int) {
	if g.insertMax == 0 {
		return
	}
	end := g.win.base + int64(g.visible()) - goMinMatch + 1
	if length <= g.insertMax {
		g.upTo(min(pos+int64(length), end))
	} else {
		g.upTo(min(pos+1, end))
		g.next = max(g.next, pos+int64(length))
	}
}

func (g *goPredictor) skip(pos int64, n int) {
	g.upTo(min(pos+int64(n), g.win.end()-goMinMatch+1))
}
