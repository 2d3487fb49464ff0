package deflate

import (
	"encoding/binary"
	"math/bits"
)

// A scan is the state of an encoder that looks for matches with small hash tables,
// a unit of input at a time: Go's level 1 and the levels 1 to 6 of klauspost's
// compress/flate. Such an encoder does not look at every position: it runs ahead from
// where the last match ended until it meets a match, and then goes on after that.
//
// All places are indexes of buf; entries of tables are indexes plus off.
type scan struct {
	buf  []byte
	off  uint32
	low  int // start of what the encoder ever saw
	hist int // start of what it still has
	end  int // of the unit

	emit  int // end of the last match
	s     int // where the search goes on
	limit int // where it ends
	next  int // where it would have gone on, had there been no match

	again  bool // there is a match at s with t already
	t      int  // where the bytes of the match are
	l      int  // its length
	repeat int  // distance of the last match
}

// A fastLevel is how such an encoder searches.
type fastLevel interface {
	// clear empties the tables.
	clear()
	// find searches from x.s and sets s, t and l; false when the unit ends first.
	find(x *scan) bool
	// after is called with the match passed over: l bytes up to x.emit.
	after(x *scan)
	// tail is called instead of after when the search ends with the match.
	tail(x *scan)
}

func (x *scan) load32(i int) uint32 { return binary.LittleEndian.Uint32(x.buf[i:]) }
func (x *scan) load64(i int) uint64 { return binary.LittleEndian.Uint64(x.buf[i:]) }

// place is the index that an entry of a table stands for.
func (x *scan) place(entry uint32) int { return int(int32(entry - x.off)) }

// matches says whether the four bytes of cv, at s, are at t too, less than dist away.
func (x *scan) matches(t, s, dist int, cv uint32) bool {
	return s-t < dist && t < s && t >= x.low && x.load32(t) == cv
}

// length compares what is at s and t up to the end of the unit.
func (x *scan) length(s, t int) int { return x.upTo(s, t, x.end) }

// short is length for at most what a match may have, four bytes being known already.
func (x *scan) short(s, t int) int { return x.upTo(s, t, min(s+maxMatch-4, x.end)) }

func (x *scan) upTo(s, t, end int) int {
	if s >= end {
		return 0
	}
	n, a, b := 0, x.buf[s:end], x.buf[t:t+end-s]
	for len(a)-n >= 8 {
		if d := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); d != 0 {
			return n + bits.TrailingZeros64(d)>>3
		}
		n += 8
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}

// back extends a match backwards over what is not yet written.
func (x *scan) back() {
	for x.t > x.hist && x.s > x.emit && x.buf[x.t-1] == x.buf[x.s-1] {
		x.s--
		x.t--
		x.l++
	}
}

// A fastPredictor runs a fastLevel.
type fastPredictor struct {
	win    *window
	level  fastLevel
	margin int  // at the end of a unit, where no match begins
	extend bool // klauspost's: matches are longer than 258 and go backwards

	x          scan
	start, end int64 // of the unit
	low, hist  int64
	run        int64 // end of the last real match
	s, emit    int64
	again      bool
	t          int64
	repeat     int
	done       bool // no further match in the unit
	reset      bool // the encoder forgets all after this unit

	have  bool  // a match has been planned
	place int64 // where it begins
	left  int
	dist  int
}

const (
	// fastUnit is how much these encoders take at once.
	fastUnit = 65535
	// fastHistory is how much they keep before they move their window.
	fastHistory = 5 * fastUnit
	// A unit of less than this, at the end, is not searched, and all is forgotten.
	fastTiny = 128
)

func (f *fastPredictor) restart(pos int64, dict int) {
	f.level.clear()
	f.low = max(pos-int64(dict), 0)
	f.hist = f.low
	f.reset = false
	if f.low < pos {
		f.begin(f.low, pos)
		f.finish()
	}
}

func (f *fastPredictor) unit(start, end int64, hard, literals bool) {
	if f.reset {
		f.restart(start, 0)
	}
	end = min(end, f.win.end())
	f.reset = hard && end-start < fastTiny
	f.begin(start, end)
	if literals {
		f.finish()
	}
	if f.reset {
		f.done, f.have = true, false
	}
}

// begin starts a unit.
func (f *fastPredictor) begin(start, end int64) {
	f.start, f.end = start, end
	if end-f.hist > fastHistory {
		f.hist = max(f.hist, start-maxDistance)
	}
	f.s, f.emit, f.run = start, start, start
	f.again, f.have, f.repeat = false, false, 1
	f.done = end-start < int64(f.margin)+2
}

// finish searches the rest of the unit without any use of what is found but that the
// tables are as they would be.
func (f *fastPredictor) finish() {
	for !f.done {
		f.plan()
	}
	f.have = false
}

// plan searches for the next match.
func (f *fastPredictor) plan() {
	x := f.look(f.s)
	x.emit, x.again, x.t = f.win.index(f.emit), f.again, f.win.index(f.t)
	f.have = f.level.find(x)
	if !f.have {
		f.done = true
		return
	}
	f.place, f.left, f.dist = f.win.base+int64(x.s), x.l, x.s-x.t
	x.repeat = f.dist
	x.s += x.l
	f.passed(x)
}

// look prepares the scan to go on at s.
func (f *fastPredictor) look(s int64) *scan {
	w := f.win
	f.x = scan{
		buf: w.buf, off: w.off(), low: w.index(f.low), hist: w.index(f.hist), end: w.index(f.end), s: w.index(s),
		next: w.index(s), limit: w.index(f.end) - f.margin, repeat: f.repeat,
	}
	return &f.x
}

// passed brings the tables up to date after a match that ends at x.s.
func (f *fastPredictor) passed(x *scan) {
	x.emit, x.again = x.s, false
	if f.extend && x.next >= x.s {
		x.s = x.next + 1
	}
	if x.s >= x.limit {
		f.level.tail(x)
		f.done = true
	} else {
		f.level.after(x)
	}
	base := f.win.base
	f.emit, f.s, f.again, f.t, f.repeat = base+int64(x.emit), base+int64(x.s), x.again, base+int64(x.t), x.repeat
}

func (f *fastPredictor) predict(pos int64) (length, dist int) {
	if !f.have && !f.done {
		f.plan()
	}
	if !f.have || pos < f.place {
		return 1, 0
	}
	return f.piece(), f.dist
}

// piece is how much of a long match is written at once, so that what is left is never
// too short for a match.
func (f *fastPredictor) piece() int {
	switch {
	case f.left > maxMatch+minMatch:
		return maxMatch
	case f.left > maxMatch:
		return maxMatch - minMatch
	}
	return f.left
}

func (f *fastPredictor) accept(pos int64, length, dist int) {
	after := pos + int64(length)
	if length > 1 {
		f.run = after
	}
	switch {
	case length == 1 && (!f.have || pos < f.place):
		return
	case length > 1 && f.have && pos == f.place && length == f.piece() && dist == f.dist:
		f.left -= length
		f.place = after
		f.have = f.left > 0
		return
	}
	// The encoder is not where it was thought to be: search anew from here.
	f.have, f.again, f.s, f.emit = false, false, after, f.run
	f.done = after >= f.end-int64(f.margin)
	if length > 1 && !f.done {
		x := f.look(after)
		x.l, x.next, x.repeat = length, f.win.index(pos)+1, dist
		f.passed(x)
	}
}

func (f *fastPredictor) skip(pos int64, n int) {
	if pos == f.start && pos+int64(n) >= f.end {
		f.finish()
		return
	}
	f.have, f.again, f.s, f.emit, f.run = false, false, pos+int64(n), pos+int64(n), pos+int64(n)
	f.done = f.s >= f.end-int64(f.margin)
}

func (f *fastPredictor) rank(int64, int, int) int { return -1 }
func (f *fastPredictor) at(int64, int, int) int   { return 0 }
