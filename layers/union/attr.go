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
	return ch.first, first, nil
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
