package union

import (
	"cmp"
	"slices"

	"github.com/layerfs/layerfs/index/tree"
)

// links is what a stack knows about hard links to files of lower layers.
type links struct {
	err    error
	group  [][]uint32 // by layer and number of the link: 1 + group, 0: leads nowhere
	groups []group
	byNode []nodeGroup // sorted by node
}

// group is a file that upper layers link to.
type group struct {
	node  Node
	extra uint32 // names in upper layers
}

// nodeGroup leads from a file to its group.
type nodeGroup struct {
	node  uint64
	group uint32
}

// nodeKey orders nodes.
func nodeKey(n Node) uint64 { return uint64(n.Layer)<<32 | uint64(n.Ino) }

// resolveLinks finds the files that all links to lower layers lead to.
func (s *Stack) resolveLinks() {
	l := &s.links
	l.group = make([][]uint32, len(s.layers))
	groups := map[uint64]uint32{}
	for i, t := range s.layers {
		if !t.HasLowerLinks() {
			continue
		}
		// A link leads to what the stack of the layers below it shows.
		below := s.cache.New(s.layers[:i])
		below.linkOnce.Do(func() { below.links = *l })
		for k := range t.LowerLinks() {
			n, extra, ok, err := s.linkTarget(below, i, k)
			if err != nil {
				l.err = err
				return
			}
			if !ok {
				l.group[i] = append(l.group[i], 0)
				continue
			}
			g, old := groups[nodeKey(n)]
			if !old {
				l.groups = append(l.groups, group{node: n})
				g = uint32(len(l.groups))
				groups[nodeKey(n)] = g
			}
			l.groups[g-1].extra += extra
			l.group[i] = append(l.group[i], g)
		}
	}
	l.byNode = make([]nodeGroup, 0, len(groups))
	for i, g := range l.groups {
		l.byNode = append(l.byNode, nodeGroup{nodeKey(g.node), uint32(i)})
	}
	slices.SortFunc(l.byNode, func(a, b nodeGroup) int { return cmp.Compare(a.node, b.node) })
}

// linkTarget finds the file that link k of a layer leads to, and how many names
// the link adds to it: in the layers below, or else the copy that was made of it
// in another stack.
func (s *Stack) linkTarget(below *Stack, layer int, k uint32) (n Node, extra uint32, ok bool, err error) {
	t := s.layers[layer]
	if layer > 0 {
		path, err := t.LowerLink(k)
		if err != nil {
			return n, 0, false, s.in(contrib{layer: uint32(layer)}, err)
		}
		n, ok, err := below.Follow(string(path))
		if err != nil {
			return n, 0, false, err
		}
		if ok && n.Kind != tree.KindDirectory {
			extra, err := t.LowerLinkNames(k)
			return n, extra, true, err
		}
	}
	ino, ok, err := t.LowerCopy(k)
	if err != nil || !ok {
		return n, 0, false, err
	}
	a, err := t.Attr(ino)
	return Node{Layer: layer, Ino: ino, Kind: a.Kind}, 0, err == nil, err
}

// linkNode returns the file that a link to a lower layer leads to; false when it
// leads nowhere.
func (s *Stack) linkNode(layer, link uint32) (Node, bool, error) {
	s.linkOnce.Do(s.resolveLinks)
	if s.links.err != nil {
		return Node{}, false, s.links.err
	}
	list := s.links.group[layer]
	if uint64(link) >= uint64(len(list)) || list[link] == 0 {
		return Node{}, false, nil
	}
	return s.links.groups[list[link]-1].node, true, nil
}

// Groups returns the number of files that upper layers link to.
func (s *Stack) Groups() int {
	if !s.linked {
		return 0
	}
	s.linkOnce.Do(s.resolveLinks)
	return len(s.links.groups)
}

// Group returns the number of the group of a file that upper layers link to, and
// how many names those links are. Groups are numbered from 0 and depend on
// nothing but the layers. The number of links of such a file depends on the stack,
// so it must not share a node with the same file in another stack.
func (s *Stack) Group(n Node) (number int, extra uint32, ok bool) {
	if s.Groups() == 0 {
		return 0, 0, false
	}
	i, ok := slices.BinarySearchFunc(s.links.byNode, nodeKey(n), func(g nodeGroup, k uint64) int {
		return cmp.Compare(g.node, k)
	})
	if !ok {
		return 0, 0, false
	}
	number = int(s.links.byNode[i].group)
	return number, s.links.groups[number].extra, true
}

// GroupNode returns the file of a group.
func (s *Stack) GroupNode(number int) (Node, bool) {
	if number < 0 || number >= s.Groups() {
		return Node{}, false
	}
	return s.links.groups[number].node, true
}
