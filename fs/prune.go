package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/union"
)

// pruner tells the kernel to let go what it only caches of lingering layers and views. Mostly there is nothing: making
// it forget the name of a directory drops all below. But who lists a removed directory that he has open brings entries
// into the cache again, which then stay until the kernel needs memory.
//
// The server does not know which nodes the kernel has, so it names all. That costs the kernel a tenth of a microsecond
// for each that it does not have; it is done rarely, and less and less often.
type pruner struct {
	unable bool // the kernel does not understand
	count  int  // lingering things when wait was last set
	wait   int  // ticks until the next attempt
	pause  int  // ticks between the last two
}

// maxPause is the longest time between two attempts, in ticks.
const maxPause = 256

// pruneBatch is the number of nodes in one notification.
const pruneBatch = 4096

// lockedTick is called regularly. Preconditions: s.replace is held.
func (p *pruner) lockedTick(s *Server) {
	snap := s.fs.snap.Load()
	n := len(snap.goneViews) + len(snap.goneLayers)
	if n != p.count {
		p.count, p.wait, p.pause = n, 0, 1
	}
	if n == 0 || p.unable {
		return
	}
	if p.wait > 0 {
		p.wait--
		return
	}
	p.pause = min(2*p.pause, maxPause)
	p.wait = p.pause
	for _, l := range snap.goneLayers {
		p.layer(s, l)
	}
	for _, v := range snap.goneViews {
		p.view(s, v)
	}
}

// layer prunes the nodes of a layer: files before the directories that hold them, and those before their parents.
func (p *pruner) layer(s *Server, l *layer) {
	if l.lookups.Load() <= 0 {
		return
	}
	b := &pruneList{p: p, s: s}
	if o := l.open.Load(); o != nil {
		t := o.Tree()
		b.down(kindFile, l.slot, t.Dirs(), t.Inodes())
		if t.Stats().Whiteouts > 0 {
			b.down(kindWhiteout, l.slot, 0, t.Names())
		}
		b.down(kindDiffDir, l.slot, 0, t.Dirs())
	}
	b.down(kindLayerObject, l.slot, layerTop, layerInfo+1)
	b.send()
}

// view prunes the nodes of a view.
func (p *pruner) view(s *Server, v *view) {
	if v.lookups.Load() <= 0 {
		return
	}
	b := &pruneList{p: p, s: s}
	if st := v.image.stack.Load(); st != nil {
		b.down(kindViewObject, v.slot, viewLinkGroup, viewLinkGroup+uint32(st.groups()))
		b.down(kindViewDir, v.slot, 0, uint32(st.DirID(union.Node{Layer: st.Layers() - 1}))+st.Layer(st.Layers()-1).Dirs())
	}
	b.add(nodeID(kindViewDir, v.slot, rootDir))
	b.down(kindViewObject, v.slot, viewSymlink, viewSymlink+uint32(len(v.image.layers)))
	if shownOCI(v) != nil {
		b.down(kindViewObject, v.slot, ociBlob, ociLayer+uint32(len(v.image.layers)))
	}
	b.down(kindViewObject, v.slot, ociTop, ociIndex+1)
	b.down(kindViewObject, v.slot, viewTop, viewDocker+1)
	b.send()
}

// groups returns the number of groups of hard links that begin in a lower layer.
func (st *stack) groups() int {
	if !st.linked {
		return 0
	}
	return st.Groups()
}

// pruneList collects nodes for notifications.
type pruneList struct {
	p     *pruner
	s     *Server
	nodes []uint64
}

// down adds the nodes with numbers from end-1 down to first.
func (b *pruneList) down(k kind, slot, first, end uint32) {
	for n := end; n > first && !b.p.unable; n-- {
		b.add(nodeID(k, slot, n-1))
	}
}

func (b *pruneList) add(node uint64) {
	b.nodes = append(b.nodes, node)
	if len(b.nodes) == pruneBatch {
		b.send()
	}
}

func (b *pruneList) send() {
	if b.p.unable {
		return
	}
	err := b.s.conn.NotifyPrune(b.nodes)
	b.nodes = b.nodes[:0]
	if errors.Is(err, unix.EINVAL) {
		b.p.unable = true // removed layers stay open until the kernel needs memory
		return
	}
	b.s.say(err)
}
