package deflate

import (
	"cmp"
	"slices"
)

// A builder computes the code lengths that a family of encoders gives to symbols that
// occur with the given frequencies. There are many optimal codes; encoders differ in
// how they break ties and in how they keep within the limit of bits.
type builder interface {
	build(freq []uint32, limit int, lengths []uint8)
}

// A heapBuilder makes Huffman trees with a binary heap that prefers, among equal
// frequencies, the node of less depth, and repairs codes that are too long afterwards:
// zlib's way, and that of the many that follow it.
type heapBuilder struct {
	freq   [2 * maxLit]uint32
	parent [2 * maxLit]int16
	depth  [2 * maxLit]uint8
	heap   []int16
	order  []int16 // nodes in the order in which they left the heap
}

func (b *heapBuilder) build(freq []uint32, limit int, lengths []uint8) {
	b.heap, b.order = append(b.heap[:0], 0), b.order[:0] // the heap counts from 1
	clear(lengths)
	for s, f := range freq {
		b.freq[s], b.depth[s] = f, 0
		if f != 0 {
			b.heap = append(b.heap, int16(s))
		}
	}
	b.atLeastTwo()
	for i := (len(b.heap) - 1) / 2; i >= 1; i-- {
		b.sink(i)
	}
	next := int16(len(freq))
	for len(b.heap) > 2 {
		b.join(next)
		next++
	}
	b.order = append(b.order, b.heap[1])
	b.assign(len(freq), limit, lengths)
}

// atLeastTwo makes up symbols until there are two, as no code has fewer than one bit.
func (b *heapBuilder) atLeastTwo() {
	highest := int16(-1)
	if len(b.heap) > 1 {
		highest = b.heap[len(b.heap)-1]
	}
	for len(b.heap) < 3 {
		s := int16(0)
		if highest < 2 {
			highest++
			s = highest
		}
		b.freq[s] = 1
		b.heap = append(b.heap, s)
	}
}

func (b *heapBuilder) less(n, m int16) bool {
	return b.freq[n] < b.freq[m] || b.freq[n] == b.freq[m] && b.depth[n] <= b.depth[m]
}

// sink moves the node at i down to where neither child is smaller.
func (b *heapBuilder) sink(i int) {
	h := b.heap
	node := h[i]
	for child := 2 * i; child < len(h); child *= 2 {
		if child+1 < len(h) && b.less(h[child+1], h[child]) {
			child++
		}
		if b.less(node, h[child]) {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = node
}

// join takes the two smallest nodes from the heap and puts their parent in.
func (b *heapBuilder) join(node int16) {
	small := b.heap[1]
	b.heap[1] = b.heap[len(b.heap)-1]
	b.heap = b.heap[:len(b.heap)-1]
	b.sink(1)
	second := b.heap[1]
	b.order = append(b.order, small, second)
	b.freq[node] = b.freq[small] + b.freq[second]
	b.depth[node] = max(b.depth[small], b.depth[second]) + 1
	b.parent[small], b.parent[second] = node, node
	b.heap[1] = node
	b.sink(1)
}

// assign walks from the root down. Nodes that would be deeper than the limit are put
// at it, and the code is made complete again by moving others down.
func (b *heapBuilder) assign(symbols, limit int, lengths []uint8) {
	var count [maxBits + 1]int
	slices.Reverse(b.order)
	b.depth[b.order[0]] = 0
	excess := 0
	for _, n := range b.order[1:] {
		d := int(b.depth[b.parent[n]]) + 1
		if d > limit {
			d = limit
			excess++
		}
		b.depth[n] = uint8(d)
		if int(n) < symbols {
			count[d]++
			lengths[n] = uint8(d)
		}
	}
	if excess == 0 {
		return
	}
	for ; excess > 0; excess -= 2 {
		d := limit - 1
		for count[d] == 0 {
			d--
		}
		count[d]--
		count[d+1] += 2
		count[limit]--
	}
	// The least frequent symbols, which are last, get the longest codes.
	at := len(b.order)
	for d := limit; d > 0; d-- {
		for count[d] > 0 {
			at--
			if n := b.order[at]; int(n) < symbols {
				lengths[n] = uint8(d)
				count[d]--
			}
		}
	}
}

// A mergeBuilder makes optimal codes within the limit by package-merge, and gives the
// shortest codes to the most frequent symbols, the higher of equal ones first: the
// way of Go's encoders.
type mergeBuilder struct {
	list   []freqSymbol
	levels [maxBits + 1][]mergeItem
	counts [maxBits + 1]int
}

type freqSymbol struct {
	freq   uint32
	symbol uint16
}

// A mergeItem is a symbol or a pair of items of the level below.
type mergeItem struct {
	weight uint64
	pair   bool
}

func (b *mergeBuilder) build(freq []uint32, limit int, lengths []uint8) {
	b.list = b.list[:0]
	clear(lengths)
	for s, f := range freq {
		if f != 0 {
			b.list = append(b.list, freqSymbol{f, uint16(s)})
		}
	}
	if len(b.list) <= 2 {
		for _, e := range b.list {
			lengths[e.symbol] = 1
		}
		return
	}
	slices.SortFunc(b.list, func(x, y freqSymbol) int {
		return cmp.Or(cmp.Compare(x.freq, y.freq), cmp.Compare(x.symbol, y.symbol))
	})
	b.merge(min(limit, len(b.list)-1))
	// counts[l] symbols from the start of the list have at least l bits.
	for l := 1; l <= maxBits; l++ {
		for _, e := range b.list[:b.counts[l]] {
			lengths[e.symbol] = uint8(l)
		}
	}
}

// merge fills counts. Each level lists the symbols and the pairs of the level below
// by weight, a pair before a symbol of the same weight; the cheapest 2n-2 of the top
// level are the code: a symbol has as many bits as levels it was taken in.
func (b *mergeBuilder) merge(limit int) {
	n := len(b.list)
	for l := range limit {
		items := b.levels[l][:0]
		var below []mergeItem
		if l > 0 {
			below = b.levels[l-1]
		}
		leaf, pair := 0, 0
		for leaf < n || pair+1 < len(below) {
			var weight uint64
			if pair+1 < len(below) {
				weight = below[pair].weight + below[pair+1].weight
			}
			if pair+1 >= len(below) || leaf < n && uint64(b.list[leaf].freq) < weight {
				items = append(items, mergeItem{weight: uint64(b.list[leaf].freq)})
				leaf++
			} else {
				items = append(items, mergeItem{weight: weight, pair: true})
				pair += 2
			}
		}
		b.levels[l] = items
	}
	clear(b.counts[:])
	take := 2*n - 2
	for l := limit - 1; l >= 0; l-- {
		pairs := 0
		for _, item := range b.levels[l][:take] {
			if item.pair {
				pairs++
			}
		}
		b.counts[limit-l] = take - pairs
		take = 2 * pairs
	}
}
