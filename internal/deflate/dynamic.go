package deflate

// dynamicHeader reads the code lengths of a block.
func (g *gunzipper) dynamicHeader(h *header) error {
	counts, err := g.in.take(14)
	if err != nil {
		return err
	}
	h.lit, h.dist, h.codes = int(counts&31)+257, int(counts>>5&31)+1, int(counts>>10)+4
	if h.lit > maxLit || h.dist > maxDist {
		return notGzip("a block has too many codes")
	}
	for _, symbol := range codeOrder[:h.codes] {
		v, err := g.in.take(3)
		if err != nil {
			return err
		}
		h.codeLength[symbol] = uint8(v)
	}
	if !g.code.build(h.codeLength[:]) {
		return notGzip("the code of a block's header is not a code")
	}
	for n := 0; n < h.lit+h.dist; {
		s, err := g.headerSymbol()
		if err != nil {
			return err
		}
		h.symbols = append(h.symbols, s)
		k := h.expand(s, n)
		if k == 0 {
			return notGzip("a block's header repeats what it must not")
		}
		n += k
	}
	return nil
}

func (g *gunzipper) headerSymbol() (headerSymbol, error) {
	g.in.refill()
	e := g.code.find(g.in.acc)
	bits := uint(e & 0xff)
	if e == 0 || bits > g.in.n {
		return headerSymbol{}, g.badCode()
	}
	g.in.acc >>= bits
	g.in.n -= bits
	s := headerSymbol{symbol: uint8(e >> 8)}
	extra, err := g.in.take(repeatBits(s.symbol))
	s.extra = uint8(extra)
	return s, err
}

// repeatBits is how many bits follow a symbol of a header.
func repeatBits(symbol uint8) uint {
	switch symbol {
	case 16:
		return 2
	case 17:
		return 3
	case 18:
		return 7
	}
	return 0
}

// expand writes what a symbol says at lengths[n:] and returns how many lengths that
// are; 0 means that it must not stand there.
func (h *header) expand(s headerSymbol, n int) int {
	var value uint8
	count := 1
	switch s.symbol {
	case 16:
		if n == 0 {
			return 0
		}
		value, count = h.lengths[n-1], 3+int(s.extra)
	case 17:
		count = 3 + int(s.extra)
	case 18:
		count = 11 + int(s.extra)
	default:
		value = s.symbol
	}
	if n+count > h.lit+h.dist {
		return 0
	}
	for i := range count {
		h.lengths[n+i] = value
	}
	return count
}

func (h *header) litLengths() []uint8  { return h.lengths[:h.lit] }
func (h *header) distLengths() []uint8 { return h.lengths[h.lit : h.lit+h.dist] }

func (g *gunzipper) buildTables(h *header) error {
	if h.lengths[endOfBlock] == 0 {
		return notGzip("a block that cannot end")
	}
	if !g.lit.build(h.litLengths()) || !g.dist.build(h.distLengths()) {
		return notGzip("the code lengths of a block are not a code")
	}
	return nil
}
