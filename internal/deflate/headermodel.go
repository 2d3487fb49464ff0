package deflate

import "slices"

// A headerModel codes the headers of dynamic blocks: what is not as the frequencies
// of the block's tokens, and the habits of encoders, let expect.
type headerModel struct {
	builders [2]builder
	last     uint32 // the builder that was right last
	which    [2][3]prob
	equal    [2][16]prob
	length   [16]symbolModel
	fullLit  [3]prob
	fullDist [3]prob
	runs     [2]prob
	symbol   symbolModel
	code     prob
	codes    prob

	expected [2][maxLit + maxDist]uint8
	scratch  []headerSymbol
}

func newHeaderModel() *headerModel {
	m := &headerModel{symbol: newSymbolModel(5), code: probStart, codes: probStart}
	m.builders = [2]builder{new(heapBuilder), new(mergeBuilder)}
	for i := range m.length {
		m.length[i] = newSymbolModel(4)
	}
	for _, ps := range [][]prob{m.which[0][:], m.which[1][:], m.equal[0][:], m.equal[1][:], m.fullLit[:], m.fullDist[:], m.runs[:]} {
		for i := range ps {
			ps[i] = probStart
		}
	}
	return m
}

// A histogram counts the symbols of a block.
type histogram struct {
	lit  [maxLit]uint32
	dist [maxDist]uint32
}

func (f *histogram) count(tokens []token) {
	*f = histogram{}
	f.lit[endOfBlock] = 1
	for _, t := range tokens {
		if t < 1<<16 {
			f.lit[t]++
			continue
		}
		f.lit[lengthCodeOf(t)]++
		f.dist[distSymbol(int(t&0xffff))]++
	}
}

// lengthCodeOf is the symbol of the length of a match.
func lengthCodeOf(t token) int {
	if t&oddLength != 0 {
		return firstLength + len(lengthBase) - 2
	}
	return firstLength + int(lengthSymbol[tokenLength(t)])
}

// expect computes the lengths that a builder gives.
func (m *headerModel) expect(f *histogram, which uint32) []uint8 {
	e := m.expected[which][:]
	m.builders[which].build(f.lit[:], maxBits, e[:maxLit])
	dist := f.dist
	if which == 1 && dist == ([maxDist]uint32{}) {
		dist[0] = 1 // these encoders count a distance that is not there
	}
	m.builders[which].build(dist[:], maxBits, e[maxLit:])
	return e
}

// run codes a header; when decoding it fills it.
func (m *headerModel) run(c *coder, f *histogram, h *header) error {
	all := m.lengths(c, f, h)
	lit, dist := usedLengths(all[:maxLit], 257), usedLengths(all[maxLit:], 1)
	h.lit = m.trimmed(c, m.fullLit[:], h.lit, lit, maxLit)
	h.dist = m.trimmed(c, m.fullDist[:], h.dist, dist, maxDist)
	if !c.encoding {
		if h.lit < lit || h.lit > maxLit || h.dist < dist || h.dist > maxDist {
			return corrupt("a block header has too many codes")
		}
		copy(h.lengths[:], all[:h.lit])
		copy(h.lengths[h.lit:], all[maxLit:maxLit+h.dist])
	}
	if err := m.symbols(c, h); err != nil {
		return err
	}
	m.ownCode(c, h)
	return c.err
}

// lengths codes the code lengths of both alphabets, unused symbols included.
func (m *headerModel) lengths(c *coder, f *histogram, h *header) []uint8 {
	var all [maxLit + maxDist]uint8
	copy(all[:maxLit], h.litLengths())
	copy(all[maxLit:], h.distLengths())
	which := uint32(2)
	if c.encoding {
		for _, try := range []uint32{m.last, 1 - m.last} {
			if slices.Equal(all[:], m.expect(f, try)) {
				which = try
				break
			}
		}
	}
	first := c.bit(&m.which[m.last][0], b2u(which == m.last))
	if first == 1 {
		which = m.last
	} else if c.flag(&m.which[m.last][1], which != 2) {
		which = 1 - m.last
	} else {
		which = 2
	}
	if which != 2 {
		m.last = which
		return m.expect(f, which)
	}
	return m.eachLength(c, all[:], m.expect(f, m.last))
}

func b2u(v bool) uint32 {
	if v {
		return 1
	}
	return 0
}

// eachLength codes length by length how they differ from the expected.
func (m *headerModel) eachLength(c *coder, all, expected []uint8) []uint8 {
	run := uint32(7) // the last three were equal
	for i, e := range expected {
		if c.flag(&m.equal[b2u(e == 0)][run], all[i] == e) {
			all[i] = e
			run = (run<<1 | 1) & 7
			continue
		}
		all[i] = uint8(m.length[e&15].code(c, uint32(all[i])))
		run = run << 1 & 7
	}
	return slices.Clone(all)
}

// trimmed codes how many lengths an alphabet has: those that are used, all, or else.
func (m *headerModel) trimmed(c *coder, p []prob, n, used, all int) int {
	if c.flag(&p[0], n == used) {
		return used
	}
	if c.flag(&p[1], n == all) {
		return all
	}
	return int(c.raw(uint64(n), 9))
}

// symbols codes how the lengths are written.
func (m *headerModel) symbols(c *coder, h *header) error {
	for i := range m.runs {
		m.scratch = writeRuns(m.scratch[:0], h, i == 1)
		if c.flag(&m.runs[i], c.encoding && slices.Equal(m.scratch, h.symbols)) {
			h.symbols = append(h.symbols[:0], m.scratch...)
			return nil
		}
	}
	if c.encoding {
		for _, s := range h.symbols {
			m.symbol.code(c, uint32(s.symbol))
			c.raw(uint64(s.extra), repeatBits(s.symbol))
		}
		return nil
	}
	h.symbols = h.symbols[:0]
	for n := 0; n < h.lit+h.dist; {
		s := headerSymbol{symbol: uint8(m.symbol.code(c, 0))}
		s.extra = uint8(c.raw(0, repeatBits(s.symbol)))
		k := 0
		if s.symbol < 19 && c.err == nil {
			k = h.expand(s, n)
		}
		if k == 0 {
			return corrupt("a block header repeats what it must not")
		}
		h.symbols = append(h.symbols, s)
		n += k
	}
	return nil
}

// ownCode codes the code of the header itself.
func (m *headerModel) ownCode(c *coder, h *header) {
	var freq [19]uint32
	for _, s := range h.symbols {
		freq[s.symbol]++
	}
	var expected [19]uint8
	m.builders[m.last].build(freq[:], 7, expected[:])
	if c.flag(&m.code, h.codeLength == expected) {
		h.codeLength = expected
	} else {
		for i := range h.codeLength {
			h.codeLength[i] = uint8(c.raw(uint64(h.codeLength[i]), 3))
		}
	}
	used := usedCodes(&h.codeLength)
	if c.flag(&m.codes, h.codes == used) {
		h.codes = used
	} else {
		h.codes = min(max(used, int(c.raw(uint64(h.codes), 5))), len(codeOrder))
	}
}
