package union

import (
	"fmt"

	"github.com/layerfs/layerfs/index/tree"
)

// Listing is the sorted list of the names of a directory, whiteouts left out. It
// does not change, may be kept while the layers are open, and may be used from any
// number of goroutines. Positions are stable: they depend on the layers only.
type Listing struct {
	s     *Stack
	layer uint32   // of all names, when names is nil
	dir   tree.Ino // the directory, when it has one contributor
	first uint32   // their first dirent
	count uint32
	names []listed
}

// listed is a name of a merged listing: where its dirent is.
type listed struct {
	layer  uint32 // | mergedBit
	dirent uint32
}

// mergedBit marks a directory that has several contributors.
const mergedBit = 1 << 31

// Open returns the listing of a directory.
func (s *Stack) Open(dir DirID) (*Listing, error) {
	ch, err := s.chain(dir)
	if err != nil {
		return nil, err
	}
	if len(ch.rest) == 0 {
		return s.openSingle(dir, ch.first)
	}
	if l := s.cache.listing(s.key(dir)); l != nil {
		return l, nil
	}
	it := &item[Listing]{key: s.key(dir), value: Listing{s: s}}
	if err := s.merge(&it.value, dir, &ch); err != nil {
		return nil, err
	}
	return s.cache.putListing(it), nil
}

// openSingle returns the listing of a directory with one contributor.
func (s *Stack) openSingle(dir DirID, c contrib) (*Listing, error) {
	t := s.layers[c.layer]
	first, count, err := t.Dir(c.ino)
	if err != nil {
		return nil, s.in(c, err)
	}
	a, err := t.Attr(c.ino)
	if err != nil {
		return nil, s.in(c, err)
	}
	if !a.Special {
		return &Listing{s: s, layer: c.layer, dir: c.ino, first: first, count: count}, nil
	}
	if l := s.cache.listing(s.key(dir)); l != nil {
		return l, nil
	}
	it := &item[Listing]{key: s.key(dir), value: Listing{s: s, layer: c.layer, dir: c.ino}}
	it.value.names = make([]listed, 0, count)
	for i := first; i < first+count; i++ {
		d, err := t.Dirent(i)
		if err != nil {
			return nil, s.in(c, err)
		}
		if err := s.list(&it.value, c.layer, &d); err != nil {
			return nil, err
		}
	}
	return s.cache.putListing(it), nil
}

// list appends a name, whose Name is not needed, that is no merged directory, unless it shows nothing.
func (s *Stack) list(l *Listing, layer uint32, d *tree.Dirent) error {
	switch d.Kind {
	case tree.KindWhiteout:
		return nil
	case tree.KindLink:
		if _, ok, err := s.linkNode(layer, uint32(d.Ino)); err != nil || !ok {
			return err
		}
	}
	l.names = append(l.names, listed{layer, d.Index})
	return nil
}

// Len returns the number of names.
func (l *Listing) Len() int {
	if l.names != nil {
		return len(l.names)
	}
	return int(l.count)
}

// Bytes returns how much memory the listing takes: next to nothing when it comes
// straight from a table.
func (l *Listing) Bytes() int { return 64 + 8*cap(l.names) }

// At returns name i and its file.
func (l *Listing) At(i int) (name []byte, n Node, err error) {
	d, layer, _, err := l.dirent(i)
	if err != nil {
		return nil, Node{}, err
	}
	n, err = l.node(&d, layer)
	return d.Name, n, err
}

// Attr is like At but also returns the file's attributes, at less cost than
// asking the stack for them.
func (l *Listing) Attr(i int) (name []byte, n Node, a tree.Attr, err error) {
	d, layer, merged, err := l.dirent(i)
	if err != nil {
		return nil, Node{}, tree.Attr{}, err
	}
	if d.Kind == tree.KindDirectory && !merged {
		n = Node{Layer: int(layer), Ino: d.Ino, Kind: d.Kind}
		a, err = l.s.layers[layer].Attr(d.Ino)
		if err != nil || !a.Implied || !a.Opaque {
			return d.Name, n, a, err
		}
	}
	if n, err = l.node(&d, layer); err == nil {
		a, err = l.s.Attr(n)
	}
	return d.Name, n, a, err
}

// dirent returns the dirent of name i, its layer and whether it is a merged
// directory.
func (l *Listing) dirent(i int) (d tree.Dirent, layer uint32, merged bool, err error) {
	if uint(i) >= uint(l.Len()) {
		return d, 0, false, fmt.Errorf("name %d of a directory of %d names: %w", i, l.Len(), tree.ErrNoInode)
	}
	layer, index := l.layer, l.first+uint32(i)
	if l.names != nil {
		layer, index = l.names[i].layer&^mergedBit, l.names[i].dirent
		merged = l.names[i].layer&mergedBit != 0
	}
	d, err = l.s.layers[layer].Dirent(index)
	if err == nil {
		err = below(&d, l.dir)
	}
	return d, layer, merged, err
}

// below checks that a directory is not inside itself: a damaged table must not
// send a walk round in circles.
func below(d *tree.Dirent, dir tree.Ino) error {
	if d.Kind == tree.KindDirectory && d.Ino <= dir {
		return fmt.Errorf("dirent %d: a directory inside itself: %w", d.Index, tree.ErrDamaged)
	}
	return nil
}

// node returns the file that a dirent leads to.
func (l *Listing) node(d *tree.Dirent, layer uint32) (Node, error) {
	n, ok, err := l.s.resolved(contrib{layer, d.Ino}, d.Kind)
	if err == nil && !ok {
		err = fmt.Errorf("name %q: link to nothing: %w", d.Name, tree.ErrDamaged)
	}
	return n, err
}
