package fs

import (
	"syscall"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
)

// The offset of an entry is its place: 1 for ".", 2 for "..", then 3 and so on. So a directory can be read on from
// any offset, also by another process.
const dotCount = 2

var dot, dotdot = []byte("."), []byte("..")

// dots adds "." and ".." when they are still to come, and moves out.Offset behind them; false means that there is no
// room. The kernel wants no attributes for them.
func dots(out *wire.Dir, self, parent uint64) bool {
	if out.Offset == 0 {
		if !addName(out, dot, self, syscall.S_IFDIR, 1) {
			return false
		}
		out.Offset = 1
	}
	if out.Offset == 1 {
		if !addName(out, dotdot, parent, syscall.S_IFDIR, 2) {
			return false
		}
		out.Offset = 2
	}
	return true
}

// addName adds an entry without attributes.
func addName(out *wire.Dir, name []byte, node uint64, mode uint32, offset uint64) bool {
	if out.Plus {
		return out.AddPlus(name, node, mode, offset) != nil
	}
	return out.Add(name, node, mode, offset)
}

// list lists a directory that is not part of an image.
func (f *fileSystem) list(s *snapshot, d *dir, out *wire.Dir) {
	if !dots(out, f.shown(d.node), f.shown(d.parent)) {
		return
	}
	for i := out.Offset - dotCount; i < uint64(len(d.entries)); i++ {
		e := &d.entries[i]
		if !f.addEntry(s, e, out, i+dotCount+1) {
			return
		}
	}
}

// addEntry adds one entry of a dir; false means that there is no more room.
func (f *fileSystem) addEntry(s *snapshot, e *entry, out *wire.Dir, offset uint64) bool {
	if !out.Plus {
		return out.Add([]byte(e.name), e.node, e.mode, offset)
	}
	p := out.AddPlus([]byte(e.name), e.node, e.mode, offset)
	if p == nil {
		return false
	}
	if k, _, _ := splitID(e.node); k == kindViewDir || k == kindDiffDir || e.node == statusID || k == kindRepo && e.mode == syscall.S_IFREG {
		// Without attributes: only a look-up opens layers, renders status.json and makes files of podman/.
		return true
	}
	if f.attr(s, e.node, &p.Attr) == 0 {
		f.found(p, e.node, s.counterOf(e.node))
	}
	return true
}

// listView lists a directory of a view.
func (f *fileSystem) listView(v *view, number uint32, out *wire.Dir) syscall.Errno {
	st, err := f.tree(v.image)
	if err != nil {
		return f.errno(err)
	}
	id := st.dirID(number)
	l, err := st.Open(id)
	if err != nil {
		return f.errno(err)
	}
	lean := f.walker.lean(out, l.Len())
	node := nodeID(kindViewDir, v.slot, number)
	if out.Offset < dotCount {
		parent := nodeID(kindViewObject, v.slot, viewTop)
		if id != st.root {
			up, err := st.Parent(id)
			if err != nil {
				return f.errno(err)
			}
			parent = v.dirNode(st, up)
		}
		self := f.shown(node)
		if self == rootID {
			parent = f.root
		}
		if !dots(out, self, f.shown(parent)) {
			return 0
		}
	}
	if out.Plus && !lean && out.Offset == dotCount {
		f.following.listed(v, st, number, l)
	}
	for i := out.Offset - dotCount; i < uint64(l.Len()); i++ {
		more, err := f.addFile(v, st, l, int(i), lean, out)
		if err != nil {
			return f.listError(out, err)
		}
		if !more {
			break
		}
	}
	return 0
}

// listError ends a listing. What was added before the error is counted as known to the kernel, so it must get there:
// the error comes with the next request, which begins at the entry that caused it.
func (f *fileSystem) listError(out *wire.Dir, err error) syscall.Errno {
	if len(out.Bytes()) > 0 {
		return 0
	}
	return f.errno(err)
}

// addFile adds name i of a listing, when lean only directories with attributes; false
// means that there is no more room.
func (f *fileSystem) addFile(v *view, st *stack, l *union.Listing, i int, lean bool, out *wire.Dir) (bool, error) {
	offset := uint64(i) + dotCount + 1
	if !out.Plus || lean {
		name, n, err := l.At(i)
		if err != nil {
			return false, err
		}
		node, _ := v.node(st, n)
		if !out.Plus || n.Kind != tree.KindDirectory {
			return addName(out, name, node, typeMode[n.Kind], offset), nil
		}
	}
	name, n, a, err := l.Attr(i)
	if err != nil {
		return false, err
	}
	node, count := v.node(st, n)
	p := out.AddPlus(name, node, typeMode[n.Kind], offset)
	if p == nil {
		return false, nil
	}
	f.fileAttr(&p.Attr, node, &a)
	f.found(p, node, count)
	return true, nil
}
