package fs

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
)

// Programs that copy, pack or search a tree list a directory and then read its files one after another. Each small file
// is a round trip to whoever reads it. So when the first file of a directory that was listed with attributes is read, the
// kernel is given the content of the next ones without having asked: a few, and when it is where those end, more. That
// happens beside the requests, at about a third of the cost of a request. What the kernel has forgotten by then it does
// not take.
type following struct {
	dirs [followDirs]atomic.Pointer[listedDir] // in the place that the awaited node has
}

const (
	followDirs  = 4096 // that are remembered; of two in one place the later
	followFirst = 16   // files
	followMost  = 128
	followSize  = 64 << 10 // of the largest file
	followTotal = 1 << 20  // bytes at a time
	followFails = 4        // files that the kernel did not take after which the others are not tried
)

// listedDir is a directory that was listed. It never changes.
type listedDir struct {
	view  *view
	dir   uint32 // number of the directory
	await uint64 // the node that must be read
	at    int    // its position
	n     int    // how many files to give then
}

func (w *following) place(node uint64) *atomic.Pointer[listedDir] {
	return &w.dirs[(node*0x9e3779b97f4a7c15)>>32%followDirs]
}

// follows reports whether name i of a listing is a file that can be given, and returns its node.
func follows(v *view, st *stack, l *union.Listing, i int) (n union.Node, size int64, node uint64, ok bool) {
	_, n, a, err := l.Attr(i)
	if err != nil || a.Kind != tree.KindRegular || a.Size == 0 || a.Size > followSize {
		return n, 0, 0, false
	}
	node, _ = v.node(st, n)
	k, _, _ := splitID(node)
	return n, a.Size, node, k == kindFile
}

// await remembers to give n files when the first one from position at on is read.
func (w *following) await(v *view, st *stack, number uint32, l *union.Listing, at, n int) {
	for ; at < l.Len()-1; at++ { // the last one has none behind it
		if _, _, node, ok := follows(v, st, l, at); ok {
			w.place(node).Store(&listedDir{v, number, node, at, n})
			return
		}
	}
}

// listed is told of each directory that is listed with attributes.
func (w *following) listed(v *view, st *stack, number uint32, l *union.Listing) {
	w.await(v, st, number, l, 0, followFirst)
}

// reached is told of each file that is read from its begin.
func (w *following) reached(f *fileSystem, s *snapshot, node uint64) {
	at := w.place(node)
	d := at.Load()
	if d == nil || d.await != node || f.conn == nil || s.views[d.view.slot] != d.view || !at.CompareAndSwap(d, nil) {
		return
	}
	if !f.conn.Beside(func() { w.give(f, d) }) {
		at.CompareAndSwap(nil, d)
	}
}

// give gives the kernel the files that follow in a directory.
func (w *following) give(f *fileSystem, d *listedDir) {
	st, err := f.tree(d.view.image)
	if err != nil {
		return // whoever reads there is told
	}
	l, err := st.Open(st.dirID(d.dir))
	if err != nil {
		return
	}
	i, given, fails, total := d.at+1, 0, 0, int64(0)
	for ; i < l.Len() && given < d.n && total < followTotal; i++ {
		n, size, node, ok := follows(d.view, st, l, i)
		if !ok {
			continue
		}
		o, err := f.use(d.view.image.layers[n.Layer])
		if err != nil {
			return
		}
		data, ok := o.Bytes(n.Ino, 0, size)
		if !ok || int64(len(data)) != size {
			continue // not in a pack
		}
		switch known, err := f.conn.Store(node, data); {
		case err == unix.EFAULT:
			continue // it is damaged, which whoever reads it is told
		case err != nil:
			return
		case known:
			given, fails, total = given+1, 0, total+size
		default:
			if fails++; fails == followFails {
				return
			}
		}
	}
	w.await(d.view, st, d.dir, l, i, min(2*d.n, followMost))
}
