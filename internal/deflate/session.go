package deflate

// A session is the model of a whole stream. Analyze runs it to write a correction,
// Reconstruct to read one; every method codes an event with the same steps either
// way, and fills it when decoding.
type session struct {
	c      *coder
	win    *window
	spec   spec
	pred   predictor
	tokens *tokenModel
	header *headerModel
	blocks blockModel
	pos    int64        // in the plaintext
	more   func() error // reads more plaintext when decoding

	rest     []token // of the event from pos on; only when encoding
	unitEnd  int64
	hardEnd  int64   // end of what the encoder saw when it worked on this unit, or 0
	stops    []int64 // known hard ends, ascending; only when encoding
	lastStop int64
	interval int64
}

// A blockModel codes what blocks are besides tokens and headers.
type blockModel struct {
	kind     [4][3]prob
	prevKind uint32
	final    [2]prob
	empty    [4][2]prob
	mode     [4][3]prob
	count    numberModel
	lastN    [4]uint64
	goesOn   [2][3]prob
	pad      [2]prob
	event    [4]prob
	raw      symbolModel
	rawLen   numberModel
	zeros    prob
	stop     [3]prob
	literals prob
	stopAt   numberModel
	sameRaw  prob
	any      bool // a member has begun
	inMember bool
	ended    bool // its final block is over
	tail     bool // only trailing bytes follow
	prevRaw  []byte
}

func fillProbs(ps ...[]prob) {
	for _, p := range ps {
		for i := range p {
			p[i] = probStart
		}
	}
}

func newSession(c *coder, w *window, s spec) *session {
	n := &session{c: c, win: w, spec: s, pred: s.predictor(w), tokens: newTokenModel(), header: newHeaderModel()}
	b := &n.blocks
	b.count, b.stopAt, b.rawLen, b.raw = newNumberModel(), newNumberModel(), newNumberModel(), newSymbolModel(8)
	b.zeros, b.sameRaw, b.literals = probStart, probStart, probStart
	for i := range 4 {
		fillProbs(b.kind[i][:], b.empty[i][:], b.mode[i][:])
	}
	fillProbs(b.final[:], b.goesOn[0][:], b.goesOn[1][:], b.pad[:], b.event[:], b.stop[:])
	return n
}

// member codes the header of a member.
func (s *session) member(ev *event) error {
	b := &s.blocks
	if s.c.flag(&b.sameRaw, s.c.encoding && string(ev.raw) == string(b.prevRaw)) {
		ev.raw = append(ev.raw[:0], b.prevRaw...)
	} else {
		n := b.rawLen.code(s.c, uint64(len(ev.raw)))
		if n > maxHeader+1<<17 {
			return corrupt("a member's header is too long")
		}
		if !s.c.encoding {
			ev.raw = append(ev.raw[:0], make([]byte, n)...)
		}
		for i, v := range ev.raw {
			ev.raw[i] = byte(b.raw.code(s.c, uint32(v)))
			if s.c.err != nil {
				return s.c.err
			}
		}
	}
	b.prevRaw = append(b.prevRaw[:0], ev.raw...)
	s.pred.restart(s.pos, 0)
	s.unitEnd, s.hardEnd, s.lastStop, s.interval = s.pos, 0, s.pos, 0
	return s.c.err
}

// trailing codes bytes after the last member, of which long runs of zeros are short.
func (s *session) trailing(ev *event) error {
	b := &s.blocks
	n := b.rawLen.code(s.c, uint64(len(ev.raw)))
	if n > 1<<16 {
		return corrupt("too many bytes after the last member")
	}
	if !s.c.encoding {
		ev.raw = append(ev.raw[:0], make([]byte, n)...)
	}
	s.c.raw(0, 1)
	if s.c.flag(&b.zeros, allZero(ev.raw)) && (s.c.encoding || s.c.err == nil) {
		return s.c.err
	}
	for i, v := range ev.raw {
		ev.raw[i] = byte(s.c.raw(uint64(v), 8))
	}
	return s.c.err
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// padding codes the bits that fill a byte, of which there are width.
func (s *session) padding(which int, pad byte) byte {
	if !s.c.flag(&s.blocks.pad[which], pad != 0) {
		return 0
	}
	return byte(s.c.raw(uint64(pad), 7))
}

// openUnit says how far the encoder saw data from here: it codes whether a hard end
// is within the unit.
func (s *session) openUnit() {
	b := &s.blocks
	end := s.pos + s.spec.unit
	var stop int64
	for len(s.stops) > 0 && s.stops[0] <= s.pos {
		s.stops = s.stops[1:]
	}
	if len(s.stops) > 0 && s.stops[0] <= end {
		stop = s.stops[0]
	}
	expected := s.lastStop + s.interval
	known := s.interval > 0 && expected > s.pos && expected <= end
	s.hardEnd = 0
	switch {
	case known && s.c.flag(&b.stop[0], stop == expected):
		s.hardEnd = expected
	case s.c.flag(&b.stop[1], stop != 0):
		after := b.stopAt.code(s.c, uint64(stop-s.pos-1))
		if after >= uint64(s.spec.unit) {
			s.c.fail("a hard end beyond its unit")
			after = 0
		}
		s.hardEnd = s.pos + 1 + int64(after)
	}
	s.unitEnd = end
	if s.hardEnd != 0 {
		s.unitEnd = s.hardEnd
	}
	literals := false
	if s.spec.unitsAreHard {
		// These encoders give up matches altogether where there are few.
		literals = s.c.flag(&b.literals, s.onlyLiterals())
	}
	s.pred.unit(s.pos, s.unitEnd, s.hardEnd != 0, literals)
}

// onlyLiterals says whether the unit that has been opened is known to have no match.
func (s *session) onlyLiterals() bool {
	n := min(int64(len(s.rest)), s.unitEnd-s.pos)
	for _, t := range s.rest[:n] {
		if t >= 1<<16 {
			return false
		}
	}
	return n > 0 && s.pos+n == s.unitEnd
}

// reached is called when the position has moved on: at a hard end the encoder may
// begin anew.
func (s *session) reached() {
	if s.hardEnd != 0 && s.pos >= s.hardEnd {
		s.interval, s.lastStop = s.hardEnd-s.lastStop, s.hardEnd
		s.hardEnd = 0
		if s.spec.restarts {
			s.pred.restart(s.pos, s.dictionary())
		}
	}
}

// code codes an event.
func (s *session) code(ev *event) error {
	if s.codeKind(ev); s.c.err != nil {
		return s.c.err
	}
	switch ev.kind {
	case evMember:
		return s.member(ev)
	case evBlock:
		return s.block(ev)
	case evTrailer:
		ev.pad = s.padding(1, ev.pad)
	case evTrailing:
		return s.trailing(ev)
	}
	return s.c.err
}

// codeKind codes which kind of event comes, where there is a choice: a member is
// blocks until the final one, then a trailer.
func (s *session) codeKind(ev *event) {
	b := &s.blocks
	switch {
	case !b.inMember && !b.any:
		ev.kind = evMember
	case !b.inMember:
		switch {
		case !b.tail && s.c.flag(&b.event[0], ev.kind == evMember):
			ev.kind = evMember
		case s.c.flag(&b.event[1], ev.kind == evTrailing):
			ev.kind = evTrailing
			b.tail = true
		default:
			ev.kind = evEnd
		}
	case b.ended:
		ev.kind = evTrailer
	default:
		ev.kind = evBlock
	}
	b.any = true
	b.inMember = ev.kind == evMember || ev.kind == evBlock
	if ev.kind == evMember {
		b.ended = false
	}
}

// finish codes what the whole must come to.
func (s *session) finish(crc uint32, plain int64) error {
	sum := uint32(s.c.raw(uint64(crc), 32))
	size := int64(s.c.raw(uint64(plain), 64))
	if err := s.c.close(); err != nil {
		return err
	}
	if sum != crc || size != plain {
		return corrupt("the result is not what was taken apart")
	}
	return nil
}

// dictionary is how much an encoder that begins anew remembers.
func (s *session) dictionary() int {
	dict := s.spec.dict
	if s.interval >= int64(dict) {
		return dict
	}
	if s.spec.unitsAreHard {
		return 0 // these remember all of it or nothing
	}
	return int(s.interval)
}
