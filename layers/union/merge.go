package union

import (
	"sync"

	"github.com/layerfs/layerfs/index/tree"
)

// merger merges the names of a directory's contributors: a heap of cursors, the
// smallest name first and of equal names the topmost first.
type merger struct {
	s     *Stack
	l     *Listing
	dir   DirID
	ch    *chain
	heap  []cursor
	group []contrib
}

// mergers keeps mergers for the sake of their slices.
var mergers = sync.Pool{New: func() any { return new(merger) }}

// merge fills a listing with the names of a merged directory, and puts what it
// learns about the subdirectories into the cache.
func (s *Stack) merge(l *Listing, dir DirID, ch *chain) error {
	m := mergers.Get().(*merger)
	defer mergers.Put(m)
	*m = merger{s: s, l: l, dir: dir, ch: ch, heap: m.heap[:0], group: m.group[:0]}
	total, err := m.start()
	if err != nil {
		return err
	}
	l.names = make([]listed, 0, total)
	for len(m.heap) > 1 {
		if err := m.step(); err != nil {
			return err
		}
	}
	m.group = m.group[:0]
	for len(m.heap) == 1 { // nothing to compare with any more
		if err := m.show(&m.heap[0]); err != nil {
			return err
		}
		if err := m.pop(); err != nil {
			return err
		}
	}
	return nil
}

// step merges one name.
func (m *merger) step() error {
	top := m.heap[0]
	m.group = m.group[:0]
	if top.kind == tree.KindDirectory {
		if err := m.directory(&top); err != nil {
			return err
		}
		return m.show(&top)
	}
	if err := m.show(&top); err != nil {
		return err
	}
	return m.skip(&top)
}

// show appends the name that a cursor was at to the listing, unless it shows
// nothing. What a directory is merged with is in m.group.
func (m *merger) show(c *cursor) error {
	layer, dirent := m.ch.at(int(c.rank)).layer, c.next-1
	if c.kind != tree.KindDirectory {
		return m.s.list(m.l, layer, &tree.Dirent{Kind: c.kind, Ino: c.ino, Index: dirent})
	}
	k := m.s.key(m.s.idOf(contrib{layer, c.ino}))
	if len(m.group) > 0 {
		layer |= mergedBit
		m.s.cache.putMerged(k, m.dir, m.group)
	} else {
		m.s.cache.putBorder(k, m.dir)
	}
	m.l.names = append(m.l.names, listed{layer, dirent})
	return nil
}

// start puts the contributors into the heap and returns how many names they have.
func (m *merger) start() (total int, err error) {
	for rank := range m.ch.len() {
		c := m.ch.at(rank)
		t := m.s.layers[c.layer]
		first, count, err := t.Dir(c.ino)
		if err != nil {
			return 0, m.s.in(c, err)
		}
		cur := cursor{dir: c.ino, rank: uint32(rank), next: first, end: first + count}
		ok, err := cur.advance(t)
		if err != nil {
			return 0, m.s.in(c, err)
		}
		if ok {
			m.heap = append(m.heap, cur)
			total += int(count)
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	return total, nil
}

// down restores the order of the heap below position i.
func (m *merger) down(i int) {
	h := m.heap
	for {
		k := 2*i + 1
		if k >= len(h) {
			return
		}
		if k+1 < len(h) && m.less(&h[k+1], &h[k]) {
			k++
		}
		if !m.less(&h[k], &h[i]) {
			return
		}
		h[i], h[k] = h[k], h[i]
		i = k
	}
}

// pop moves the first cursor to its next name.
func (m *merger) pop() error {
	ok, err := m.heap[0].advance(m.tree(&m.heap[0]))
	if err != nil {
		return m.s.in(m.ch.at(int(m.heap[0].rank)), err)
	}
	if !ok {
		last := len(m.heap) - 1
		m.heap[0] = m.heap[last]
		m.heap = m.heap[:last]
	}
	m.down(0)
	return nil
}

// skip leaves the name of top behind in all contributors.
func (m *merger) skip(top *cursor) error {
	for {
		if err := m.pop(); err != nil {
			return err
		}
		if len(m.heap) == 0 || m.compare(&m.heap[0], top) != 0 {
			return nil
		}
	}
}

// directory leaves the name of top, a directory, behind in all contributors, and
// puts the contributors of that directory behind the first into m.group.
func (m *merger) directory(top *cursor) error {
	done := top.opaque
	for {
		if err := m.pop(); err != nil {
			return err
		}
		if len(m.heap) == 0 || m.compare(&m.heap[0], top) != 0 {
			return nil
		}
		cur := &m.heap[0]
		done = done || cur.kind != tree.KindDirectory
		if !done {
			m.group = append(m.group, contrib{m.ch.at(int(cur.rank)).layer, cur.ino})
			done = cur.opaque
		}
	}
}
