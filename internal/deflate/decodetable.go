package deflate

import "math/bits"

// primaryBits of the input index the first table; longer codes go on in a second one.
const primaryBits = 10

// An entry is symbol<<8 | bits of the code, or, with the flag, the start of a second
// table and how many bits index it. Zero is no code.
type entry uint32

const subTable entry = 1 << 31

// A decodeTable finds the symbol of a prefix code.
type decodeTable struct {
	entries []entry
	full    bool // every bit pattern is a code
}

// build makes the table for the given code lengths and says whether they are a
// prefix code as inflaters take it: complete, or of one code of one bit, or empty.
func (t *decodeTable) build(lengths []uint8) bool {
	var count, next [maxBits + 1]int
	for _, l := range lengths {
		count[l]++
	}
	count[0] = 0
	code, used := 0, 0
	for l := 1; l <= maxBits; l++ {
		code = (code + count[l-1]) << 1
		next[l] = code
		used += count[l] << (maxBits - l)
	}
	const all = 1 << maxBits
	if used > all || used < all && used != 0 && !(count[1] == 1 && used == all/2) {
		return false
	}
	t.full = used == all
	t.entries = append(t.entries[:0], make([]entry, 1<<primaryBits)...)
	for symbol, l := range lengths {
		if l != 0 {
			t.add(entry(symbol)<<8|entry(l), uint(l), bits.Reverse16(uint16(next[l]))>>(16-l))
			next[l]++
		}
	}
	return true
}

// add puts the entry of a code, whose bits are given in the order of the stream.
func (t *decodeTable) add(e entry, length uint, code uint16) {
	if length <= primaryBits {
		for i := int(code); i < 1<<primaryBits; i += 1 << length {
			t.entries[i] = e
		}
		return
	}
	slot := &t.entries[code&(1<<primaryBits-1)]
	if *slot == 0 {
		*slot = subTable | entry(len(t.entries))<<8 | (maxBits - primaryBits)
		t.entries = append(t.entries, make([]entry, 1<<(maxBits-primaryBits))...)
		slot = &t.entries[code&(1<<primaryBits-1)]
	}
	start := int(*slot &^ subTable >> 8)
	for i := int(code) >> primaryBits; i < 1<<(maxBits-primaryBits); i += 1 << (length - primaryBits) {
		t.entries[start+i] = e
	}
}

// find returns the entry for the next bits; 0 when they are no code.
func (t *decodeTable) find(acc uint64) entry {
	e := t.entries[acc&(1<<primaryBits-1)]
	if e&subTable != 0 {
		e = t.entries[uint64(e&^subTable>>8)+acc>>primaryBits&(1<<(maxBits-primaryBits)-1)]
	}
	return e
}
