package union

import "github.com/layerfs/layerfs/index/tree"

// Attr returns the attributes of a file. A directory has those of its topmost
// contributor that is not implied, and as in overlayfs it has one link when it is
// merged or the root. A file that upper layers link to has those links too.
func (s *Stack) Attr(n Node) (tree.Attr, error) {
	if n.Kind != tree.KindDirectory {
		a, err := s.layers[n.Layer].Attr(n.Ino)
		if err == nil && s.linked {
			_, extra, _ := s.Group(n)
			a.Nlink += extra
		}
		return a, err
	}
	ch, err := s.chain(s.DirID(n))
	if err != nil {
		return tree.Attr{}, err
	}
	return s.dirAttr(&ch)
}

// dirAttr returns the attributes of a directory.
func (s *Stack) dirAttr(ch *chain) (tree.Attr, error) {
	_, a, err := s.giver(ch)
	if len(ch.rest) > 0 || ch.first == s.root.first {
		a.Nlink = 1
	}
	return a, err
}

// giver returns the contributor that gives a directory its attributes, and these.
func (s *Stack) giver(ch *chain) (contrib, tree.Attr, error) {
	first, err := s.layers[ch.first.layer].Attr(ch.first.ino)
	if err != nil || !first.Implied {
		return ch.first, first, err
	}
	for _, c := range ch.rest {
		a, err := s.layers[c.layer].Attr(c.ino)
		if err != nil || !a.Implied {
			return c, a, err
		}
	}
	return s.beneath(ch, first)
}

// beneath finds the attributes of a directory that no contributor lists and whose
// lowest one is opaque: that hides the content of the directory below it, but the
// directory is still the one that was there.
func (s *Stack) beneath(ch *chain, first tree.Attr) (contrib, tree.Attr, error) {
	last := ch.at(ch.len() - 1)
	a, err := s.layers[last.layer].Attr(last.ino)
	if err != nil || !a.Opaque || last.layer == 0 {
		return ch.first, first, err
	}
	path, hidden, err := pathOf(s.layers[last.layer], last.ino)
	if err != nil || hidden {
		return ch.first, first, err
	}
	below := New(s.layers[:last.layer])
	n, ok, err := below.Resolve(path)
	if err != nil || !ok || n.Kind != tree.KindDirectory {
		return ch.first, first, err
	}
	lower, err := below.chain(below.DirID(n))
	if err != nil {
		return ch.first, first, err
	}
	c, a, err := below.giver(&lower)
	if err != nil || a.Implied {
		return ch.first, first, err
	}
	a.Nlink = first.Nlink
	return c, a, nil
}

// pathOf returns the path of a directory in its layer, and whether one above it is
// opaque, so that nothing was there before.
func pathOf(t *tree.Tree, dir tree.Ino) (path string, hidden bool, err error) {
	for dir != 0 {
		parent, name, err := t.Parent(dir)
		if err != nil {
			return "", false, err
		}
		a, err := t.Attr(parent)
		if err != nil {
			return "", false, err
		}
		hidden = hidden || a.Opaque
		path, dir = string(name)+"/"+path, parent
	}
	return path, hidden, nil
}

// Meta returns the inode that gives a file its attributes and extended
// attributes: for a directory a contributor that need not be the topmost one.
func (s *Stack) Meta(n Node) (Node, error) {
	if n.Kind != tree.KindDirectory {
		return n, nil
	}
	ch, err := s.chain(s.DirID(n))
	if err != nil {
		return n, err
	}
	c, _, err := s.giver(&ch)
	return c.node(), err
}

// Xattr returns the value of an extended attribute of a file.
func (s *Stack) Xattr(n Node, name string) ([]byte, bool, error) {
	n, err := s.Meta(n)
	if err != nil {
		return nil, false, err
	}
	return s.layers[n.Layer].Xattr(n.Ino, name)
}

// EachXattr calls fn for each extended attribute of a file, in the order of names,
// until it returns false.
func (s *Stack) EachXattr(n Node, fn func(name, value []byte) bool) error {
	n, err := s.Meta(n)
	if err != nil {
		return err
	}
	return s.layers[n.Layer].EachXattr(n.Ino, fn)
}
