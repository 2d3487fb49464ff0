package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
)

// forever is how long the kernel may believe what it is told, in seconds: until it is told otherwise.
const forever = 1 << 30

// generation of every node: numbers are never used again.
const generation = 1

// found fills out with the answer to a look-up, all but the attributes, and counts it.
func (f *fileSystem) found(out *fuse.EntryOut, node uint64, count *counter) {
	out.NodeId, out.Generation, out.EntryValid, out.AttrValid = node, generation, forever, forever
	if count != nil {
		count.Add(1)
	}
}

// fileAttr fills out with the attributes of something in a tree.
func (f *fileSystem) fileAttr(out *fuse.Attr, node uint64, a *tree.Attr) {
	out.Ino = f.shown(node)
	out.Mode = typeMode[a.Kind] | a.Mode
	out.Nlink, out.Blksize = a.Nlink, blockSize
	out.Uid, out.Gid = f.owners.shift(a.UID, a.GID)
	switch a.Kind {
	case tree.KindRegular:
		out.Size, out.Blocks = uint64(a.Size), blocks(a.Size)
	case tree.KindSymlink:
		out.Size = uint64(a.Size)
	case tree.KindDirectory:
		out.Size, out.Blocks = dirSize, blocks(dirSize)
	case tree.KindChar, tree.KindBlock:
		out.Rdev = rdev(a.Major, a.Minor)
	}
	sec := uint64(a.MtimeSec)
	out.Mtime, out.Mtimensec = sec, a.MtimeNsec
	out.Ctime, out.Ctimensec, out.Atime, out.Atimensec = sec, a.MtimeNsec, sec, a.MtimeNsec
}

// rdev packs a device number as the kernel's new_decode_dev unpacks it: 12 bits of major, 20 of minor.
func rdev(major, minor uint32) uint32 {
	return minor&0xff | major&0xfff<<8 | minor&0xfff00<<12
}

// shown returns the inode number to show for a node. The root of a mount is 1 to the kernel, also when it is the
// directory of an image.
func (f *fileSystem) shown(node uint64) uint64 {
	if node == f.root {
		return rootID
	}
	return node
}

// meant undoes shown.
func (f *fileSystem) meant(node uint64) uint64 {
	if node == rootID {
		return f.root
	}
	return node
}

// dirNode returns the node of a directory of a view.
func (v *view) dirNode(st *stack, id union.DirID) uint64 {
	if id == st.root {
		return nodeID(kindViewDir, v.slot, rootDir)
	}
	return nodeID(kindViewDir, v.slot, uint32(id))
}

// dirID undoes dirNode.
func (st *stack) dirID(number uint32) union.DirID {
	if number == rootDir {
		return st.root
	}
	return union.DirID(number)
}

// node returns the node of a file of a view and the counter that counts it.
func (v *view) node(st *stack, n union.Node) (uint64, *counter) {
	if n.Kind == tree.KindDirectory {
		return v.dirNode(st, st.DirID(n)), v.lookups
	}
	if st.linked {
		if g, _, ok := st.Group(n); ok {
			return nodeID(kindViewObject, v.slot, viewLinkGroup+uint32(g)), v.lookups
		}
	}
	l := v.image.layers[n.Layer]
	return nodeID(kindFile, l.slot, uint32(n.Ino)), l.lookups
}

// newStack merges trees, bottom first.
func (f *fileSystem) newStack(trees []*tree.Tree) *stack {
	st := &stack{Stack: f.cache.New(trees)}
	st.root = st.DirID(st.Root())
	for _, t := range trees {
		st.linked = st.linked || t.HasLowerLinks()
	}
	return st
}

// counterOf returns the counter of a node, nil for those that every mount has.
func (s *snapshot) counterOf(node uint64) *counter {
	k, slot, _ := splitID(node)
	switch k {
	case kindFile, kindDiffDir, kindLayerObject, kindWhiteout:
		if l := s.layerAt(slot); l != nil {
			return l.lookups
		}
	case kindViewDir, kindViewObject:
		if v := s.views[slot]; v != nil {
			return v.lookups
		}
	}
	return nil
}

// lookupView finds a name in a directory of a view.
func (f *fileSystem) lookupView(v *view, number uint32, name []byte, out *fuse.EntryOut) syscall.Errno {
	st, err := f.tree(v.image)
	if err != nil {
		return f.errno(err)
	}
	n, ok, err := st.Lookup(st.dirID(number), name)
	if err != nil {
		return f.errno(err)
	}
	if !ok {
		out.EntryValid = forever
		return 0
	}
	if n.Kind != tree.KindDirectory {
		f.walker.lookedUp()
	}
	a, err := st.Attr(n)
	if err != nil {
		return f.errno(err)
	}
	node, count := v.node(st, n)
	f.fileAttr(&out.Attr, node, &a)
	f.found(out, node, count)
	return 0
}

// viewDirAttr fills out for a directory of a view.
func (f *fileSystem) viewDirAttr(v *view, number uint32, out *fuse.Attr) syscall.Errno {
	st, err := f.tree(v.image)
	if err != nil {
		return f.errno(err)
	}
	n, ok := st.DirNode(st.dirID(number))
	if !ok {
		return syscall.ESTALE
	}
	a, err := st.Attr(n)
	if err != nil {
		return f.errno(err)
	}
	f.fileAttr(out, nodeID(kindViewDir, v.slot, number), &a)
	return 0
}

// group returns the file that all names of a group of hard links are, when the group begins in a lower layer than some
// of its names.
func (f *fileSystem) group(v *view, number uint32) (*stack, union.Node, syscall.Errno) {
	st, err := f.tree(v.image)
	if err != nil {
		return nil, union.Node{}, f.errno(err)
	}
	n, ok := st.GroupNode(int(number - viewLinkGroup))
	if !ok {
		return nil, union.Node{}, syscall.ESTALE
	}
	return st, n, 0
}

func (f *fileSystem) groupAttr(v *view, number uint32, out *fuse.Attr) syscall.Errno {
	st, n, errno := f.group(v, number)
	if errno != 0 {
		return errno
	}
	a, err := st.Attr(n)
	if err != nil {
		return f.errno(err)
	}
	f.fileAttr(out, nodeID(kindViewObject, v.slot, number), &a)
	return 0
}
