package deflate

// A window is the part of the plaintext that is in memory. Positions count from the
// start of the plaintext, over all members.
type window struct {
	buf  []byte
	base int64 // position of buf[0]
	keep int64 // what is needed from here on, besides the history before it
	eof  bool  // the plaintext ends with buf
}

const (
	// history is what stays before keep: a match may reach 32 KiB back, but some
	// encoders compare with what is further away, by mistake.
	history = fastHistory + maxDistance
	// lookahead is what predictors may see after the current position, if there is
	// that much.
	lookahead = 1 << 17
	// bias keeps the positions in tables above zero, which is "none".
	bias = 1 << 17
)

func (w *window) end() int64 { return w.base + int64(len(w.buf)) }

// index turns a position into an index of buf.
func (w *window) index(pos int64) int { return int(pos - w.base) }

// off is what an index of buf lacks to the positions that tables hold, which wrap
// round after 4 GiB.
func (w *window) off() uint32 { return uint32(w.base) + bias }

// room makes sure that n bytes can be appended without moving buf, by letting go of
// what is no longer needed or by growing.
func (w *window) room(n int) {
	if cap(w.buf)-len(w.buf) >= n {
		return
	}
	drop := max(0, w.index(w.keep)-history)
	if drop < len(w.buf)/2 || cap(w.buf)-len(w.buf)+drop < n {
		grown := make([]byte, len(w.buf)-drop, 2*(len(w.buf)-drop)+n+1<<20)
		copy(grown, w.buf[drop:])
		w.buf = grown
	} else {
		w.buf = w.buf[:copy(w.buf, w.buf[drop:])]
	}
	w.base += int64(drop)
}
