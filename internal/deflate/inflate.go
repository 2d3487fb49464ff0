package deflate

import (
	"encoding/binary"
	"errors"
	"io"
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// blockStart reads the header of a block and its first piece.
func (g *gunzipper) blockStart(ev *event) error {
	v, err := g.in.take(3)
	if err != nil {
		return err
	}
	g.block.final, g.block.block = v&1 != 0, uint8(v>>1)
	ev.first = true
	switch g.block.block {
	case blockStored:
		err = g.storedHeader(ev)
	case blockFixed:
		g.lit.build(fixedLit[:])
		g.dist.build(fixedDist[:])
	case blockDynamic:
		ev.header = cleared(ev.header)
		if err = g.dynamicHeader(ev.header); err == nil {
			err = g.buildTables(ev.header)
		}
	default:
		err = notGzip("a block of the reserved kind")
	}
	if err != nil {
		return err
	}
	g.inBlock = true
	return g.piece(ev)
}

func (g *gunzipper) storedHeader(ev *event) error {
	ev.pad = g.in.align()
	var size [4]byte
	if g.in.bytes(size[:]) < len(size) {
		return g.in.failure()
	}
	n := binary.LittleEndian.Uint16(size[:])
	if n != ^binary.LittleEndian.Uint16(size[2:]) {
		return notGzip("the length of a stored block contradicts itself")
	}
	g.left = int(n)
	return nil
}

// piece reads the next part of the current block.
func (g *gunzipper) piece(ev *event) error {
	ev.kind, ev.block, ev.final = evBlock, g.block.block, g.block.final
	ev.start = g.win.end()
	var err error
	if g.block.block == blockStored {
		g.win.room(g.left)
		at := len(g.win.buf)
		g.win.buf = g.win.buf[:at+g.left]
		if g.in.bytes(g.win.buf[at:]) < g.left {
			err = g.in.failure()
		}
		ev.last = true
	} else {
		err = g.tokens(ev)
	}
	if err != nil {
		return err
	}
	g.sum()
	ev.size = int(g.win.end() - ev.start)
	g.inBlock = !ev.last
	return nil
}

// tokens decodes until the block ends or the piece is large enough. The loop touches
// only locals: it is where inflating spends its time.
func (g *gunzipper) tokens(ev *event) error {
	in, win := g.in, g.win
	for n := 0; ; {
		win.room(1<<15 + maxMatch)
		reach := win.index(g.start) // nothing before the member may be copied
		out, toks := win.buf, ev.tokens
		full := len(out) + 1<<15
		var err error
		for err == nil && len(out) < full {
			if in.n < 48 {
				in.refill()
			}
			e := g.lit.find(in.acc)
			bits, symbol := uint(e&0xff), int(e>>8)
			if e == 0 || bits > in.n {
				err = g.badCode()
				break
			}
			in.acc >>= bits
			in.n -= bits
			if symbol < endOfBlock {
				out = append(out, byte(symbol))
				toks = append(toks, token(symbol))
				continue
			}
			if symbol == endOfBlock {
				ev.last = true
				break
			}
			var t token
			if t, err = g.match(symbol - firstLength); err == nil {
				if out, err = copyMatch(out, t, reach); err == nil {
					toks = append(toks, t)
				}
			}
		}
		n += len(out) - len(win.buf)
		win.buf, ev.tokens = out, toks
		if err != nil || ev.last || n >= pieceBytes || len(toks) >= pieceTokens {
			return err
		}
	}
}

// badCode is the error for bits that are no code: either they are wrong or there are
// not enough of them.
func (g *gunzipper) badCode() error {
	if g.in.n < maxBits {
		return g.in.failure()
	}
	return notGzip("bits that are no code")
}

// match reads what follows the symbol of a length.
func (g *gunzipper) match(symbol int) (token, error) {
	if symbol >= len(lengthBase) {
		return 0, notGzip("a length that does not exist")
	}
	in := g.in
	extra := uint(lengthExtra[symbol])
	length := token(lengthBase[symbol]) + token(in.acc&(1<<extra-1))
	in.acc >>= extra
	if in.n < extra {
		return 0, in.failure()
	}
	in.n -= extra
	e := g.dist.find(in.acc)
	bits := uint(e & 0xff)
	if e == 0 || bits > in.n {
		return 0, g.badCode()
	}
	in.acc >>= bits
	in.n -= bits
	dsym := e >> 8
	if dsym >= maxDist {
		return 0, notGzip("a distance that does not exist")
	}
	extra = uint(distExtra[dsym])
	if in.n < extra {
		in.refill()
		if in.n < extra {
			return 0, in.failure()
		}
	}
	dist := token(distBase[dsym]) + token(in.acc&(1<<extra-1))
	in.acc >>= extra
	in.n -= extra
	t := length<<16 | dist
	if length == maxMatch && symbol != len(lengthBase)-1 {
		t |= oddLength
	}
	return t, nil
}

// copyMatch appends the bytes of a match, which must not begin before reach.
func copyMatch(out []byte, t token, reach int) ([]byte, error) {
	length, dist := tokenLength(t), int(t&0xffff)
	from := len(out) - dist
	if from < max(reach, 0) {
		return out, notGzip("a match reaches before the start")
	}
	if dist >= length {
		return append(out, out[from:from+length]...), nil
	}
	for range length {
		out = append(out, out[from])
		from++
	}
	return out, nil
}
