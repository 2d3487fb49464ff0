package fs

import (
	"crypto/sha256"
	"encoding/binary"
)

// Node IDs are computed from what they name, so that nothing has to be remembered, a remount gives the same numbers
// and another process could take a mount over. They are the inode numbers as well, hence below 2^61: overlayfs with
// xino needs the upper bits.
//
//	63   61 60  58 57                          32 31                              0
//	+------+------+------------------------------+---------------------------------+
//	|  0   | kind |             slot             |              number             |
//	+------+------+------------------------------+---------------------------------+
//
//	kind            slot              number
//	kindFixed       0                 1 root, 2 images, ... (the constants below)
//	                1                 a rendering of status.json
//	                2                 an index.json of oci/
//	kindFile        layer             tree.Ino of something that is no directory; the same in every image and in diff/
//	kindViewDir     view              union.DirID of a directory of rootfs/; rootDir for rootfs/ itself
//	kindDiffDir     layer             tree.Ino of a directory of diff/
//	kindRepo        58 bits of the SHA-256 of the path of a directory below images/, or of something below podman/
//	kindViewObject  view              one of the constants below
//	kindLayerObject layer             one of the constants below
//	kindWhiteout    layer             number of the dirent in diff/
//
// A directory of a view has a number of its own in every view, because a directory can have only one place in a mount.
//
// Overflow: the index gives slots up from 1 and never again. A layer or view with a slot beyond 2^26-1 is left out of
// the mount and named in the log (67 million loads later). Numbers are 32 bits where they come from. Two repositories
// whose hashes agree get consecutive numbers, in the order of their paths.
type kind uint8

const (
	kindFixed kind = iota
	kindFile
	kindViewDir
	kindDiffDir
	kindRepo
	kindViewObject
	kindLayerObject
	kindWhiteout
)

const (
	kindShift = 58
	slotShift = 32
	maxSlot   = 1<<(kindShift-slotShift) - 1
	repoMask  = 1<<kindShift - 1
)

// Nodes that every mount has.
const (
	rootID   = 1
	imagesID = 2
	byID     = 3
	layersID = 4
	sha256ID = 5
	stateID  = 6
	treesID  = 7 // containers, a symbolic link
	podmanID = 16
	statusID = 1 << slotShift // + the number of the rendering; itself the inode number shown when listing
)

// Numbers of kindViewObject.
const (
	viewTop      = 0
	viewConfig   = 1
	viewManifest = 2
	viewLayers   = 3
	viewEmpty    = 4 // the root of an image without layers
	viewDocker   = 5
	// 16 to 20, and from 1 << 13 on: what is below oci/, see oci.go
	viewSymlink   = 1 << 12 // + place of the layer in the stack
	viewLinkGroup = 1 << 31 // + number of the group of hard links that begins in a lower layer
)

// Numbers of kindLayerObject.
const (
	layerTop  = 0
	layerTar  = 1
	layerInfo = 2
)

// rootDir is the number in kindViewDir that stands for the root directory. It is not that directory's union.DirID, so
// that listing an image directory does not open all layers of the image.
const rootDir = 1<<32 - 1

// nodeID composes a node ID.
func nodeID(k kind, slot, number uint32) uint64 {
	return uint64(k)<<kindShift | uint64(slot)<<slotShift | uint64(number)
}

// splitID takes a node ID apart. The kinds of IDs above 2^61 are not ours; they come out as kindFixed with a slot that
// nobody has.
func splitID(id uint64) (k kind, slot, number uint32) {
	if id>>61 != 0 {
		return kindFixed, maxSlot, 0
	}
	return kind(id >> kindShift), uint32(id>>slotShift) & maxSlot, uint32(id)
}

// repoID returns the node ID of the directory at path below images/, one that taken does not have.
func repoID[V any](path string, taken map[uint64]V) uint64 {
	sum := sha256.Sum256([]byte(path))
	for n := binary.BigEndian.Uint64(sum[:]) & repoMask; ; n = (n + 1) & repoMask {
		id := uint64(kindRepo)<<kindShift | n
		if _, ok := taken[id]; !ok {
			return id
		}
	}
}
