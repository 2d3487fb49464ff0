package overlay

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/shared"
)

// A Memory has what of the nodes of unions outlives the process: who goes on with a
// union, while the kernel knows its nodes by their IDs, opens it with the same Memory.
// What a node is in the upper directory is read again from there.
//
// A record of a node is made, changed and given up with single stores to memory, so
// that it makes sense whenever the process is killed. A place is written down before
// the node leads to it.
type Memory struct {
	nodes, short, long *shared.Table
	left               map[uint32][]uint32 // records of another process, by tree
}

// A record is what of a node outlives the process.
type record struct {
	key     uint64 // tree and ID
	ino     ID
	host    uint64
	lookups int64
	place   uint32 // number in one of the tables of places, or shared.None
	opens   int32  // open files
	layer   uint32 // with ino: what is below, if flagLower is set
	lowIno  uint32
	mode    uint32
	flags   uint32
	_       uint64
}

const (
	recordSize = int(unsafe.Sizeof(record{}))

	flagLower  = 1 << 0
	flagSticky = 1 << 1

	keyShift = NumberBits + 2
)

// A place in the tables: the key of the directory, the length of the name, the name.
const (
	placeHead  = 8 + 1
	shortPlace = 64
	longPlace  = 272
	isLong     = 1 << 31
)

// NewMemory makes an empty Memory.
func NewMemory() (*Memory, error) {
	nodes, err := shared.New("nodes", recordSize)
	if err != nil {
		return nil, err
	}
	short, err := shared.New("short places", shortPlace)
	if err != nil {
		return nil, err
	}
	long, err := shared.New("long places", longPlace)
	return &Memory{nodes: nodes, short: short, long: long}, err
}

// OpenMemory opens the files of the Memory of another process, as Files has given them.
func OpenMemory(files [3]*os.File) (*Memory, error) {
	m := &Memory{left: map[uint32][]uint32{}}
	var err error
	if m.nodes, err = shared.Open(files[0], recordSize); err != nil {
		return nil, err
	}
	if m.short, err = shared.Open(files[1], shortPlace); err != nil {
		return nil, err
	}
	if m.long, err = shared.Open(files[2], longPlace); err != nil {
		return nil, err
	}
	used := map[uint32]bool{}
	m.nodes.Each(func(i uint32, rec []byte) {
		r := (*record)(unsafe.Pointer(&rec[0]))
		tree := uint32(r.key >> keyShift)
		m.left[tree] = append(m.left[tree], i)
		used[r.place] = true
	})
	m.dropUnused(m.short, 0, used)
	m.dropUnused(m.long, isLong, used)
	return m, nil
}

// dropUnused gives up places that no node has: of a node that was being moved.
func (m *Memory) dropUnused(t *shared.Table, bit uint32, used map[uint32]bool) {
	var drop []uint32
	t.Each(func(i uint32, _ []byte) {
		if !used[i|bit] {
			drop = append(drop, i)
		}
	})
	for _, i := range drop {
		t.Free(i)
	}
}

// Files returns the files that the Memory lies in.
func (m *Memory) Files() [3]*os.File {
	return [3]*os.File{m.nodes.File(), m.short.File(), m.long.File()}
}

// A Keeper keeps descriptors of files that have no name any more for the next process:
// Put when one loses its name, Drop when nobody uses it any more.
type Keeper interface {
	Put(id ID, fd int)
	Drop(id ID)
}

func (f *FS) key(id ID) uint64 { return uint64(f.tree)<<keyShift | uint64(id) }

// remember makes the record of a node that is up. Preconditions: f.mu is held.
func (f *FS) remember(n *node) {
	if f.memory == nil || n.rec != nil || n == f.root {
		return
	}
	i, raw := f.memory.nodes.Alloc()
	r := (*record)(unsafe.Pointer(&raw[0]))
	r.ino, r.host, r.lookups, r.mode, r.place = n.ino, n.host, n.lookups, n.kind, shared.None
	if n.hasLower {
		r.layer, r.lowIno, r.flags = uint32(n.lower.Layer), uint32(n.lower.Ino), flagLower
	}
	if n.sticky {
		r.flags |= flagSticky
	}
	n.rec, n.recAt = r, i
	f.rememberPlace(n)
	r.key = f.key(n.id)
}

// rememberPlace writes down where a node is. Preconditions: f.mu is held.
func (f *FS) rememberPlace(n *node) {
	if n.rec == nil {
		return
	}
	was, now := n.rec.place, uint32(shared.None)
	if n.parent != nil {
		now = f.memory.place(f.key(n.parent.id), n.name)
	}
	n.rec.place = now
	f.memory.dropPlace(was)
}

// place makes the record of a place.
func (m *Memory) place(parent uint64, name string) uint32 {
	t, bit := m.short, uint32(0)
	if len(name) > shortPlace-placeHead {
		t, bit = m.long, isLong
	}
	i, raw := t.Alloc()
	if i == shared.None {
		return i
	}
	raw[8] = byte(copy(raw[placeHead:], name))
	*(*uint64)(unsafe.Pointer(&raw[0])) = parent
	return i | bit
}

func (m *Memory) dropPlace(i uint32) {
	switch {
	case i == shared.None:
	case i&isLong != 0:
		m.long.Free(i &^ isLong)
	default:
		m.short.Free(i)
	}
}

// placeAt reads the record of a place.
func (m *Memory) placeAt(i uint32) (parent uint64, name string) {
	t := m.short
	if i&isLong != 0 {
		t = m.long
	}
	raw := t.At(i &^ isLong)
	return *(*uint64)(unsafe.Pointer(&raw[0])), string(raw[placeHead : placeHead+int(raw[8])])
}

// counted writes down how often a node was looked up. Preconditions: f.mu is held.
func (n *node) counted(by int64) {
	n.lookups += by
	if n.rec != nil {
		n.rec.lookups = n.lookups
	}
}

// recordOpens writes down how many open files a node has. Preconditions: fds.mu is held.
func (n *node) recordOpens() {
	if n.rec != nil {
		n.rec.opens = int32(n.opens)
	}
}

// recordMode writes down the mode of what is gone.
func (n *node) recordMode(mode uint32) {
	if n.rec != nil {
		n.rec.mode = mode
	}
}

// forgetRecord gives the record of a node up. Preconditions: f.mu is held.
func (f *FS) forgetRecord(n *node) {
	if n.rec == nil {
		return
	}
	place := n.rec.place
	f.memory.nodes.Free(n.recAt)
	f.memory.dropPlace(place)
	n.rec = nil
}

// restore makes the nodes that another process has left. What they are on the host is
// read when they are first used.
func (f *FS) restore(left map[ID]*os.File) {
	if f.memory == nil {
		return
	}
	list := f.memory.left[f.tree]
	delete(f.memory.left, f.tree)
	var all []*node
	for _, i := range list {
		raw := f.memory.nodes.At(i)
		r := (*record)(unsafe.Pointer(&raw[0]))
		n := &node{
			id: ID(r.key & (1<<keyShift - 1)), ino: r.ino, kind: r.mode & unix.S_IFMT, rec: r, recAt: i, host: r.host,
			lookups: r.lookups, sticky: r.flags&flagSticky != 0, opens: int(r.opens), pins: int(r.opens),
		}
		f.restoreLower(n)
		n.up.Store(true)
		n.stale.Store(true)
		n.unsynced.Store(n.hasLower)
		f.nodes[n.id] = n
		if n.id.kind() == kindBorn {
			f.born = max(f.born, n.id)
		}
		all = append(all, n)
	}
	for _, n := range all {
		f.restorePlace(n)
		if file := left[n.id]; file != nil {
			f.restoreFd(n, file)
		}
		if n.parent == nil && !n.opened {
			n.gone = &Attr{ID: n.id, Ino: n.ino, Mode: n.rec.mode}
			n.stale.Store(false)
		}
		if n.parent != nil || n.opened {
			f.byHost[n.host] = n
		}
	}
}

func (f *FS) restoreLower(n *node) {
	if n.rec.flags&flagLower == 0 || f.below == nil {
		return
	}
	if n.isDir() {
		n.lower.Layer, n.lower.Ino, n.lower.Kind = int(n.rec.layer), inoOf(n.rec.lowIno), kindDirectory
		n.hasLower = true
		return
	}
	n.lower, n.hasLower = f.inode(int(n.rec.layer), n.rec.lowIno)
}

// restorePlace finds the directory of a node.
func (f *FS) restorePlace(n *node) {
	n.orphan = true
	if n.rec.place == shared.None {
		return
	}
	key, name := f.memory.placeAt(n.rec.place)
	p := f.nodes[ID(key&(1<<keyShift-1))]
	if p == nil {
		return
	}
	n.parent, n.name, n.orphan = p, name, false
	p.refs++
}

// restoreFd gives a node the descriptor of a file without a name.
func (f *FS) restoreFd(n *node, file *os.File) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	f.fds.put(n, fd)
	f.fds.keep(n)
	n.given = true
}

// reviveWait is how long a node is waited for whose place is not what was written down:
// the request that was moving it when the process before died comes again.
const (
	reviveWait  = 5 * 1000 * 1000 // nanoseconds
	reviveTries = 100
)

// revive reads what a node is that another process has left. Preconditions: neither its
// mu nor its place is held.
func (f *FS) revive(n *node) {
	if n == nil || !n.stale.Load() {
		return
	}
	for range reviveTries {
		if f.reviveNow(n) {
			return
		}
		t := unix.NsecToTimespec(reviveWait)
		_ = unix.Nanosleep(&t, nil)
	}
	// It has lost its name, and nobody said so.
	n.place.Lock()
	if n.gone == nil && !n.opened {
		n.gone = &Attr{ID: n.id, Ino: n.ino, Mode: n.kind}
		f.setPlace(n, nil, "")
	}
	n.place.Unlock()
	n.stale.Store(false)
}

func (f *FS) reviveNow(n *node) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.stale.Load() {
		return true
	}
	at, done, err := f.at(n)
	if err != nil {
		return false
	}
	defer done()
	e, err := f.format.Read(at)
	if err != nil || e.HostIno != n.host {
		return false
	}
	n.e = e
	n.metacopy.Store(e.Metacopy && n.hasLower)
	n.stale.Store(false)
	return true
}

// give has the Keeper keep the descriptor of a file that is about to lose its name.
func (f *FS) give(n *node, fd int) {
	if f.keeper == nil || n.kind != unix.S_IFREG || n.given {
		return
	}
	n.given = true
	f.keeper.Put(n.id, fd)
}

// take ends what give began.
func (f *FS) take(n *node) {
	if n.given {
		n.given = false
		f.keeper.Drop(n.id)
	}
}
