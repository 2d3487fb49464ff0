package overlay

import (
	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

// An ID names a node for as long as the union is open. It has 44 bits:
//
//	43 42 41                 0
//	+----+--------------------+
//	|kind|       number       |
//	+----+--------------------+
//
//	kind       number
//	lowerFile  layer<<32 | inode of a file below that is no directory
//	lowerDir   union.DirID of a directory below
//	born       a counter, for what is not from below; as inode number the host's. 1 is the root
//
// The same numbers are shown as inode numbers, so these are the same after the union
// was closed and opened again.
type ID uint64

// NumberBits is the width of the number in an ID.
const NumberBits = 42

const (
	kindLowerFile ID = (iota + 1) << NumberBits
	kindLowerDir
	kindBorn

	numberMask ID = 1<<NumberBits - 1
)

// Root is the root directory of every union.
const Root = kindBorn | 1

// MaxLayers is how many layers a union can have below it.
const MaxLayers = 1 << (NumberBits - 32)

func (id ID) kind() ID { return id &^ numberMask }

// lowerID returns the ID of a file below.
func (f *FS) lowerID(n union.Node) ID {
	if n.Kind == kindDirectory {
		return f.dirID(f.below.DirID(n))
	}
	return kindLowerFile | ID(n.Layer)<<32 | ID(n.Ino)
}

// dirID returns the ID of a directory below; that of its root is the union's.
func (f *FS) dirID(d union.DirID) ID {
	if d == f.belowRoot {
		return Root
	}
	return kindLowerDir | ID(d)
}

// lowerNode undoes lowerID; false for what was never below.
func (f *FS) lowerNode(id ID) (union.Node, bool) {
	if f.below == nil {
		return union.Node{}, false
	}
	switch id.kind() {
	case kindLowerDir:
		return f.below.DirNode(union.DirID(id))
	case kindLowerFile:
		layer, ino := int(id>>32&(MaxLayers-1)), uint32(id)
		return f.inode(layer, ino)
	}
	return union.Node{}, false
}

// inode returns the node of an inode of a layer that is no directory.
func (f *FS) inode(layer int, ino uint32) (union.Node, bool) {
	if layer >= f.below.Layers() {
		return union.Node{}, false
	}
	a, err := f.below.Layer(layer).Attr(inoOf(ino))
	if err != nil || a.Kind == kindDirectory {
		return union.Node{}, false
	}
	return union.Node{Layer: layer, Ino: inoOf(ino), Kind: a.Kind}, true
}

// originOf returns what is written down of a file below when it is copied up.
func originOf(n union.Node) upper.Origin {
	return upper.Origin{Layer: uint32(n.Layer), Ino: uint32(n.Ino)}
}
