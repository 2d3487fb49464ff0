package fs

import (
	"github.com/layerfs/layerfs/layers/overlay"
)

// Node IDs of the connection for containers. They are the inode numbers as well, hence below 2^61.
//
//	63   61 60  58 57            42 41                                              0
//	+------+------+----------------+------------------------------------------------+
//	|  0   | kind |      slot      |                    number                      |
//	+------+------+----------------+------------------------------------------------+
//
//	kind           slot                number
//	0              0                   1: the directory of containers
//	1, 2, 3        of the container    as in package overlay
//	treeObject     of the container    one of the constants below
//
// A slot belongs to a container for as long as the mount lives. Inode numbers have the low bits of the container's slot
// in the index instead, so that they are the same in every mount.
const (
	treeSlotShift = overlay.NumberBits
	treeKindShift = treeSlotShift + 16
	treeSlotMask  = 1<<16 - 1
	treeNumber    = 1<<overlay.NumberBits - 1

	treeObject = 4
)

// Numbers of treeObject.
const (
	treeTop     = 1 + iota // the directory of the container
	treeConfig             // config.json
	treeLabels             // labels.json
	treeChanges            // changes
	treeDiff               // diff.tar
	treeAlias              // a symbolic link under another name of the container
)

// treeNode composes a node ID of a file of a container.
func treeNode(slot uint32, id overlay.ID) uint64 {
	return uint64(id>>overlay.NumberBits)<<treeKindShift | uint64(slot&treeSlotMask)<<treeSlotShift | uint64(id)&treeNumber
}

// objectNode composes a node ID of what layerfs adds to a container.
func objectNode(slot uint32, number uint64) uint64 {
	return treeObject<<treeKindShift | uint64(slot&treeSlotMask)<<treeSlotShift | number
}

// splitTree takes a node ID apart; for a file of a container id is that of package overlay.
func splitTree(node uint64) (kind uint64, slot uint32, id overlay.ID) {
	kind, slot = node>>treeKindShift, uint32(node>>treeSlotShift)&treeSlotMask
	return kind, slot, overlay.ID(kind<<overlay.NumberBits | node&treeNumber)
}

// isTree reports whether a kind is of files of a container.
func isTree(kind uint64) bool { return kind >= 1 && kind <= 3 }
