package deflate

import (
	"hash/crc32"
	"io"
)

// Stats says what Analyze found.
type Stats struct {
	Predictor      string // the encoder that the stream looks like
	BlobSize       int64
	PlainSize      int64
	PlainCRC       uint32 // CRC-32 (IEEE) of the whole plaintext
	CorrectionSize int64
	Members        int64
	Blocks         int64
	Tokens         int64
	Mispredicted   int64 // tokens that are not as predicted
}

const (
	magic   = "dfc"
	version = 1
	// sample is how much plaintext decides which predictor is taken: more than the
	// pieces in which parallel encoders commonly work.
	sample = 5 << 18
	// maxQueue bounds the events between inflating and predicting, for streams with
	// a flush after each byte or millions of empty blocks.
	maxQueue = 1 << 19
)

// An analyzer inflates ahead of a session, so that predictors see what follows.
type analyzer struct {
	g     *gunzipper
	win   *window
	queue []*event
	free  []*event
	done  bool
	stats Stats

	stops     []int64
	lastStop  int64
	interval  int64
	sumsUntil int64
}

// Analyze reads a gzip stream and writes the correction from which, together with the
// plaintext, Reconstruct makes the same bytes again. It needs some ten MiB of memory,
// whatever the stream. The error is ErrNotGzip for what gunzip would refuse; errors of
// the reader and the writer are passed on.
func Analyze(blob io.Reader, correction io.Writer) (Stats, error) {
	return analyze(blob, correction, (*analyzer).choose)
}

// analyze is Analyze with the spec that pick returns.
func analyze(blob io.Reader, correction io.Writer, pick func(*analyzer) spec) (Stats, error) {
	win := new(window)
	a := &analyzer{win: win, g: &gunzipper{in: newBitReader(blob), win: win}}
	if err := a.fill(sample + lookahead); err != nil {
		return Stats{}, err
	}
	s := pick(a)
	if _, err := correction.Write(append([]byte(magic), version, s.id)); err != nil {
		return Stats{}, err
	}
	n := newSession(newEncoder(correction), win, s)
	if err := a.run(n); err != nil {
		return Stats{}, err
	}
	a.stats.Predictor = s.name
	a.stats.BlobSize, a.stats.PlainSize = a.g.in.size, win.end()
	a.stats.CorrectionSize = n.c.size + int64(len(magic)+2)
	a.stats.Tokens, a.stats.Mispredicted = n.tokens.tokens, n.tokens.misses
	return a.stats, nil
}

// run codes the whole stream.
func (a *analyzer) run(n *session) error {
	for {
		if err := a.fill(n.pos + lookahead); err != nil {
			return err
		}
		ev := a.queue[0]
		if err := a.fill(ev.start + int64(ev.size) + lookahead); err != nil {
			return err
		}
		n.stops = a.stops
		if err := n.code(ev); err != nil {
			return err
		}
		a.count(ev)
		if ev.kind == evEnd {
			return n.finish(a.g.in.crc, a.win.end())
		}
		a.win.keep = n.pos
		a.dropStops(n.pos)
		a.queue = a.queue[1:]
		a.free = append(a.free, ev)
	}
}

func (a *analyzer) count(ev *event) {
	switch {
	case ev.kind == evMember:
		a.stats.Members++
	case ev.kind == evBlock && ev.first:
		a.stats.Blocks++
	}
}

func (a *analyzer) dropStops(pos int64) {
	n := 0
	for n < len(a.stops) && a.stops[n] <= pos {
		n++
	}
	a.stops = a.stops[n:]
}

// fill inflates until there is plaintext after pos, or none.
func (a *analyzer) fill(pos int64) error {
	for !a.done && a.win.end() <= pos {
		var ev *event
		if n := len(a.free); n > 0 {
			ev, a.free = a.free[n-1], a.free[:n-1]
		} else {
			ev = new(event)
		}
		if err := a.g.next(ev); err != nil {
			return err
		}
		a.sum()
		a.noteStops(ev)
		a.queue = append(a.queue, ev)
		if len(a.queue) > maxQueue {
			return notGzip("endlessly many blocks without anything in them")
		}
		if ev.kind == evEnd {
			a.done, a.win.eof = true, true
		}
	}
	return nil
}

// sum brings the checksum of the plaintext up to date.
func (a *analyzer) sum() {
	new := a.win.buf[a.win.index(a.sumsUntil):]
	a.stats.PlainCRC = crc32.Update(a.stats.PlainCRC, crc32.IEEETable, new)
	a.sumsUntil = a.win.end()
}

// noteStops remembers where the encoder was made to write out all that it had: an
// empty block stands there, or a member ends. Encoders that do so at regular intervals
// may leave the empty block out when the bits happen to end with a byte.
func (a *analyzer) noteStops(ev *event) {
	end := ev.start + int64(ev.size)
	switch {
	case ev.kind == evMember:
		a.lastStop, a.interval = ev.start, 0
	case ev.kind == evTrailer:
		a.stop(ev.start)
	case ev.kind != evBlock:
	case ev.first && ev.last && ev.size == 0 && !ev.final && ev.block != blockDynamic:
		a.stop(ev.start)
	case ev.last && a.interval > 0 && end == a.lastStop+a.interval:
		a.stop(end)
	}
}

func (a *analyzer) stop(pos int64) {
	if pos <= a.lastStop {
		return
	}
	a.interval, a.lastStop = pos-a.lastStop, pos
	a.stops = append(a.stops, pos)
}
