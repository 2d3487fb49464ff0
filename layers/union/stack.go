package union

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/layerfs/layerfs/index/tree"
)

// ErrStale is returned for a directory number that the stack never gave out.
var ErrStale = errors.New("no such directory in this stack")

// errTooMany is returned by everything on a stack of more directories than there
// are numbers.
var errTooMany = errors.New("stack of more than 2^32-1 directories")

// DirID numbers the directories of a stack: the directories of the layers one
// after the other, bottom first. A merged directory has the number of its topmost
// contributor. The numbers depend on nothing but the layers.
type DirID uint32

// Node is a file of a stack: an inode of one of its layers. A directory's node is
// its topmost contributor.
type Node struct {
	Layer int
	Ino   tree.Ino
	Kind  tree.Kind
}

// Stack is the merged tree of some layers. Its methods may be called from any
// number of goroutines as long as the layers' tables are open.
type Stack struct {
	layers []*tree.Tree
	base   []uint32 // number of the root of each layer
	root   chain
	err    error // what is wrong with the stack as a whole
	cache  *Cache
	id     uint32 // in the cache

	// recent holds for each layer the border, and the end of its subtree, that
	// was last found above a single directory: border<<32 | end.
	recent []atomic.Uint64

	linked   bool // some layer has links to lower layers
	linkOnce sync.Once
	links    links
}

// New stacks layers, bottom first, with a cache of their own. It costs a few steps
// per layer. The layers stay the caller's and must be open while the stack is
// used. There must be at least one.
func New(layers []*tree.Tree) *Stack { return NewCache(0).New(layers) }

// New is like the function New but uses the cache c, which stacks may share.
func (c *Cache) New(layers []*tree.Tree) *Stack {
	s := &Stack{
		layers: slices.Clone(layers),
		base:   make([]uint32, len(layers)),
		recent: make([]atomic.Uint64, len(layers)),
		cache:  c,
		id:     c.stacks.Add(1),
	}
	total := uint64(0)
	for i, t := range layers {
		s.base[i] = uint32(total)
		total += uint64(t.Dirs())
		s.linked = s.linked || t.HasLowerLinks()
	}
	if total > math.MaxUint32 {
		s.err = errTooMany
	}
	if len(layers) == 0 {
		s.err = errors.New("stack of no layers")
		return s
	}
	s.root = s.rootChain()
	return s
}

// rootChain returns the contributors of the root. A table that is damaged so
// early gives its error again when it is asked for attributes.
func (s *Stack) rootChain() chain {
	var list []contrib
	for i := len(s.layers) - 1; i >= 0; i-- {
		list = append(list, contrib{layer: uint32(i)})
		if a, err := s.layers[i].Attr(0); err == nil && a.Opaque {
			break
		}
	}
	return newChain(list)
}

// Layers returns the number of layers.
func (s *Stack) Layers() int { return len(s.layers) }

// Layer returns the tree of layer i, bottom first.
func (s *Stack) Layer(i int) *tree.Tree { return s.layers[i] }

// Root returns the root directory.
func (s *Stack) Root() Node {
	return Node{Layer: len(s.layers) - 1, Kind: tree.KindDirectory}
}

// DirID returns the number of a directory.
func (s *Stack) DirID(n Node) DirID { return DirID(s.base[n.Layer] + uint32(n.Ino)) }

// DirNode returns the directory with a number. It says whether the layers have so
// many directories, not whether the stack shows this one.
func (s *Stack) DirNode(id DirID) (Node, bool) {
	c, err := s.contrib(id)
	return c.node(), err == nil
}

// contrib returns the directory that id numbers.
func (s *Stack) contrib(id DirID) (contrib, error) {
	if s.err != nil {
		return contrib{}, s.err
	}
	// The last layer whose root is not behind id: bases ascend strictly.
	lo, hi := 0, len(s.base)-1
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if s.base[mid] <= uint32(id) {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	ino := uint32(id) - s.base[lo]
	if ino >= s.layers[lo].Dirs() {
		return contrib{}, fmt.Errorf("directory %d: %w", id, ErrStale)
	}
	return contrib{layer: uint32(lo), ino: tree.Ino(ino)}, nil
}

// idOf returns the number of a contributor.
func (s *Stack) idOf(c contrib) DirID { return DirID(s.base[c.layer] + uint32(c.ino)) }

// Lookup finds a name in a directory. It does not allocate when the directory is
// in the cache.
func (s *Stack) Lookup(dir DirID, name []byte) (Node, bool, error) {
	ch, err := s.chain(dir)
	if err != nil {
		return Node{}, false, err
	}
	h, ok, err := s.top(&ch, name)
	if err != nil || !ok {
		return Node{}, false, err
	}
	if h.kind == tree.KindDirectory {
		if len(ch.rest) > 0 {
			_, err = s.child(&ch, dir, &h, name)
		}
		return h.at.node(), err == nil, err
	}
	return s.resolved(h.at, h.kind)
}

// resolved returns the node of a dirent that is no directory, following a link to
// a lower layer.
func (s *Stack) resolved(c contrib, k tree.Kind) (Node, bool, error) {
	if k != tree.KindLink {
		return Node{Layer: int(c.layer), Ino: c.ino, Kind: k}, true, nil
	}
	return s.linkNode(c.layer, uint32(c.ino))
}

// hit is a name found in a contributor.
type hit struct {
	at   contrib // for KindLink, ino is the number of the link
	rank int     // of the contributor in its chain
	kind tree.Kind
	// opaque says of a directory that nothing is merged below it.
	opaque bool
}

// top finds the topmost appearance of a name in a directory; false when there is
// none or it is a whiteout.
func (s *Stack) top(ch *chain, name []byte) (hit, bool, error) {
	for rank := range ch.len() {
		c := ch.at(rank)
		d, ok, err := s.layers[c.layer].Lookup(c.ino, name)
		if err != nil {
			return hit{}, false, s.in(c, err)
		}
		if ok {
			at := contrib{layer: c.layer, ino: d.Ino}
			return hit{at, rank, d.Kind, d.Opaque}, d.Kind != tree.KindWhiteout, nil
		}
	}
	return hit{}, false, nil
}

// in says which layer an error is of.
func (s *Stack) in(c contrib, err error) error {
	return fmt.Errorf("layer %d of %d: %w", c.layer+1, len(s.layers), err)
}

// Same reports whether a directory of the stack is made up of the very same
// directories as one of another stack, so that both show the same below it. Trees
// are the same when they are one Tree. It may say no where it is so.
func (s *Stack) Same(dir DirID, other *Stack, otherDir DirID) (bool, error) {
	if s.linked || other.linked {
		return false, nil // where a link leads depends on the whole stack
	}
	a, err := s.chain(dir)
	if err != nil {
		return false, err
	}
	b, err := other.chain(otherDir)
	if err != nil || a.len() != b.len() {
		return false, err
	}
	for i := range a.len() {
		x, y := a.at(i), b.at(i)
		if x.ino != y.ino || s.layers[x.layer] != other.layers[y.layer] {
			return false, nil
		}
	}
	return true, nil
}
