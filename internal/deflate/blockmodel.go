package deflate

// How the length of a piece of a block is told.
const (
	asBefore  = 0 // as many tokens as the last piece that was told so
	toUnitEnd = 1
	counted   = 2
)

// block codes a block or a piece of one.
func (s *session) block(ev *event) error {
	b := &s.blocks
	if ev.first {
		s.blockHead(ev)
	}
	if s.c.err != nil {
		return s.c.err
	}
	var err error
	if ev.block == blockStored {
		err = s.stored(ev)
	} else {
		err = s.pieces(ev)
	}
	b.ended = ev.final && ev.last
	return err
}

// blockHead codes the kind of a block and whether it is the last.
func (s *session) blockHead(ev *event) {
	b := &s.blocks
	// One bit is told without a model, so that a correction cannot stand for
	// endlessly many blocks.
	s.c.raw(0, 1)
	atStop := b2u(s.pos == s.lastStop)
	ev.final = s.c.flag(&b.final[atStop], ev.final)
	p := &b.kind[b.prevKind]
	switch {
	case s.c.flag(&p[0], uint32(ev.block) == b.prevKind):
		ev.block = uint8(b.prevKind)
	case s.c.flag(&p[1], uint32(ev.block) == (b.prevKind+1)%3):
		ev.block = uint8((b.prevKind + 1) % 3)
	default:
		ev.block = uint8((b.prevKind + 2) % 3)
	}
	b.prevKind = uint32(ev.block)
}

// empty codes whether there is nothing in a block.
func (s *session) empty(ev *event, n int) bool {
	return s.c.flag(&s.blocks.empty[ev.block][b2u(s.pos == s.lastStop)], n == 0)
}

// mode codes how the length of a piece is told.
func (s *session) mode(block uint8, n uint64, toEnd bool) uint32 {
	b := &s.blocks
	p := &b.mode[block]
	if s.c.flag(&p[0], n == b.lastN[block] && !toEnd) {
		return asBefore
	}
	if s.c.flag(&p[1], toEnd) {
		return toUnitEnd
	}
	return counted
}

// stored codes a block of bytes as they are.
func (s *session) stored(ev *event) error {
	b := &s.blocks
	ev.pad = s.padding(0, ev.pad)
	ev.start, ev.last = s.pos, true
	if s.empty(ev, ev.size) {
		ev.size = 0
		return s.c.err
	}
	if !s.c.encoding {
		if err := s.ahead(); err != nil {
			return err
		}
	}
	s.rest = nil
	s.openIfNeeded()
	switch s.mode(blockStored, uint64(ev.size), s.pos+int64(ev.size) == s.unitEnd) {
	case asBefore:
		ev.size = int(b.lastN[blockStored])
	case toUnitEnd:
		ev.size = int(s.unitEnd - s.pos)
	default:
		ev.size = int(b.count.code(s.c, uint64(ev.size)))
		b.lastN[blockStored] = uint64(ev.size)
	}
	if ev.size < 1 || ev.size > 65535 || s.pos+int64(ev.size) > s.win.end() {
		return corrupt("a stored block with a wrong length")
	}
	for left := ev.size; left > 0; {
		s.openIfNeeded()
		n := int(min(int64(left), s.unitEnd-s.pos))
		s.pred.skip(s.pos, n)
		left -= n
		s.pos += int64(n)
		s.reached()
	}
	return s.c.err
}

func (s *session) openIfNeeded() {
	if s.pos >= s.unitEnd {
		s.openUnit()
	}
}

// pieces codes the tokens of an event. Encoders that work unit by unit may go on with
// a block from one to the next; such a block is told in pieces.
func (s *session) pieces(ev *event) error {
	tokens := ev.tokens
	for first := ev.first; ; first = false {
		n := len(tokens)
		toEnd := false
		if s.empty(ev, n) {
			n, ev.tokens = 0, ev.tokens[:0]
		} else {
			var err error
			if s.rest = tokens; !s.c.encoding {
				err = s.ahead()
			}
			if err != nil {
				return err
			}
			s.openIfNeeded()
			if s.c.encoding {
				n, toEnd = s.cut(tokens)
			}
			if n, err = s.piece(ev, tokens, n, toEnd); err != nil {
				return err
			}
		}
		if first && ev.block == blockDynamic {
			if err := s.dynamic(ev, n); err != nil {
				return err
			}
		}
		if s.c.encoding {
			tokens = tokens[n:]
		}
		more := s.c.flag(&s.blocks.goesOn[b2u(s.pos == s.unitEnd)][0], len(tokens) > 0 || !ev.last)
		if !s.c.encoding {
			ev.last = !more
			if more && n == 0 {
				return corrupt("an empty piece of a block")
			}
			return s.c.err
		}
		if !more || len(tokens) == 0 {
			return s.c.err
		}
	}
}

// cut returns how many tokens belong to the next piece and whether it ends with the
// unit.
func (s *session) cut(tokens []token) (n int, toEnd bool) {
	if !s.spec.unitsAreHard && s.hardEnd == 0 {
		return len(tokens), false
	}
	pos := s.pos
	for n < len(tokens) && pos < s.unitEnd {
		pos += int64(tokenLength(tokens[n]))
		n++
	}
	if pos < s.unitEnd {
		return n, false
	}
	if !s.spec.unitsAreHard && n < len(tokens) {
		return len(tokens), false
	}
	return n, pos == s.unitEnd
}

// piece codes n tokens, or those up to the end of the unit, and returns how many.
func (s *session) piece(ev *event, tokens []token, n int, toEnd bool) (int, error) {
	b := &s.blocks
	count := uint64(n)
	mode := s.mode(ev.block, count, toEnd)
	switch mode {
	case asBefore:
		count = b.lastN[ev.block]
	case counted:
		count = b.count.code(s.c, count)
		b.lastN[ev.block] = count
	}
	end := s.unitEnd
	if !s.c.encoding {
		tokens = ev.tokens[:0]
		if mode != toUnitEnd && (count == 0 || count > pieceTokens+1<<16) {
			return 0, corrupt("a block with a wrong number of tokens")
		}
	}
	for i := 0; mode == toUnitEnd && s.pos < end || mode != toUnitEnd && uint64(i) < count; i++ {
		var t token
		if s.c.encoding {
			t = tokens[i]
			if s.c.err != nil {
				return 0, s.c.err
			}
		} else if err := s.ahead(); err != nil {
			return 0, err
		}
		if s.pos >= s.unitEnd {
			if s.c.encoding {
				s.rest = tokens[i:]
			}
			s.openUnit()
		}
		t = s.tokens.run(s.c, s.pred, s.win, s.pos, t)
		if !s.c.encoding {
			tokens = append(tokens, t)
		}
		s.pos += int64(tokenLength(t))
		s.reached()
		n = i + 1
	}
	if !s.c.encoding {
		ev.tokens = tokens
	}
	return n, s.c.err
}

// ahead makes sure, when decoding, that there is plaintext to go on with.
func (s *session) ahead() error {
	if s.c.err != nil {
		return s.c.err
	}
	if s.win.end()-s.pos < lookahead && !s.win.eof {
		if err := s.more(); err != nil {
			return err
		}
	}
	if s.pos >= s.win.end() {
		return corrupt("it goes on after the plaintext")
	}
	return nil
}

// dynamic codes the header of a dynamic block from its first tokens.
func (s *session) dynamic(ev *event, n int) error {
	var f histogram
	f.count(ev.tokens[:n])
	if !s.c.encoding {
		ev.header = cleared(ev.header)
	}
	return s.header.run(s.c, &f, ev.header)
}
