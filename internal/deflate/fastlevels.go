package deflate

// hash4, hash5 and hash7 hash the lowest bytes of v to n bits.
func hash4(v uint64, n uint) uint32 { return uint32(v) * 2654435761 >> (32 - n) }
func hash5(v uint64, n uint) uint32 { return uint32(v << 24 * 889523592379 >> (64 - n)) }
func hash7(v uint64, n uint) uint32 { return uint32(v << 8 * 58295818150454627 >> (64 - n)) }

// A goFast is level 1 of Go's compress/flate.
type goFast struct{ table [1 << 14]uint32 }

func (g *goFast) clear() { clear(g.table[:]) }

func (g *goFast) slot(x *scan, i int) *uint32 {
	return &g.table[x.load32(i)*0x1e35a7bd>>(32-14)]
}

func (g *goFast) find(x *scan) bool {
	if !x.again {
		skip, next := 32, x.s
		for {
			x.s = next
			step := skip >> 5
			next = x.s + step
			skip += step
			if next > x.limit {
				return false
			}
			slot := g.slot(x, x.s)
			x.t = x.place(*slot)
			*slot = uint32(x.s) + x.off
			if x.matches(x.t, x.s, maxDistance+1, x.load32(x.s)) {
				break
			}
		}
	}
	x.l = 4 + x.short(x.s+4, x.t+4)
	return true
}

func (g *goFast) after(x *scan) {
	*g.slot(x, x.s-1) = uint32(x.s-1) + x.off
	slot := g.slot(x, x.s)
	x.t = x.place(*slot)
	*slot = uint32(x.s) + x.off
	x.again = x.matches(x.t, x.s, maxDistance+1, x.load32(x.s))
	if !x.again {
		x.s++
	}
}

func (g *goFast) tail(*scan) {}

// A kpPairs is level 1 or 2 of klauspost's: one table, looked up for two positions
// next to each other before some are skipped.
type kpPairs struct {
	table []uint32
	bits  uint
	dense bool // level 2: positions within a match are inserted
}

func (k *kpPairs) clear() { clear(k.table) }

func (k *kpPairs) slot(x *scan, i int) *uint32 { return &k.table[hash5(x.load64(i), k.bits)] }

func (k *kpPairs) find(x *scan) bool {
	if x.again || k.search(x) {
		x.l = 4 + x.length(x.s+4, x.t+4)
		x.back()
		return true
	}
	return false
}

func (k *kpPairs) search(x *scan) bool {
	for x.next = x.s; ; {
		x.s = x.next
		slot := k.slot(x, x.s)
		x.next = x.s + 2 + (x.s-x.emit)>>5
		if x.next > x.limit {
			return false
		}
		x.t = x.place(*slot)
		*slot = uint32(x.s) + x.off
		if x.matches(x.t, x.s, maxDistance, x.load32(x.s)) {
			*k.slot(x, x.next) = uint32(x.next) + x.off
			return true
		}
		x.s = x.next
		x.next++
		slot = k.slot(x, x.s)
		x.t = x.place(*slot)
		*slot = uint32(x.s) + x.off
		if x.matches(x.t, x.s, maxDistance, x.load32(x.s)) {
			if !k.dense {
				*slot = uint32(x.next) + x.off // sic: the position after that of the hash
			}
			return true
		}
	}
}

func (k *kpPairs) after(x *scan) {
	if k.dense {
		for i := x.s - x.l + 2; i < x.s-5; i += 7 {
			*k.slot(x, i) = uint32(i) + x.off
			*k.slot(x, i+2) = uint32(i+2) + x.off
			// The encoder has only four of the five bytes at hand here.
			k.table[hash5(x.load64(i)>>32, k.bits)] = uint32(i+4) + x.off
		}
		*k.slot(x, x.s-2) = uint32(x.s-2) + x.off
		*k.slot(x, x.s-1) = uint32(x.s-1) + x.off
	} else {
		*k.slot(x, x.s-2) = uint32(x.s-2) + x.off
	}
	slot := k.slot(x, x.s)
	x.t = x.place(*slot)
	*slot = uint32(x.s) + x.off
	x.again = x.matches(x.t, x.s, maxDistance+1, x.load32(x.s))
	if !x.again {
		x.s++
	}
}

func (k *kpPairs) tail(x *scan) {
	if x.s+x.l+8 < x.end {
		*k.slot(x, x.s) = uint32(x.s) + x.off
	}
}

// An older is the two last positions of a hash.
type older struct{ cur, prev uint32 }

func (o *older) push(p uint32) { o.cur, o.prev = p, o.cur }

// A kpTwo is level 3 of klauspost's: one table that remembers two positions.
type kpTwo struct{ table [1 << 16]older }

func (k *kpTwo) clear() { clear(k.table[:]) }

func (k *kpTwo) slot(x *scan, i int) *older { return &k.table[hash5(x.load64(i), 16)] }

func (k *kpTwo) find(x *scan) bool {
	if x.again || k.search(x) {
		x.l = 4 + x.length(x.s+4, x.t+4)
		x.back()
		return true
	}
	return false
}

func (k *kpTwo) search(x *scan) bool {
	const reach = maxDistance - 4
	for x.next = x.s; ; {
		x.s = x.next
		x.next = x.s + 1 + (x.s-x.emit)>>7
		if x.next > x.limit {
			return false
		}
		slot := k.slot(x, x.s)
		cur, prev := x.place(slot.cur), x.place(slot.prev)
		slot.push(uint32(x.s) + x.off)
		if x.s-cur > reach || cur < x.low || cur >= x.s {
			continue
		}
		cv := x.load32(x.s)
		if x.load32(cur) != cv {
			if x.matches(prev, x.s, reach, cv) {
				x.t = prev
				return true
			}
			continue
		}
		x.t = cur
		if x.matches(prev, x.s, reach+1, cv) && x.length(x.s+4, prev+4) > x.length(x.s+4, cur+4) {
			x.t = prev
		}
		return true
	}
}

func (k *kpTwo) after(x *scan) {
	const reach = maxDistance - 4
	for i := x.s - x.l + 2; i < x.s-5; i += 6 {
		k.slot(x, i).push(uint32(i) + x.off)
	}
	k.slot(x, x.s-2).push(uint32(x.s-2) + x.off)
	k.slot(x, x.s-1).push(uint32(x.s-1) + x.off)
	slot := k.slot(x, x.s)
	cur, prev := x.place(slot.cur), x.place(slot.prev)
	slot.push(uint32(x.s) + x.off)
	cv := x.load32(x.s)
	if x.s-cur < reach && cur >= x.low {
		for _, t := range []int{cur, prev} {
			if x.matches(t, x.s, reach, cv) {
				x.t, x.again = t, true
				return
			}
		}
	}
	x.s++
}

func (k *kpTwo) tail(x *scan) {
	// The encoder indexes the end of where the match was copied from.
	t := x.t + x.l
	if t+8 < x.end && t > x.hist {
		k.slot(x, t).push(uint32(t) + x.off)
	}
}
