package fs

import (
	"context"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/internal/shared"
	"github.com/layerfs/layerfs/layers/overlay"
)

// What layerfs adds around the trees of containers:
//
//	<name>/            one directory per container; other names of it are symbolic links there
//	    rootfs/        the tree
//	    config.json    the configuration of the image, as it was received
//	    labels.json
//	    changes        what has been added, changed and deleted, made when it is opened
//	    diff.tar       the same as a layer, made when it is opened

// rootfsName is the directory with the tree.
const rootfsName = "rootfs"

// ownFiles are the entries of the directory of a container beside rootfs.
var ownFiles = []struct {
	name   string
	number uint64
}{{"changes", treeChanges}, {"config.json", treeConfig}, {"diff.tar", treeDiff}, {"labels.json", treeLabels}}

// object returns the container that a node of kind treeObject belongs to, and the number of the node.
func (t *trees) object(node uint64) (*container, uint64, syscall.Errno) {
	kind, slot, _ := splitTree(node)
	c := t.list.Load().bySlot[slot]
	if kind != treeObject || c == nil {
		return nil, 0, syscall.ESTALE
	}
	return c, node & treeNumber, 0
}

// lookupOwn finds a name in a directory that is not part of a tree.
func (t *trees) lookupOwn(parent uint64, name string, out *fuse.EntryOut) syscall.Errno {
	out.Generation, out.EntryValid, out.AttrValid = generation, forever, forever
	if parent == rootID {
		e, ok := t.list.Load().find(name)
		if !ok {
			return 0
		}
		out.NodeId = e.node()
		return t.ownAttr(out.NodeId, &out.Attr)
	}
	c, number, errno := t.object(parent)
	if errno != 0 {
		return errno
	}
	if number != treeTop {
		return syscall.ENOTDIR
	}
	if name == rootfsName {
		return t.lookupRootfs(c, out)
	}
	for _, f := range ownFiles {
		if f.name == name {
			out.NodeId = objectNode(c.slot, f.number)
			return t.ownAttr(out.NodeId, &out.Attr)
		}
	}
	return 0
}

// lookupRootfs opens the tree of a container.
func (t *trees) lookupRootfs(c *container, out *fuse.EntryOut) syscall.Errno {
	o, err := t.use(c)
	if err != nil {
		return t.errno(err)
	}
	a, err := o.GetAttr(overlay.Root)
	if err != nil {
		return t.errno(err)
	}
	t.entry(out, c, o, &a)
	return 0
}

// ownAttr fills out for a node that is not part of a tree.
func (t *trees) ownAttr(node uint64, out *fuse.Attr) syscall.Errno {
	l := t.list.Load()
	if node == rootID {
		t.f.own(out, syscall.S_IFDIR|0o755, dirSize, l.time)
		out.Ino, out.Nlink = rootID, 2+uint32(len(l.bySlot))
		return 0
	}
	c, number, errno := t.object(node)
	if errno != 0 {
		return errno
	}
	created := c.record.Load().Created
	switch number {
	case treeTop:
		t.f.own(out, syscall.S_IFDIR|0o555, dirSize, created)
		out.Nlink = 3
	case treeAlias:
		t.f.own(out, syscall.S_IFLNK|0o777, int64(len(*c.name.Load())), created)
	case treeConfig, treeLabels:
		text, err := t.ownText(c, number)
		if err != nil {
			return t.errno(err)
		}
		t.f.own(out, syscall.S_IFREG|0o444, int64(len(text)), created)
	default:
		t.f.own(out, syscall.S_IFREG|0o444, 0, created) // it is read to its end, however long it is
	}
	out.Ino = objectNode(c.ino, number)
	return 0
}

// ownText returns the content of a file whose content is small and at hand.
func (t *trees) ownText(c *container, number uint64) ([]byte, error) {
	rec := c.record.Load()
	if number == treeLabels {
		return rec.Labels()
	}
	full, err := rec.Container()
	if err != nil {
		return nil, err
	}
	return t.f.store.ContainerConfig(full)
}

func (t *trees) readOwn(node uint64, buf []byte, off int64) ([]byte, syscall.Errno) {
	c, number, errno := t.object(node)
	if errno != 0 {
		return nil, errno
	}
	text, err := t.ownText(c, number)
	return readText(text, buf, off), t.errno(err)
}

func (t *trees) readlinkOwn(node uint64) ([]byte, syscall.Errno) {
	c, number, errno := t.object(node)
	if errno != 0 {
		return nil, errno
	}
	if number != treeAlias {
		return nil, syscall.EINVAL
	}
	return []byte(*c.name.Load()), 0
}

// listOwn lists a directory that is not part of a tree, as it was when it was opened.
func (t *trees) listOwn(h *treeDir, node uint64, out *wire.Dir) syscall.Errno {
	if !dots(out, node, rootID) {
		return 0
	}
	for i := out.Offset - dotCount; i < uint64(len(h.entries)); i++ {
		e := &h.entries[i]
		if !addName(out, []byte(e.name), e.node, e.mode, i+dotCount+1) {
			break
		}
	}
	return 0
}

// ownEntries returns what such a directory holds.
func (t *trees) ownEntries(node uint64) ([]entry, syscall.Errno) {
	var out []entry
	if node == rootID {
		for _, e := range t.list.Load().entries {
			out = append(out, entry{e.name, e.node(), e.mode()})
		}
		return out, 0
	}
	c, number, errno := t.object(node)
	if errno != 0 {
		return nil, errno
	}
	if number != treeTop {
		return nil, syscall.ENOTDIR
	}
	for _, f := range ownFiles {
		out = append(out, entry{f.name, objectNode(c.slot, f.number), syscall.S_IFREG})
	}
	return append(out, entry{rootfsName, treeNode(c.slot, overlay.Root), syscall.S_IFDIR}), 0
}

// treeDirs are the open directories, and the open files whose content was made for whoever opened them.
type treeDirs struct {
	table *shared.Table // nil: they end with this process

	mu   sync.Mutex
	last uint64
	open map[uint64]*treeDir
}

type treeDir struct {
	c       *container   // nil: the directory of containers
	dir     *overlay.Dir // nil: not part of a tree
	entries []entry
	file    *os.File // the content of a file

	rec   *dirRecord // what outlives the process; nil: nothing
	recAt uint32
	mu    sync.Mutex // guards left
	left  bool       // it is of another process, see reopen
}

// add returns the handle of a node that was opened.
func (d *treeDirs) add(h *treeDir, node uint64) uint64 {
	if h.c != nil {
		h.c.handles.Add(1)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[uint64]*treeDir{}
	}
	d.last++
	fh := fhMade + d.last
	d.open[fh] = h
	d.remember(h, fh, node)
	return fh
}

func (d *treeDirs) get(fh uint64) *treeDir {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[fh]
}

// remove returns what was opened under a handle, which is free from now on; nil for another one.
func (d *treeDirs) remove(fh uint64) *treeDir {
	d.mu.Lock()
	h := d.open[fh]
	delete(d.open, fh)
	d.mu.Unlock()
	if h == nil {
		return nil
	}
	if h.rec != nil {
		h.rec = nil
		d.table.Free(h.recAt)
	}
	if h.c != nil {
		h.c.handles.Add(-1)
	}
	return h
}

// openMade makes the content of a file that is made when it is opened.
func (t *trees) openMade(c *container, number uint64, out *fuse.OpenOut) syscall.Errno {
	h := &treeDir{c: c}
	var err error
	if number == treeDiff {
		h.file, err = t.f.store.DiffFile(context.Background(), c.id)
	} else {
		var text []byte
		if text, err = t.f.store.ChangesText(context.Background(), c.id); err == nil {
			h.file, err = unnamedText(text)
		}
	}
	if err != nil {
		return t.errno(err)
	}
	out.Fh = t.dirs.add(h, objectNode(c.slot, number))
	t.keepMade(h, out.Fh)
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
	return 0
}
