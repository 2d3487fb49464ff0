package deflate

// longBits is the size of the tables of klauspost's levels 4 to 6, which look for four
// bytes in one and for seven in the other.
const longBits = 15

// A kpLong is level 4 of klauspost's.
type kpLong struct {
	table [1 << longBits]uint32
	long  [1 << longBits]uint32
	// since 1.18: the length at the next position is measured at a wrong place.
	astray bool
}

func (k *kpLong) clear() {
	clear(k.table[:])
	clear(k.long[:])
}

func (k *kpLong) find(x *scan) bool {
	if !k.search(x) {
		return false
	}
	x.l = 4 + x.length(x.s+4, x.t+4)
	x.back()
	return true
}

func (k *kpLong) search(x *scan) bool {
	for x.next = x.s; ; {
		x.s = x.next
		x.next = x.s + 1 + (x.s-x.emit)>>6
		if x.next > x.limit {
			return false
		}
		cv := x.load64(x.s)
		short, long := &k.table[hash4(cv, longBits)], &k.long[hash7(cv, longBits)]
		s, l := x.place(*short), x.place(*long)
		*short = uint32(x.s) + x.off
		*long = *short
		if x.matches(l, x.s, maxDistance, uint32(cv)) {
			x.t = l
			return true
		}
		if !x.matches(s, x.s, maxDistance, uint32(cv)) {
			continue
		}
		x.t = s
		next := x.load64(x.next)
		l = x.place(k.long[hash7(next, longBits)])
		if x.matches(l, x.next, maxDistance, uint32(next)) && k.better(x, l) {
			x.s, x.t = x.next, l
		}
		return true
	}
}

// better says whether the match of the next position with l is longer than that of s.
func (k *kpLong) better(x *scan, l int) bool {
	at := l + 4
	if k.astray {
		at = x.next - (l - x.hist) + 4
		if at < x.hist {
			return false
		}
	}
	return x.length(x.next+4, at) > x.length(x.s+4, x.t+4)
}

func (k *kpLong) after(x *scan) {
	for i := x.next; i < x.s-1; i += 3 {
		cv := x.load64(i)
		p := uint32(i) + x.off
		k.long[hash7(cv, longBits)] = p
		cv = x.load64(i + 1)
		k.long[hash7(cv, longBits)] = p + 1
		k.table[hash4(cv, longBits)] = p + 1
	}
	k.insert(x, x.s-1)
}

func (k *kpLong) insert(x *scan, i int) {
	cv := x.load64(i)
	k.table[hash4(cv, longBits)] = uint32(i) + x.off
	k.long[hash7(cv, longBits)] = uint32(i) + x.off
}

func (k *kpLong) tail(x *scan) {
	if x.s+8 < x.end {
		k.insert(x, x.s)
	}
}

// A kpLongTwo is level 5, the default, or 6 of klauspost's: the table of long hashes
// remembers two positions.
type kpLongTwo struct {
	table [1 << longBits]uint32
	long  [1 << longBits]older
	six   bool
}

func (k *kpLongTwo) clear() {
	clear(k.table[:])
	clear(k.long[:])
}

// insert puts a position into both tables.
func (k *kpLongTwo) insert(x *scan, i int) {
	cv := x.load64(i)
	k.table[hash4(cv, longBits)] = uint32(i) + x.off
	k.long[hash7(cv, longBits)].push(uint32(i) + x.off)
}

func (k *kpLongTwo) find(x *scan) bool {
	if !k.search(x) {
		return false
	}
	if x.l == 0 {
		x.l = 4 + x.length(x.s+4, x.t+4)
	} else if x.l == maxMatch {
		x.l += x.length(x.s+x.l, x.t+x.l)
	}
	if end := x.s + x.l; (k.six || x.l < 30) && end < x.limit {
		k.fromEnd(x, k.long[hash7(x.load64(end), longBits)])
	}
	x.back()
	return true
}

func (k *kpLongTwo) search(x *scan) bool {
	log := uint(6)
	if k.six {
		log = 7
	}
	for x.next = x.s; ; {
		x.s, x.l = x.next, 0
		x.next = x.s + 1 + (x.s-x.emit)>>log
		if x.next > x.limit {
			return false
		}
		cv := x.load64(x.s)
		short, long := &k.table[hash4(cv, longBits)], &k.long[hash7(cv, longBits)]
		s, l := x.place(*short), *long
		*short = uint32(x.s) + x.off
		long.push(*short)
		if k.longMatch(x, l, uint32(cv)) {
			k.insert(x, x.next)
			return true
		}
		if x.matches(s, x.s, maxDistance, uint32(cv)) {
			x.t = s
			x.l = 4 + x.short(x.s+4, s+4)
			l = k.long[hash7(x.load64(x.next), longBits)]
			k.insert(x, x.next)
			if !k.six || !k.repeated(x, uint32(cv>>8)) {
				k.nextLong(x, l)
			}
			return true
		}
	}
}

// longMatch tries the two positions of a long hash; of two that match it takes the
// longer.
func (k *kpLongTwo) longMatch(x *scan, l older, cv uint32) bool {
	cur, prev := x.place(l.cur), x.place(l.prev)
	if x.s-cur >= maxDistance || cur < x.low || cur >= x.s {
		return false
	}
	if x.load32(cur) != cv {
		x.t = prev
		return x.matches(prev, x.s, maxDistance, cv)
	}
	x.t = cur
	if x.matches(prev, x.s, maxDistance, cv) {
		x.l = 4 + x.short(x.s+4, cur+4)
		if n := 4 + x.short(x.s+4, prev+4); n > x.l {
			x.t, x.l = prev, n
		}
	}
	return true
}

// repeated tries the last distance one position later.
func (k *kpLongTwo) repeated(x *scan, cv uint32) bool {
	t := x.s - x.repeat + 1
	if t < x.low || t > x.s || x.load32(t) != cv {
		return false
	}
	n := 4 + x.short(x.s+5, t+4)
	if n <= x.l {
		return false
	}
	x.t, x.l = t, n
	x.s++
	return true
}

// nextLong tries whether the next position, by its long hash, has a longer match.
func (k *kpLongTwo) nextLong(x *scan, l older) {
	cur, prev := x.place(l.cur), x.place(l.prev)
	if x.next-cur >= maxDistance || cur < x.low {
		return
	}
	next, cv, at := x.next, x.load32(x.next), x.s
	for _, t := range []int{cur, prev} {
		if !x.matches(t, next, maxDistance, cv) {
			continue
		}
		if n := 4 + x.short(next+4, t+4); n > x.l {
			x.t, x.l, at = t, n, next
			if !k.six {
				break
			}
		}
	}
	x.s = at
}

// fromEnd tries whether there is a longer match that has the bytes after this one;
// two bytes at its beginning may differ.
func (k *kpLongTwo) fromEnd(x *scan, l older) {
	const begin = 2
	s, length := x.s+begin, x.l
	t := x.place(l.cur) - length + begin
	if s-t >= maxDistance || x.place(l.cur) < x.low {
		return
	}
	try := func(t int) {
		if off := s - t; off > 0 && off < maxDistance && t >= x.hist {
			if n := x.length(s, t); n > x.l {
				x.s, x.t, x.l = s, t, n
			}
		}
	}
	try(t)
	if k.six {
		// The second is measured from the end as it is now.
		try(x.place(l.prev) - x.l + begin)
	}
}

func (k *kpLongTwo) after(x *scan) {
	if k.six {
		for i := x.next + 1; i < x.s-1; i += 2 {
			k.insert(x, i)
			k.long[hash7(x.load64(i+1), longBits)].push(uint32(i+1) + x.off)
		}
		return
	}
	if i := x.s - x.l + 1; i < x.s-1 {
		k.insert(x, i)
		k.long[hash7(x.load64(i+1), longBits)].push(uint32(i+1) + x.off)
		k.table[hash4(x.load64(i+2), longBits)] = uint32(i+2) + x.off
		for i += 4; i < x.s-1; i += 3 {
			k.long[hash7(x.load64(i), longBits)].push(uint32(i) + x.off)
			k.table[hash4(x.load64(i+1), longBits)] = uint32(i+1) + x.off
		}
	}
	k.insert(x, x.s-1)
}

func (k *kpLongTwo) tail(x *scan) {
	if !k.six {
		return
	}
	for i := x.next + 1; i < x.end-8; i += 2 {
		k.insert(x, i)
	}
}
