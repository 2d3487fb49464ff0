package union

import (
	"fmt"

	"github.com/layerfs/layerfs/index/tree"
)

// contrib is a directory of one layer.
type contrib struct {
	layer uint32
	ino   tree.Ino
}

// node returns the directory as a node.
func (c contrib) node() Node {
	return Node{Layer: int(c.layer), Ino: c.ino, Kind: tree.KindDirectory}
}

// chain is the list of the contributors of a directory, topmost first.
type chain struct {
	first contrib
	rest  []contrib
}

// newChain makes a chain of a list that is not empty.
func newChain(list []contrib) chain { return chain{list[0], list[1:]} }

// len returns the number of contributors.
func (c *chain) len() int { return 1 + len(c.rest) }

// at returns contributor i.
func (c *chain) at(i int) contrib {
	if i == 0 {
		return c.first
	}
	return c.rest[i-1]
}

// chain returns the contributors of a directory.
func (s *Stack) chain(id DirID) (chain, error) {
	c, err := s.contrib(id)
	if err != nil {
		return chain{}, err
	}
	if c.ino == 0 {
		if c != s.root.first {
			return chain{}, fmt.Errorf("directory %d: %w", id, ErrStale)
		}
		return s.root, nil
	}
	if c.layer == 0 || len(s.root.rest) == 0 || s.inRecent(c) {
		return chain{first: c}, nil
	}
	rest, border, ok := s.cache.known(s.key(id))
	switch {
	case border:
		return chain{first: c}, s.setRecent(c)
	case ok:
		return chain{c, rest}, nil
	}
	parent, _, err := s.layers[c.layer].Parent(c.ino)
	if err != nil {
		return chain{}, s.in(c, err)
	}
	single, err := s.findBorder(contrib{c.layer, parent})
	if err != nil || single {
		return chain{first: c}, err
	}
	return s.recompute(c)
}

// inRecent says whether a directory is known to be single because it is below, or
// is, the border last used of its layer.
func (s *Stack) inRecent(c contrib) bool {
	v := s.recent[c.layer].Load()
	return uint64(c.ino) >= v>>32 && c.ino < tree.Ino(v)
}

// findBorder walks up from a directory, itself included, to a border that the cache
// knows: below one, every directory is single.
func (s *Stack) findBorder(c contrib) (bool, error) {
	t := s.layers[c.layer]
	for at := c; at.ino != 0; {
		if _, ok := s.cache.border(s.key(s.idOf(at))); ok {
			return true, s.setRecent(at)
		}
		parent, _, err := t.Parent(at.ino)
		if err != nil {
			return false, s.in(c, err)
		}
		at.ino = parent
	}
	return false, nil
}

// setRecent remembers a border.
func (s *Stack) setRecent(border contrib) error {
	end, err := s.layers[border.layer].Subtree(border.ino)
	if err != nil {
		return s.in(border, err)
	}
	s.recent[border.layer].Store(uint64(border.ino)<<32 | uint64(end))
	return nil
}

// step is a directory on the way down to one that is being recomputed.
type step struct {
	ino  tree.Ino
	name []byte
}

// recompute finds the contributors of a directory from nothing: it walks up in
// its own layer and comes down again in the stack.
func (s *Stack) recompute(c contrib) (chain, error) {
	var buf [32]step
	steps, t := buf[:0], s.layers[c.layer]
	for ino := c.ino; ino != 0; {
		parent, name, err := t.Parent(ino)
		if err != nil {
			return chain{}, s.in(c, err)
		}
		steps = append(steps, step{ino, name})
		ino = parent
	}
	ch := s.root
	for i := len(steps) - 1; i >= 0; i-- {
		h, ok, err := s.top(&ch, steps[i].name)
		if err != nil {
			return chain{}, err
		}
		if !ok || h.kind != tree.KindDirectory {
			return chain{}, fmt.Errorf("directory %d: %w", s.idOf(c), ErrStale)
		}
		if ch, err = s.child(&ch, s.idOf(ch.first), &h, steps[i].name); err != nil {
			return chain{}, err
		}
		if len(ch.rest) == 0 {
			// Everything below lies in this layer, as the table has it.
			if ch.first != (contrib{c.layer, steps[i].ino}) {
				return chain{}, fmt.Errorf("directory %d: %w", s.idOf(c), ErrStale)
			}
			return chain{first: c}, s.setRecent(ch.first)
		}
	}
	if ch.first != c {
		return chain{}, fmt.Errorf("directory %d: %w", s.idOf(c), ErrStale)
	}
	return ch, nil
}

// child returns the contributors of the directory that was found at name in a
// directory, and puts them into the cache.
func (s *Stack) child(parent *chain, dir DirID, h *hit, name []byte) (chain, error) {
	if len(parent.rest) == 0 {
		return chain{first: h.at}, nil
	}
	key := s.key(s.idOf(h.at))
	if rest, border, ok := s.cache.known(key); ok {
		if border {
			return chain{first: h.at}, nil
		}
		return chain{h.at, rest}, nil
	}
	var buf [16]contrib
	rest, err := s.below(buf[:0], parent, h, name)
	if err != nil {
		return chain{}, err
	}
	if len(rest) == 0 {
		s.cache.putBorder(key, dir)
		return chain{first: h.at}, nil
	}
	return chain{h.at, s.cache.putMerged(key, dir, rest)}, nil
}

// below appends to list the contributors of a child below its topmost one.
func (s *Stack) below(list []contrib, parent *chain, h *hit, name []byte) ([]contrib, error) {
	opaque := h.opaque
	for rank := h.rank + 1; !opaque && rank < parent.len(); rank++ {
		c := parent.at(rank)
		d, ok, err := s.layers[c.layer].Lookup(c.ino, name)
		if err != nil {
			return nil, s.in(c, err)
		}
		if !ok {
			continue
		}
		if d.Kind != tree.KindDirectory {
			break
		}
		list = append(list, contrib{c.layer, d.Ino})
		opaque = d.Opaque
	}
	return list, nil
}
