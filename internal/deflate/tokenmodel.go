package deflate

// A tokenModel codes tokens as what they are beside what a predictor says.
type tokenModel struct {
	hit      [2][256]prob // the prediction is right, by its kind and how the last were
	isMatch  [2]prob
	sameLen  prob
	length   [2]symbolModel
	odd      prob
	ranked   [2]prob
	rank     numberModel
	distSlot symbolModel

	past   [2]uint32
	tokens int64
	misses int64
}

func newTokenModel() *tokenModel {
	m := &tokenModel{
		sameLen: probStart, odd: probStart, ranked: [2]prob{probStart, probStart}, isMatch: [2]prob{probStart, probStart},
		length: [2]symbolModel{newSymbolModel(8), newSymbolModel(8)}, rank: newNumberModel(), distSlot: newSymbolModel(5),
	}
	copy(m.hit[0][:], newProbs(256))
	copy(m.hit[1][:], newProbs(256))
	return m
}

// run codes the token at pos and tells the predictor.
func (m *tokenModel) run(c *coder, p predictor, w *window, pos int64, t token) token {
	lit := w.buf[w.index(pos)]
	length, dist := p.predict(pos)
	kind := b2u(length > 1)
	guess := token(lit)
	if kind == 1 {
		guess = matchToken(length, dist)
	}
	m.tokens++
	past := &m.past[kind]
	hit := c.flag(&m.hit[kind][*past], t&^oddLength == guess)
	*past = (*past<<1 | b2u(hit)) & 255
	if hit {
		t = guess | t&oddLength
	} else {
		m.misses++
		t = m.miss(c, p, pos, t, kind, length, dist)
		if t < 1<<16 {
			t = token(lit)
		} else if tokenLength(t) > int(w.end()-pos) || t&0xffff == 0 {
			c.fail("a match that cannot be")
			t = token(lit)
		}
	}
	length, dist = tokenLength(t), 0
	if t >= 1<<16 {
		dist = int(t & 0xffff)
		if length == maxMatch && c.flag(&m.odd, t&oddLength != 0) {
			t |= oddLength
		}
	}
	p.accept(pos, length, dist)
	return t
}

// miss codes a token that is not the predicted one.
func (m *tokenModel) miss(c *coder, p predictor, pos int64, t token, kind uint32, length, dist int) token {
	isMatch := t >= 1<<16
	if kind == 0 {
		isMatch = true // the prediction was the literal
	} else {
		isMatch = c.flag(&m.isMatch[kind], isMatch)
	}
	if !isMatch {
		return 0
	}
	l, d := tokenLength(t), int(t&0xffff)
	if kind == 1 && c.flag(&m.sameLen, l == length) {
		l = length
	} else {
		l = int(m.length[kind].code(c, uint32(l-minMatch)&255)) + minMatch
	}
	return m.distance(c, p, pos, l, d) | t&oddLength
}

// distance codes the distance of a match: how many nearer matches of its length there
// are, or as it is.
func (m *tokenModel) distance(c *coder, p predictor, pos int64, l, d int) token {
	rank := -1
	if c.encoding {
		rank = p.rank(pos, l, d)
	}
	if c.flag(&m.ranked[0], rank >= 0) {
		rank = int(m.rank.code(c, uint64(rank)))
		if !c.encoding {
			d = p.at(pos, l, rank)
		}
		return matchToken(l, d)
	}
	var slot uint32
	if c.encoding {
		slot = uint32(distSymbol(d))
	}
	slot = m.distSlot.code(c, slot)
	if slot >= maxDist {
		return matchToken(l, 0) // refused by the caller
	}
	base := int(distBase[slot])
	return matchToken(l, base+int(c.raw(uint64(d-base), uint(distExtra[slot]))))
}
