package wire

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// toy is a tree of computed nodes: directories d0, d1, ... below the root (1) with files f0, f1, ... in each. Node
// numbers: 1+d for directories (d from 1), 1<<32 | d<<16 | f for files.
type toy struct {
	dirs, files int
	more        atomic.Int32 // directories that came later
	content     []byte       // of every file, handed out without a copy
	unreadable  []byte       // handed out instead while copied is not set, when not nil
	forgotten   func(node, n uint64)
}

func (t *toy) count() int { return t.dirs + int(t.more.Load()) }

const forever = uint64(1) << 30

func (t *toy) attr(node uint64, a *fuse.Attr) syscall.Errno {
	switch {
	case node >= 1 && node <= uint64(t.count())+1:
		a.Mode, a.Nlink = syscall.S_IFDIR|0o755, 2
	case node>>32 == 1:
		a.Mode, a.Nlink, a.Size = syscall.S_IFREG|0o644, 1, uint64(len(t.content))
	default:
		return syscall.ESTALE
	}
	a.Ino, a.Blksize = node, 4096
	return 0
}

func (t *toy) Lookup(parent uint64, name []byte, out *fuse.EntryOut) syscall.Errno {
	out.EntryValid = forever
	if parent == 0 || parent > uint64(t.count())+1 {
		return syscall.ESTALE
	}
	kind, count := byte('f'), t.files
	if parent == 1 {
		kind, count = 'd', t.count()
	}
	i := 0
	for _, c := range name[1:] {
		if c < '0' || c > '9' || i > count {
			return 0
		}
		i = i*10 + int(c-'0')
	}
	if name[0] != kind || len(name) < 2 || i >= count {
		return 0
	}
	if parent == 1 {
		out.NodeId = uint64(2 + i)
	} else {
		out.NodeId = 1<<32 | (parent-2)<<16 | uint64(i)
	}
	out.Generation, out.AttrValid = 1, forever
	return t.attr(out.NodeId, &out.Attr)
}

func (t *toy) GetAttr(node uint64, out *fuse.AttrOut) syscall.Errno {
	out.AttrValid = forever
	return t.attr(node, &out.Attr)
}

func (t *toy) Read(node uint64, buf []byte, off int64) ([]byte, syscall.Errno) {
	if node>>32 != 1 {
		return nil, syscall.ESTALE
	}
	data := t.content
	if t.unreadable != nil {
		data = t.unreadable
	}
	data = data[min(off, int64(len(data))):]
	data = data[:min(len(data), len(buf))]
	return data, 0
}

var dots = [2][]byte{[]byte("."), []byte("..")}

func (t *toy) ReadDir(node uint64, out *Dir) syscall.Errno {
	if node == 0 || node > uint64(t.count())+1 {
		return syscall.ESTALE
	}
	count := t.files
	if node == 1 {
		count = t.count()
	}
	var text [24]byte
	for off := out.Offset; off < uint64(count)+2; off++ {
		if off < 2 {
			if out.Plus && out.AddPlus(dots[off], node, syscall.S_IFDIR, off+1) == nil ||
				!out.Plus && !out.Add(dots[off], node, syscall.S_IFDIR, off+1) {
				break
			}
			continue
		}
		i := int(off - 2)
		id, name := uint64(2+i), strconv.AppendInt(append(text[:0], 'd'), int64(i), 10)
		if node != 1 {
			id, name[0] = 1<<32|(node-2)<<16|uint64(i), 'f'
		}
		var a fuse.Attr
		t.attr(id, &a)
		if !out.Plus {
			if !out.Add(name, id, a.Mode, off+1) {
				break
			}
			continue
		}
		e := out.AddPlus(name, id, a.Mode, off+1)
		if e == nil {
			break
		}
		e.NodeId, e.Generation, e.EntryValid, e.AttrValid, e.Attr = id, 1, forever, forever, a
	}
	return 0
}

func (t *toy) Readlink(node uint64) ([]byte, syscall.Errno) {
	if node == 666 {
		panic("toy: asked to")
	}
	return []byte("target"), 0
}

func (t *toy) GetXattr(node uint64, name []byte) ([]byte, syscall.Errno) {
	if string(name) == "user.toy" {
		return t.content[:min(5, len(t.content))], 0
	}
	return nil, syscall.ENODATA
}

func (t *toy) ListXattr(node uint64, buf []byte) ([]byte, syscall.Errno) {
	return append(buf, "user.toy\x00"...), 0
}

func (t *toy) Forget(node, n uint64) {
	if t.forgotten != nil {
		t.forgotten(node, n)
	}
}

// raw is the toy as go-fuse sees it, the second way to the same answers.
type raw struct {
	fuse.RawFileSystem
	t *toy
}

func newRaw(t *toy) raw { return raw{fuse.NewDefaultRawFileSystem(), t} }

func (r raw) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name == "" {
		return fuse.EINVAL
	}
	return fuse.Status(r.t.Lookup(h.NodeId, []byte(name), out))
}

func (r raw) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return fuse.Status(r.t.GetAttr(in.NodeId, out))
}

func (r raw) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	data, errno := r.t.Read(in.NodeId, buf, int64(in.Offset))
	return fuse.ReadResultData(data), fuse.Status(errno)
}

func (r raw) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(e fuse.DirEntry, _ fuse.EntryOut) bool { return out.AddDirEntry(e) })
}

func (r raw) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return r.list(in, func(e fuse.DirEntry, entry fuse.EntryOut) bool {
		p := out.AddDirLookupEntry(e)
		if p == nil {
			return false
		}
		*p = entry
		return true
	})
}

func (r raw) list(in *fuse.ReadIn, add func(fuse.DirEntry, fuse.EntryOut) bool) fuse.Status {
	d := NewDir(aligned(1<<20), in.Offset, true)
	if errno := r.t.ReadDir(in.NodeId, d); errno != 0 {
		return fuse.Status(errno)
	}
	entries, outs, err := fuse.ParseDirLookupEntries(d.Bytes())
	if err != nil {
		panic(err)
	}
	for i, e := range entries {
		if !add(e, outs[i]) {
			break
		}
	}
	return fuse.OK
}

func (r raw) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	v, errno := r.t.Readlink(h.NodeId)
	return v, fuse.Status(errno)
}

func (r raw) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize = 4096
	return fuse.OK
}

func (r raw) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

func newToyConn(t *toy) *Conn {
	return New(nil, t, newRaw(t), Options{Workers: 1, Panicked: func(op string, node uint64, why any) {
		fmt.Printf("panic (asked for): %s %d: %v\n", op, node, why)
	}})
}
