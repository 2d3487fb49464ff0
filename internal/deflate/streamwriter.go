package deflate

import (
	"encoding/binary"
	"io"
	"math/bits"
)

// A streamWriter writes blocks from events.
type streamWriter struct {
	*bitWriter
	lit, dist codeTable
}

// A codeTable holds the code of each symbol, bits<<16 | code in the order of the
// stream.
type codeTable [288]uint32

func newStreamWriter(w io.Writer) *streamWriter {
	return &streamWriter{bitWriter: newBitWriter(w)}
}

// build numbers the codes of the given lengths as RFC 1951 says.
func (t *codeTable) build(lengths []uint8) {
	var count, next [maxBits + 1]int
	for _, l := range lengths {
		count[l]++
	}
	count[0] = 0
	for l := 1; l <= maxBits; l++ {
		next[l] = (next[l-1] + count[l-1]) << 1
	}
	*t = codeTable{}
	for s, l := range lengths {
		if l != 0 {
			t[s] = uint32(l)<<16 | uint32(bits.Reverse16(uint16(next[l]))>>(16-l))
			next[l]++
		}
	}
}

// block writes a block or a piece of one.
func (w *streamWriter) block(ev *event, win *window) {
	if ev.first {
		w.head(ev)
	}
	if ev.block == blockStored {
		at := win.index(ev.start)
		w.bytes(win.buf[at : at+ev.size])
		return
	}
	w.tokens(ev.tokens)
	if ev.last {
		w.code(w.lit[endOfBlock])
	}
}

func (w *streamWriter) head(ev *event) {
	w.put(uint64(b2u(ev.final))|uint64(ev.block)<<1, 3)
	switch ev.block {
	case blockStored:
		w.align(ev.pad)
		size := binary.LittleEndian.AppendUint16(nil, uint16(ev.size))
		w.bytes(binary.LittleEndian.AppendUint16(size, ^uint16(ev.size)))
	case blockFixed:
		w.lit.build(fixedLit[:])
		w.dist.build(fixedDist[:])
	default:
		w.header(ev.header)
		w.lit.build(ev.header.litLengths())
		w.dist.build(ev.header.distLengths())
	}
}

func (w *streamWriter) header(h *header) {
	w.put(uint64(h.lit-257)|uint64(h.dist-1)<<5|uint64(h.codes-4)<<10, 14)
	for _, s := range codeOrder[:h.codes] {
		w.put(uint64(h.codeLength[s]), 3)
	}
	w.lit.build(h.codeLength[:])
	for _, s := range h.symbols {
		w.code(w.lit[s.symbol])
		w.put(uint64(s.extra), repeatBits(s.symbol))
	}
}

func (w *streamWriter) code(c uint32) { w.put(uint64(c&0xffff), uint(c>>16)) }

func (w *streamWriter) tokens(tokens []token) {
	for _, t := range tokens {
		if t < 1<<16 {
			w.code(w.lit[t])
			continue
		}
		symbol := lengthCodeOf(t)
		w.code(w.lit[symbol])
		if extra := uint(lengthExtra[symbol-firstLength]); extra > 0 {
			w.put(uint64(tokenLength(t))-uint64(lengthBase[symbol-firstLength]), extra)
		}
		dist := int(t & 0xffff)
		d := distSymbol(dist)
		w.code(w.dist[d])
		w.put(uint64(dist)-uint64(distBase[d]), uint(distExtra[d]))
	}
}
