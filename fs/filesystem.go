package fs

import (
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/union"
)

// fileSystem answers the kernel's requests.
type fileSystem struct {
	store    *layers.Store
	log      *slog.Logger
	owners   owners
	uid, gid uint32 // of everything that layerfs adds
	trusted  bool   // trusted.* attributes are listed
	started  time.Time
	root     uint64 // the node that is the root of the mount
	cache    *union.Cache

	conn     *wire.Conn
	beside   *containersBeside // nil: containers are not shown
	counters counters
	resumed  bool // another process has served the mount before

	snap     atomic.Pointer[snapshot]
	status   statusFiles
	mapped   mappings
	backing  *passthrough // nil without the option
	reported reported
	walker   walker

	following following
	splits    splitFiles

	layerBlobs blobFiles
	docker     atomic.Pointer[dockerTar] // the one read last
}

// Lookup implements wire.Handler.
func (f *fileSystem) Lookup(parent uint64, name []byte, out *fuse.EntryOut) syscall.Errno {
	parent = f.meant(parent)
	s := f.snap.Load()
	switch k, slot, number := splitID(parent); k {
	case kindViewDir:
		if v := s.views[slot]; v != nil {
			return f.lookupView(v, number, name, out)
		}
		return syscall.ESTALE
	case kindDiffDir:
		if l := s.layerAt(slot); l != nil {
			return f.lookupDiff(l, number, name, out)
		}
		return syscall.ESTALE
	}
	return f.lookupSynthetic(s, parent, name, out)
}

// lookupSynthetic finds a name in a directory that is not part of an image.
func (f *fileSystem) lookupSynthetic(s *snapshot, parent uint64, name []byte, out *fuse.EntryOut) syscall.Errno {
	d, errno := f.dirOf(s, parent)
	if errno != 0 {
		return errno
	}
	e, ok := d.find(name)
	switch {
	case !ok:
		out.EntryValid = forever
		return 0
	case e.node == statusID:
		// Rendered for whoever looks now; nobody may find the same again.
		f.found(out, f.status.render(), nil)
		out.EntryValid = 0
		return f.attr(s, out.NodeId, &out.Attr)
	}
	if errno := f.attr(s, e.node, &out.Attr); errno != 0 {
		return errno
	}
	f.found(out, e.node, s.counterOf(e.node))
	return 0
}

// GetAttr implements wire.Handler.
func (f *fileSystem) GetAttr(node uint64, out *fuse.AttrOut) syscall.Errno {
	out.AttrValid = forever
	return f.attr(f.snap.Load(), f.meant(node), &out.Attr)
}

// attr fills out for any node.
func (f *fileSystem) attr(s *snapshot, node uint64, out *fuse.Attr) syscall.Errno {
	out.Ino = f.shown(node)
	switch k, slot, number := splitID(node); k {
	case kindFile, kindDiffDir, kindWhiteout:
		if l := s.layerAt(slot); l != nil {
			return f.layerNodeAttr(l, node, out)
		}
		return syscall.ESTALE
	case kindViewDir:
		if v := s.views[slot]; v != nil {
			return f.viewDirAttr(v, number, out)
		}
		return syscall.ESTALE
	}
	return f.syntheticAttr(s, node, out)
}

// ReadDir implements wire.Handler.
func (f *fileSystem) ReadDir(node uint64, out *wire.Dir) syscall.Errno {
	node = f.meant(node)
	s := f.snap.Load()
	switch k, slot, number := splitID(node); k {
	case kindViewDir:
		if v := s.views[slot]; v != nil {
			return f.listView(v, number, out)
		}
		return syscall.ESTALE
	case kindDiffDir:
		if l := s.layerAt(slot); l != nil {
			return f.listDiff(l, node, out)
		}
		return syscall.ESTALE
	}
	d, errno := f.dirOf(s, node)
	if errno != 0 {
		return errno
	}
	f.list(s, d, out)
	return 0
}

// Forget implements wire.Handler.
func (f *fileSystem) Forget(node, n uint64) {
	if node == rootID || n > 1<<62 {
		return
	}
	if c := f.snap.Load().counterOf(node); c != nil {
		c.Add(-int64(n))
	}
}

// Readlink implements wire.Handler.
func (f *fileSystem) Readlink(node uint64) ([]byte, syscall.Errno) {
	s := f.snap.Load()
	k, slot, number := splitID(node)
	switch {
	case k == kindFile && s.layers[slot] != nil:
		o, err := f.use(s.layers[slot])
		if err != nil {
			return nil, f.errno(err)
		}
		return f.target(o.Tree(), tree.Ino(number))
	case k == kindViewObject && s.views[slot] != nil && number >= viewLinkGroup:
		st, n, errno := f.group(s.views[slot], number)
		if errno != 0 {
			return nil, errno
		}
		return f.target(st.Layer(n.Layer), n.Ino)
	case node == treesID && f.beside != nil:
		return f.beside.target()
	case k == kindViewObject && s.views[slot] != nil:
		target, errno := s.views[slot].symlink(number)
		return []byte(target), errno
	case k == kindRepo:
		return f.podmanLinkAt(s, node)
	}
	return nil, syscall.ESTALE
}

func (f *fileSystem) target(t *tree.Tree, i tree.Ino) ([]byte, syscall.Errno) {
	target, err := t.Symlink(i)
	return target, f.errno(err)
}

// Read implements wire.Handler.
func (f *fileSystem) Read(node uint64, buf []byte, off int64) ([]byte, syscall.Errno) {
	s := f.snap.Load()
	k, slot, number := splitID(node)
	if k != kindFile {
		return f.readSynthetic(s, node, buf, off)
	}
	l := s.layers[slot]
	if l == nil {
		return nil, syscall.ESTALE
	}
	data, errno := f.readFile(l, tree.Ino(number), buf, off)
	if off == 0 && errno == 0 {
		f.following.reached(f, s, node)
	}
	return data, errno
}

// readGroup reads a file of a group of hard links.
func (f *fileSystem) readGroup(v *view, number uint32, buf []byte, off int64) ([]byte, syscall.Errno) {
	_, n, errno := f.group(v, number)
	if errno != 0 {
		return nil, errno
	}
	return f.readFile(v.image.layers[n.Layer], n.Ino, buf, off)
}

// readFile reads from a regular file of a layer: what lies in a pack straight out of its mapping.
func (f *fileSystem) readFile(l *layer, i tree.Ino, buf []byte, off int64) ([]byte, syscall.Errno) {
	o, err := f.use(l)
	if err != nil {
		return nil, f.errno(err)
	}
	if data, ok := o.Bytes(i, off, int64(len(buf))); ok {
		return data, 0
	}
	if len(buf) >= mappedRead {
		if data, ok := f.mapped.bytes(o, nodeID(kindFile, l.slot, uint32(i)), i, off, int64(len(buf))); ok {
			return data, 0
		}
	}
	n, err := o.ReadAt(i, buf, off)
	if err != nil && err != io.EOF {
		return nil, f.errno(err)
	}
	return buf[:n], 0
}
