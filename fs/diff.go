package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/index/tree"
)

// diff/ shows one layer as overlayfs keeps layers: a whiteout is a character device 0:0, an opaque directory has an
// extended attribute (xattr.go), a hard link to a file of a lower layer is a copy of it.

// lookupDiff finds a name in a directory of diff/.
func (f *fileSystem) lookupDiff(l *layer, dir uint32, name []byte, out *fuse.EntryOut) syscall.Errno {
	o, err := f.use(l)
	if err != nil {
		return f.errno(err)
	}
	t := o.Tree()
	d, ok, err := t.Lookup(tree.Ino(dir), name)
	if err != nil {
		return f.errno(err)
	}
	if ok {
		ok, err = f.diffEntry(l, t, &d, out)
	}
	if !ok {
		out.EntryValid = forever
	}
	return f.errno(err)
}

// diffEntry fills out for a dirent of diff/; false means that it is not shown.
func (f *fileSystem) diffEntry(l *layer, t *tree.Tree, d *tree.Dirent, out *fuse.EntryOut) (bool, error) {
	node, ino, ok, err := diffNode(l, t, d)
	if err != nil || !ok {
		return false, err
	}
	if d.Kind == tree.KindWhiteout {
		f.whiteoutAttr(l, node, &out.Attr)
	} else {
		a, err := t.Attr(ino)
		if err != nil {
			return false, err
		}
		f.fileAttr(&out.Attr, node, &a)
	}
	if d.Kind != tree.KindDirectory {
		l = l.self()
	}
	f.found(out, node, l.lookups)
	return true, nil
}

// diffNode returns the node and inode of a dirent of diff/; false for a link whose file no lower layer has.
func diffNode(l *layer, t *tree.Tree, d *tree.Dirent) (node uint64, ino tree.Ino, ok bool, err error) {
	switch d.Kind {
	case tree.KindDirectory:
		return nodeID(kindDiffDir, l.slot, uint32(d.Ino)), d.Ino, true, nil
	case tree.KindWhiteout:
		return nodeID(kindWhiteout, l.self().slot, d.Index), 0, true, nil
	case tree.KindLink:
		ino, ok, err = t.LowerCopy(uint32(d.Ino))
		return nodeID(kindFile, l.self().slot, uint32(ino)), ino, ok, err
	}
	return nodeID(kindFile, l.self().slot, uint32(d.Ino)), d.Ino, true, nil
}

// whiteoutAttr fills out for a whiteout.
func (f *fileSystem) whiteoutAttr(l *layer, node uint64, out *fuse.Attr) {
	f.own(out, syscall.S_IFCHR, 0, l.self().created)
	out.Ino = node
}

// layerNodeAttr fills out for a node of a layer's tree.
func (f *fileSystem) layerNodeAttr(l *layer, node uint64, out *fuse.Attr) syscall.Errno {
	o, err := f.use(l)
	if err != nil {
		return f.errno(err)
	}
	k, _, number := splitID(node)
	if k == kindWhiteout {
		if d, err := o.Tree().Dirent(number); err != nil || d.Kind != tree.KindWhiteout {
			return syscall.ESTALE
		}
		f.whiteoutAttr(l, node, out)
		return 0
	}
	a, err := o.Tree().Attr(tree.Ino(number))
	if err != nil {
		return f.errno(err)
	}
	if (a.Kind == tree.KindDirectory) != (k == kindDiffDir) {
		return syscall.ESTALE
	}
	f.fileAttr(out, node, &a)
	return 0
}

// listDiff lists a directory of diff/.
func (f *fileSystem) listDiff(l *layer, node uint64, out *wire.Dir) syscall.Errno {
	o, err := f.use(l)
	if err != nil {
		return f.errno(err)
	}
	t := o.Tree()
	_, _, number := splitID(node)
	parent := nodeID(kindLayerObject, l.slot, layerTop)
	if l.base != nil {
		parent = l.above
	}
	if number != 0 {
		up, _, err := t.Parent(tree.Ino(number))
		if err != nil {
			return f.errno(err)
		}
		parent = nodeID(kindDiffDir, l.slot, uint32(up))
	}
	first, count, err := t.Dir(tree.Ino(number))
	if err != nil {
		return f.errno(err)
	}
	if !dots(out, node, parent) {
		return 0
	}
	for i := out.Offset - dotCount; i < uint64(count); i++ {
		d, err := t.Dirent(first + uint32(i))
		if err != nil {
			return f.listError(out, err)
		}
		more, err := f.addDiff(l, t, &d, out, i+dotCount+1)
		if err != nil {
			return f.listError(out, err)
		}
		if !more {
			break
		}
	}
	return 0
}

// addDiff adds one dirent to a listing; false means that there is no more room.
func (f *fileSystem) addDiff(l *layer, t *tree.Tree, d *tree.Dirent, out *wire.Dir, offset uint64) (bool, error) {
	node, ino, ok, err := diffNode(l, t, d)
	if err != nil || !ok {
		return err == nil, err
	}
	mode := typeMode[d.Kind]
	if d.Kind == tree.KindLink {
		a, err := t.Attr(ino)
		if err != nil {
			return false, err
		}
		mode = typeMode[a.Kind]
	}
	if !out.Plus {
		return out.Add(d.Name, node, mode, offset), nil
	}
	e := out.AddPlus(d.Name, node, mode, offset)
	if e == nil {
		return false, nil
	}
	if _, err := f.diffEntry(l, t, d, e); err != nil {
		f.report(err.Error()) // the name goes out without attributes; a look-up will fail
	}
	return true, nil
}
