package fs

import (
	"io"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/index/tree"
)

// This file is about what is not in any image: the directories above them, the texts beside them, links.

// dirOf returns the directory that a node stands for; those that a view or a layer brings are made on the spot.
func (f *fileSystem) dirOf(s *snapshot, node uint64) (*dir, syscall.Errno) {
	if d := s.dirs[node]; d != nil {
		return d, 0
	}
	k, slot, number := splitID(node)
	switch {
	case isOCIStore(node):
		if d := f.ociStore(s).dirs[node]; d != nil {
			return d, 0
		}
		return nil, syscall.ENOTDIR
	case k == kindViewObject && s.views[slot] != nil && isOCI(number):
		return f.ociDir(s.views[slot], number)
	case k == kindRepo:
		p := f.podman(s)
		if d := p.dir(node); d != nil {
			return d, 0
		}
		if p.file(node) != nil {
			return nil, syscall.ENOTDIR
		}
	case k == kindViewObject && s.views[slot] != nil:
		return s.views[slot].dirOf(number)
	case k == kindLayerObject && s.layers[slot] != nil && number == layerTop:
		return s.layers[slot].top(), 0
	}
	return nil, s.notDir(node)
}

// notDir is the errno for a node that is used as a directory and is none.
func (s *snapshot) notDir(node uint64) syscall.Errno {
	k, slot, _ := splitID(node)
	switch {
	case k == kindFixed && slot == 1, (k == kindFile || k == kindWhiteout || k == kindLayerObject) && s.layerAt(slot) != nil:
		return syscall.ENOTDIR
	}
	return syscall.ESTALE
}

// top is the directory of a layer.
func (l *layer) top() *dir {
	return &dir{
		node: nodeID(kindLayerObject, l.slot, layerTop), parent: sha256ID, time: l.created,
		entries: []entry{
			{"diff", nodeID(kindDiffDir, l.slot, 0), syscall.S_IFDIR},
			{"info.json", nodeID(kindLayerObject, l.slot, layerInfo), syscall.S_IFREG},
			{"layer.tar", nodeID(kindLayerObject, l.slot, layerTar), syscall.S_IFREG},
		},
	}
}

// dirOf returns one of the directories of a view.
func (v *view) dirOf(number uint32) (*dir, syscall.Errno) {
	d := &dir{node: nodeID(kindViewObject, v.slot, number), parent: nodeID(kindViewObject, v.slot, viewTop), time: v.created}
	switch number {
	case viewTop:
		d.parent = v.parent
		root := nodeID(kindViewDir, v.slot, rootDir)
		if len(v.image.layers) == 0 {
			root = nodeID(kindViewObject, v.slot, viewEmpty)
		}
		d.entries = []entry{
			{"config.json", nodeID(kindViewObject, v.slot, viewConfig), syscall.S_IFREG},
			{"docker.tar", nodeID(kindViewObject, v.slot, viewDocker), syscall.S_IFREG},
			{"layers", nodeID(kindViewObject, v.slot, viewLayers), syscall.S_IFDIR},
			{"manifest.json", nodeID(kindViewObject, v.slot, viewManifest), syscall.S_IFREG},
			{"oci", nodeID(kindViewObject, v.slot, ociTop), syscall.S_IFDIR},
			{"rootfs", root, syscall.S_IFDIR},
		}
	case viewLayers:
		for i, l := range v.image.layers {
			name := symlinkName(i, len(v.image.layers), l.diffID)
			d.entries = append(d.entries, entry{name, nodeID(kindViewObject, v.slot, viewSymlink+uint32(i)), syscall.S_IFLNK})
		}
	case viewEmpty:
	default:
		return nil, syscall.ENOTDIR
	}
	return d, 0
}

// symlink returns the target of a link in layers/.
func (v *view) symlink(number uint32) (string, syscall.Errno) {
	i := int64(number) - viewSymlink
	if i < 0 || i >= int64(len(v.image.layers)) {
		return "", syscall.EINVAL
	}
	return v.symlinkTarget(v.image.layers[i].diffID), 0
}

// own fills out with attributes of something that belongs to the server.
func (f *fileSystem) own(out *fuse.Attr, mode uint32, size int64, t time.Time) {
	out.Mode, out.Nlink, out.Uid, out.Gid, out.Blksize = mode, 1, f.uid, f.gid, blockSize
	out.Size, out.Blocks = uint64(size), blocks(size)
	sec, nsec := uint64(t.Unix()), uint32(t.Nanosecond())
	out.Mtime, out.Mtimensec = sec, nsec
	out.Ctime, out.Ctimensec, out.Atime, out.Atimensec = sec, nsec, sec, nsec
}

// ownDir fills out for a dir.
func (f *fileSystem) ownDir(out *fuse.Attr, d *dir) {
	f.own(out, syscall.S_IFDIR|0o555, dirSize, d.time)
	out.Nlink = 2 + d.subdirs()
}

// syntheticAttr fills out for a node that is not in an image.
func (f *fileSystem) syntheticAttr(s *snapshot, node uint64, out *fuse.Attr) syscall.Errno {
	if r := f.status.at(node); r != nil {
		f.own(out, syscall.S_IFREG|0o444, int64(len(r.text)), r.time)
		return 0
	}
	if node == treesID && f.beside != nil {
		f.own(out, syscall.S_IFLNK|0o777, int64(len(f.beside.dir)), f.started)
		return 0
	}
	if node == ociStoreID && s.oci.made.Load() == nil {
		// Who lists the root of the mount does not look into it yet.
		f.ownDir(out, &dir{time: f.started, entries: []entry{{"blobs", ociStoreBlobsID, syscall.S_IFDIR}}})
		return 0
	}
	d, errno := f.dirOf(s, node)
	if errno == 0 {
		f.ownDir(out, d)
		return 0
	}
	if errno != syscall.ENOTDIR {
		return errno
	}
	if isOCIStore(node) {
		t, ok := f.ociStore(s).file(node)
		if !ok {
			return syscall.ESTALE
		}
		f.own(out, syscall.S_IFREG|0o444, int64(len(t.text)), t.time)
		return 0
	}
	k, slot, number := splitID(node)
	switch k {
	case kindRepo:
		return f.podmanAttr(s, node, out)
	case kindViewObject:
		return f.viewAttr(s.views[slot], number, out)
	case kindLayerObject:
		l := s.layers[slot]
		switch number {
		case layerTar:
			f.own(out, syscall.S_IFREG|0o444, l.about.Load().Size, l.created)
			return 0
		case layerInfo:
			text, err := l.about.Load().Info()
			f.own(out, syscall.S_IFREG|0o444, int64(len(text)), l.created)
			return f.errno(err)
		}
	}
	return syscall.ESTALE
}

// viewAttr fills out for a file or link beside a rootfs.
func (f *fileSystem) viewAttr(v *view, number uint32, out *fuse.Attr) syscall.Errno {
	switch {
	case number == viewConfig:
		f.own(out, syscall.S_IFREG|0o444, v.image.config.Size, v.created)
	case number == viewManifest:
		f.own(out, syscall.S_IFREG|0o444, v.manifest.Size, v.created)
	case number >= viewLinkGroup:
		return f.groupAttr(v, number, out)
	case isOCI(number):
		return f.ociAttr(v, number, out)
	case number == viewDocker:
		t, err := newDockerTar(v)
		if err != nil {
			return f.errno(err)
		}
		f.own(out, syscall.S_IFREG|0o444, t.size, v.created)
	default:
		target, errno := v.symlink(number)
		if errno != 0 {
			return syscall.ESTALE
		}
		f.own(out, syscall.S_IFLNK|0o777, int64(len(target)), v.created)
	}
	return 0
}

// readText copies the part of a text that a READ asks for.
func readText(text, buf []byte, off int64) []byte {
	if off >= int64(len(text)) {
		return nil
	}
	return buf[:copy(buf, text[off:])]
}

// readSynthetic answers a READ of what is not in an image.
func (f *fileSystem) readSynthetic(s *snapshot, node uint64, buf []byte, off int64) ([]byte, syscall.Errno) {
	if r := f.status.at(node); r != nil {
		return readText(r.text, buf, off), 0
	}
	k, slot, number := splitID(node)
	switch {
	case isOCIStore(node):
		t, ok := f.ociStore(s).file(node)
		if !ok {
			return nil, syscall.ESTALE
		}
		return readText(t.text, buf, off), 0
	case k == kindViewObject && s.views[slot] != nil:
		return f.readView(s.views[slot], number, buf, off)
	case k == kindLayerObject && s.layers[slot] != nil:
		return f.readLayer(s.layers[slot], number, buf, off)
	case k == kindRepo:
		return f.readPodman(s, node, buf, off)
	}
	return nil, syscall.ESTALE
}

func (f *fileSystem) readView(v *view, number uint32, buf []byte, off int64) ([]byte, syscall.Errno) {
	desc := v.image.config
	switch {
	case number == viewManifest:
		desc = v.manifest
	case number >= viewLinkGroup:
		return f.readGroup(v, number, buf, off)
	case isOCI(number):
		return f.readOCI(v, number, buf, off)
	case number == viewDocker:
		return f.readDocker(v, buf, off)
	case number != viewConfig:
		return nil, syscall.EINVAL
	}
	text, err := f.store.Blob(desc.Digest)
	if err != nil {
		return nil, f.errno(err)
	}
	return readText(text, buf, off), 0
}

func (f *fileSystem) readLayer(l *layer, number uint32, buf []byte, off int64) ([]byte, syscall.Errno) {
	switch number {
	case layerInfo:
		text, err := l.about.Load().Info()
		return readText(text, buf, off), f.errno(err)
	case layerTar:
		return f.readTar(l, buf, off)
	}
	return nil, syscall.EINVAL
}

// readTar reads from the tar that the layer came as.
func (f *fileSystem) readTar(l *layer, buf []byte, off int64) ([]byte, syscall.Errno) {
	o, err := f.use(l)
	if err != nil {
		return nil, f.errno(err)
	}
	tar, err := o.Tar()
	if err != nil {
		return nil, f.errno(err)
	}
	n, err := tar.ReadAt(buf, off)
	if err != nil && err != io.EOF {
		return nil, f.errno(err)
	}
	return buf[:n], 0
}

const (
	blockSize = 4096
	dirSize   = 4096 // what directories show: tools take 0 for "no such thing here"
)

// blocks returns the 512-byte blocks that a file of some size occupies.
func blocks(size int64) uint64 { return (uint64(size) + 4095) / 4096 * 8 }

// typeMode are the S_IFMT bits of the kinds in a tree.
var typeMode = [...]uint32{
	tree.KindRegular:   syscall.S_IFREG,
	tree.KindDirectory: syscall.S_IFDIR,
	tree.KindSymlink:   syscall.S_IFLNK,
	tree.KindChar:      syscall.S_IFCHR,
	tree.KindBlock:     syscall.S_IFBLK,
	tree.KindFIFO:      syscall.S_IFIFO,
	tree.KindSocket:    syscall.S_IFSOCK,
	tree.KindWhiteout:  syscall.S_IFCHR,
	tree.KindLink:      0,
}
