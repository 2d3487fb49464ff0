package fs

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/index/tree"
)

// passthrough lets the kernel read large files from the store's own files. It needs root, and it needs to hear of
// every open file; therefore it is an option.
//
// The kernel accepts one backing file per inode at a time, so all who have a file open share one.
type passthrough struct {
	conn *wire.Conn

	mu    sync.Mutex
	files map[uint64]*backing // by node
}

// backing is a file that was given to the kernel.
type backing struct {
	id   int32
	refs int
}

// fhBacked is the handle of files that the kernel reads itself.
const fhBacked = 1

// open answers OPEN: with a backing file where the content is one file of the store, else with nothing but what spares
// requests later.
func (p *passthrough) open(f *fileSystem, node uint64, out *fuse.OpenOut) syscall.Errno {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	id, ok, err := p.acquire(f, node)
	if err != nil {
		return f.errno(err)
	}
	if ok {
		out.Fh, out.BackingID, out.OpenFlags = fhBacked, id, fuse.FOPEN_PASSTHROUGH|fuse.FOPEN_NOFLUSH
	}
	return 0
}

// acquire returns the number of the backing file of a node, which it registers for the first who opens it; false when
// the node has none.
func (p *passthrough) acquire(f *fileSystem, node uint64) (int32, bool, error) {
	l, i, ok := f.layerFile(node)
	if !ok {
		return 0, false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.files[node]; b != nil {
		b.refs++
		return b.id, true, nil
	}
	o, err := f.use(l)
	if err != nil {
		return 0, false, err
	}
	file, ok, err := o.OpenBody(i)
	if err != nil || !ok {
		return 0, false, err
	}
	defer file.Close() // the kernel holds it from now on
	id, err := p.conn.RegisterBacking(int(file.Fd()))
	if err != nil {
		f.report(fmt.Sprintf("passthrough: %v; the file is read as without it", err))
		return 0, false, nil
	}
	p.files[node] = &backing{id: id, refs: 1}
	return id, true, nil
}

// release undoes one acquire.
func (p *passthrough) release(node uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.files[node]
	if b == nil {
		return
	}
	if b.refs--; b.refs == 0 {
		delete(p.files, node)
		_ = p.conn.UnregisterBacking(b.id) // the kernel forgets it with the connection at the latest
	}
}

// layerFile returns the layer and inode of a file of an image.
func (f *fileSystem) layerFile(node uint64) (*layer, tree.Ino, bool) {
	s := f.snap.Load()
	k, slot, number := splitID(node)
	switch {
	case k == kindFile && s.layers[slot] != nil:
		return s.layers[slot], tree.Ino(number), true
	case k == kindViewObject && s.views[slot] != nil && number >= viewLinkGroup:
		if _, n, errno := f.group(s.views[slot], number); errno == 0 {
			return s.views[slot].image.layers[n.Layer], n.Ino, true
		}
	}
	return nil, 0, false
}
