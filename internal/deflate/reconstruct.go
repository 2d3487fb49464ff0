package deflate

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// readPiece is how much plaintext is read at once.
const readPiece = 256 << 10

// A rebuilder reads plaintext for a session and writes the stream that it tells.
type rebuilder struct {
	*session
	plain  io.Reader
	out    *streamWriter
	crc    uint32 // of the plaintext of the current member
	summed int64
	start  int64 // of the current member
}

// Reconstruct writes the gzip stream that Analyze took apart, from its plaintext and
// the correction. The error is ErrCorrection when the two do not belong together or
// are damaged, which may be found only after all has been written: nothing may be
// believed before Reconstruct has returned nil. It needs some ten MiB of memory; a
// hostile correction can make it write much more than the plaintext, so w should
// refuse what is longer than the blob is known to be.
func Reconstruct(plain io.Reader, correction io.Reader, w io.Writer) error {
	r := bufio.NewReader(correction)
	s, err := readSpec(r)
	if err != nil {
		return err
	}
	win := new(window)
	b := &rebuilder{session: newSession(newDecoder(r), win, s), plain: plain, out: newStreamWriter(w)}
	b.session.more = b.refill
	if err := b.refill(); err != nil {
		return err
	}
	ev := event{last: true}
	for ev.kind != evEnd {
		// The header of a block belongs to all of its pieces.
		ev.first = ev.last
		if err := b.code(&ev); err != nil {
			return err
		}
		if err := b.write(&ev); err != nil {
			return err
		}
	}
	return b.end()
}

// readSpec reads what a correction begins with.
func readSpec(r *bufio.Reader) (spec, error) {
	var head [len(magic) + 2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return spec{}, corrupt("it is too short")
	}
	if string(head[:len(magic)]) != magic {
		return spec{}, corrupt("it does not begin as one")
	}
	v, id := head[len(magic)], head[len(magic)+1]
	if v > version || v == version && int(id) >= len(specs) {
		return spec{}, fmt.Errorf("correction: version %d, predictor %d: %w; use a newer layerfs", v, id, ErrVersion)
	}
	if v == 0 {
		return spec{}, corrupt("version 0")
	}
	return specs[id], nil
}

// refill reads plaintext until there is enough to look ahead.
func (b *rebuilder) refill() error {
	b.sum()
	b.win.keep = b.pos
	for !b.win.eof && b.win.end() < b.pos+lookahead+readPiece {
		b.win.room(readPiece)
		at := len(b.win.buf)
		n, err := io.ReadFull(b.plain, b.win.buf[at:at+readPiece])
		b.win.buf = b.win.buf[:at+n]
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			b.win.eof = true
		default:
			return err
		}
	}
	return nil
}

// sum brings the checksum of the member up to the current position.
func (b *rebuilder) sum() {
	b.crc = crc32.Update(b.crc, crc32.IEEETable, b.win.buf[b.win.index(b.summed):b.win.index(b.pos)])
	b.summed = b.pos
}

// write writes an event.
func (b *rebuilder) write(ev *event) error {
	switch ev.kind {
	case evMember:
		b.crc, b.summed, b.start = 0, b.pos, b.pos
		b.out.bytes(ev.raw)
	case evBlock:
		b.out.block(ev, b.win)
	case evTrailer:
		b.sum()
		b.out.align(ev.pad)
		var sum [8]byte
		binary.LittleEndian.PutUint32(sum[:], b.crc)
		binary.LittleEndian.PutUint32(sum[4:], uint32(b.pos-b.start))
		b.out.bytes(sum[:])
	case evTrailing:
		b.out.bytes(ev.raw)
	}
	return b.out.err
}

// end checks that both inputs have been used up and that the sums are right.
func (b *rebuilder) end() error {
	if err := b.out.flush(); err != nil {
		return err
	}
	if !b.win.eof || b.pos != b.win.end() {
		return corrupt("the plaintext is longer")
	}
	return b.finish(b.out.crc, b.pos)
}
