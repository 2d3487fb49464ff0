package deflate

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// Pieces of blocks are at most this large, in tokens and in bytes of plaintext.
const (
	pieceTokens = 1 << 18
	pieceBytes  = 1 << 22
	// maxHeader bounds the header of a member: names and comments have no limit in
	// the format, but nobody needs a megabyte of them.
	maxHeader = 1 << 20
)

// A gunzipper takes a gzip stream apart into events, and appends the plaintext to a
// window.
type gunzipper struct {
	in  *bitReader
	win *window

	inMember bool
	any      bool // a member has been seen
	start    int64
	crc      uint32
	summed   int64

	tail      bool // only trailing bytes are left
	inBlock   bool
	block     event // of the current block: kind, final, header
	left      int   // of a stored block
	lit, dist decodeTable
	code      decodeTable
	done      bool
}

// next fills ev with the next event.
func (g *gunzipper) next(ev *event) error {
	*ev = event{tokens: ev.tokens[:0], raw: ev.raw[:0], header: ev.header}
	switch {
	case g.done:
		ev.kind = evEnd
		return nil
	case g.tail:
		return g.trailing(ev, nil)
	case g.inBlock:
		return g.piece(ev)
	case g.inMember:
		if g.block.final {
			return g.trailer(ev)
		}
		return g.blockStart(ev)
	}
	return g.member(ev)
}

// member reads what follows a member, or starts the stream.
func (g *gunzipper) member(ev *event) error {
	var fixed [10]byte
	n := g.in.bytes(fixed[:])
	magic := n == 10 && bytes.Equal(fixed[:3], []byte{0x1f, 0x8b, 8})
	if !magic {
		if !g.any {
			return notGzip("it does not begin with a gzip header")
		}
		return g.trailing(ev, fixed[:n])
	}
	ev.kind = evMember
	ev.raw = append(ev.raw, fixed[:]...)
	if err := g.headerFields(ev, fixed[3]); err != nil {
		return err
	}
	g.any, g.inMember, g.block.final = true, true, false
	g.start, g.crc, g.summed = g.win.end(), 0, g.win.end()
	ev.start = g.start
	return nil
}

// headerFields reads the optional fields that the flags announce.
func (g *gunzipper) headerFields(ev *event, flags byte) error {
	if flags&4 != 0 {
		if err := g.rawBytes(ev, 2); err != nil {
			return err
		}
		if err := g.rawBytes(ev, int(binary.LittleEndian.Uint16(ev.raw[len(ev.raw)-2:]))); err != nil {
			return err
		}
	}
	for _, bit := range []byte{8, 16} {
		for flags&bit != 0 {
			if err := g.rawBytes(ev, 1); err != nil {
				return err
			}
			if ev.raw[len(ev.raw)-1] == 0 {
				break
			}
			if len(ev.raw) > maxHeader {
				return notGzip("a member's header is longer than %d bytes", maxHeader)
			}
		}
	}
	if flags&2 != 0 {
		sum := uint16(crc32.ChecksumIEEE(ev.raw))
		if err := g.rawBytes(ev, 2); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(ev.raw[len(ev.raw)-2:]) != sum {
			return notGzip("the checksum of a member's header does not match")
		}
	}
	return nil
}

func (g *gunzipper) rawBytes(ev *event, n int) error {
	at := len(ev.raw)
	ev.raw = append(ev.raw, make([]byte, n)...)
	if g.in.bytes(ev.raw[at:]) < n {
		return g.in.failure()
	}
	return nil
}

// trailing passes on what follows the last member, a piece at a time.
func (g *gunzipper) trailing(ev *event, begun []byte) error {
	if len(begun) >= 2 && begun[0] == 0x1f && begun[1] == 0x8b {
		return notGzip("a damaged member follows a good one")
	}
	g.tail = true
	const piece = 32 << 10
	ev.raw = append(ev.raw, begun...)
	at := len(ev.raw)
	ev.raw = append(ev.raw, make([]byte, piece)...)
	n := g.in.bytes(ev.raw[at:])
	ev.raw = ev.raw[:at+n]
	if n < piece {
		g.done = true
		g.win.eof = true
		if !isEOF(g.in.err) {
			return g.in.err
		}
	}
	ev.kind = evTrailing
	if len(ev.raw) == 0 {
		ev.kind = evEnd
	}
	return nil
}

// trailer checks the end of a member.
func (g *gunzipper) trailer(ev *event) error {
	ev.kind, ev.pad = evTrailer, g.in.align()
	ev.start = g.win.end()
	var sum [8]byte
	if g.in.bytes(sum[:]) < len(sum) {
		return g.in.failure()
	}
	g.sum()
	if binary.LittleEndian.Uint32(sum[:]) != g.crc {
		return notGzip("the checksum of a member does not match")
	}
	if binary.LittleEndian.Uint32(sum[4:]) != uint32(g.win.end()-g.start) {
		return notGzip("the size of a member does not match")
	}
	g.inMember = false
	return nil
}

// sum brings the checksum up to the end of the window.
func (g *gunzipper) sum() {
	g.crc = crc32.Update(g.crc, crc32.IEEETable, g.win.buf[g.win.index(g.summed):])
	g.summed = g.win.end()
}
