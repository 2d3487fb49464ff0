package union

import "github.com/layerfs/layerfs/index/tree"

// merger merges the names of a directory's contributors: a heap of cursors, the
// smallest name first and of equal names the topmost first.
type merger struct {
	s    *Stack
	ch   *chain
	heap []cursor
}

// merge fills a listing with the names of a merged directory, and puts what it
// learns about the subdirectories into the cache.
func (s *Stack) merge(l *Listing, dir DirID, ch *chain) error {
	m := merger{s: s, ch: ch, heap: make([]cursor, 0, ch.len())}
	total, err := m.start()
	if err != nil {
		return err
	}
	l.names = make([]listed, 0, total)
	var group []contrib
	for len(m.heap) > 0 {
		top := m.heap[0]
		c := contrib{ch.at(top.rank).layer, top.d.Ino}
		if top.d.Kind != tree.KindDirectory {
			if err := s.list(l, c.layer, &top.d); err != nil {
				return err
			}
			if err := m.skip(&top); err != nil {
				return err
			}
			continue
		}
		if group, err = m.directory(group[:0], &top); err != nil {
			return err
		}
		layer, k := c.layer, s.key(s.idOf(c))
		if len(group) > 0 {
			layer |= mergedBit
			s.cache.putMerged(k, dir, group)
		} else {
			s.cache.putBorder(k, dir)
		}
		l.names = append(l.names, listed{layer, top.d.Index})
	}
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
		cur := cursor{dir: c.ino, rank: rank, next: first, end: first + count}
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
		if k+1 < len(h) && h[k+1].less(&h[k]) {
			k++
		}
		if !h[k].less(&h[i]) {
			return
		}
		h[i], h[k] = h[k], h[i]
		i = k
	}
}

// pop moves the first cursor to its next name.
func (m *merger) pop() error {
	c := m.ch.at(m.heap[0].rank)
	ok, err := m.heap[0].advance(m.s.layers[c.layer])
	if err != nil {
		return m.s.in(c, err)
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
		if len(m.heap) == 0 || m.heap[0].compare(top) != 0 {
			return nil
		}
	}
}

// directory leaves the name of top, a directory, behind in all contributors, and
// appends to list the contributors of that directory behind the first.
func (m *merger) directory(list []contrib, top *cursor) ([]contrib, error) {
	at := contrib{m.ch.at(top.rank).layer, top.d.Ino}
	done, err := m.ends(top, at)
	for err == nil {
		if err = m.pop(); err != nil {
			break
		}
		if len(m.heap) == 0 || m.heap[0].compare(top) != 0 {
			return list, nil
		}
		if done {
			continue
		}
		cur := &m.heap[0]
		if cur.d.Kind != tree.KindDirectory {
			done = true
			continue
		}
		at = contrib{m.ch.at(cur.rank).layer, cur.d.Ino}
		list = append(list, at)
		done, err = m.ends(cur, at)
	}
	return nil, err
}

// ends says whether nothing is merged below a contributor of a directory.
func (m *merger) ends(c *cursor, at contrib) (bool, error) {
	if c.rank == m.ch.len()-1 {
		return true, nil
	}
	return m.s.opaque(at)
}
