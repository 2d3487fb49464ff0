package fs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/internal/shared"
	"github.com/layerfs/layerfs/layers/overlay"
)

// What the next process has to know of the connection for containers, besides what every one has (see handover.go):
//
//	trees            the connection, what is mounted
//	trees.counters   a table: look-ups and handles of containers, how files are open
//	trees.dirs       a table: the open directories
//	trees.nodes, trees.short, trees.long   the nodes, see overlay.Memory
//	trees.slot/ID    the slot of a container in node IDs
//	trees.fd/SLOT/ID a file without a name
//	trees.made/FH    the content of a file that was made when it was opened

const (
	keptTrees         = "trees"
	keptTreesCounters = "trees.counters"
	keptTreesDirs     = "trees.dirs"
	keptTreesSlot     = "trees.slot/"
	keptTreesFd       = "trees.fd/"
	keptTreesMade     = "trees.made/"
)

var keptTreesNodes = [3]string{"trees.nodes", "trees.short", "trees.long"}

// mountedTrees is what is kept with the connection.
type mountedTrees struct {
	Init      []byte // the kernel's first message
	Dir       string
	Container string // ID of the one that is mounted alone
	Minor     uint32
	Unchecked bool
}

// memory is what of the open files and directories outlives the process.
type treeMemory struct {
	counters counters
	nodes    *overlay.Memory // nil: there is no shared memory
	dirs     *shared.Table
	keeper   Keeper
	left     map[string]Kept
	released released
}

// open makes the tables. Without them everything ends with this process.
func (m *treeMemory) open() error {
	err := m.counters.open()
	if err == nil {
		m.nodes, err = overlay.NewMemory()
	}
	if err == nil {
		m.dirs, err = shared.New(keptTreesDirs, dirRecordSize)
	}
	m.released.init(&m.counters)
	return err
}

// resume opens the tables that another process has left.
func (m *treeMemory) resume() error {
	var files [3]*os.File
	for i, name := range keptTreesNodes {
		files[i] = m.left[name].File
	}
	for _, f := range append(files[:], m.left[keptTreesCounters].File, m.left[keptTreesDirs].File, m.left[keptTrees].File) {
		if f == nil {
			return fmt.Errorf("handover: %w: not everything of the containers was kept", ErrNoHandover)
		}
	}
	table, err := shared.Open(m.left[keptTreesCounters].File, counterSize)
	if err != nil {
		return err
	}
	m.counters.take(table)
	if m.nodes, err = overlay.OpenMemory(files); err != nil {
		return err
	}
	m.dirs, err = shared.Open(m.left[keptTreesDirs].File, dirRecordSize)
	m.released.init(&m.counters)
	return err
}

// Keys of counters: the ring of released handles, then two of each container, and files by their nodes.
const (
	ringSize      = 64
	ringKey       = 1
	containerKeys = 1 << 20
	openFiles     = 1 << 63 // + the node
)

func lookupsKey(slot uint32) uint64 { return containerKeys + 2*uint64(slot) }
func handlesKey(slot uint32) uint64 { return containerKeys + 2*uint64(slot) + 1 }

// released remembers which requests have taken something back that must not be taken back twice, should they come
// again to another process. More than there are workers can be under way at once.
type released struct {
	mu   sync.Mutex
	ring [ringSize]*counter
	next int
	left map[int64]bool // of the process before
}

func (r *released) init(c *counters) {
	r.left = map[int64]bool{}
	for i := range r.ring {
		r.ring[i] = c.at(ringKey + uint64(i))
		if unique := r.ring[i].Load(); unique != 0 {
			r.left[unique] = true
		}
	}
}

// resent is the bit by which the kernel marks requests that come again.
const resent = 1 << 63

func isResent(unique uint64) bool { return unique&resent != 0 }

// first reports whether a request has not done its work already, and writes down that it is about to.
func (r *released) first(unique uint64) bool {
	id := int64(unique &^ resent)
	r.mu.Lock()
	defer r.mu.Unlock()
	if isResent(unique) && r.left[id] {
		return false
	}
	r.ring[r.next%ringSize].Store(id)
	r.next++
	return true
}

// keep gives away what another process needs to go on with the connection.
func (s *Containers) keep() error {
	m := &s.t.memory
	if m.nodes == nil || m.dirs == nil {
		return fmt.Errorf("%w: there is no shared memory", ErrNoHandover)
	}
	if !s.t.conn.Resendable() {
		return fmt.Errorf("%w: the kernel is older than Linux 6.9", ErrNoHandover)
	}
	kept := mountedTrees{Init: s.t.conn.InitMessage(), Dir: s.dir, Minor: s.minor, Unchecked: s.t.unchecked}
	if s.t.single != nil {
		kept.Container = s.t.single.id
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	for i, f := range m.nodes.Files() {
		m.keeper.Put(keptTreesNodes[i], nil, int(f.Fd()))
	}
	m.keeper.Put(keptTreesCounters, nil, int(m.counters.table.File().Fd()))
	m.keeper.Put(keptTreesDirs, nil, int(m.dirs.File().Fd()))
	m.keeper.Put(keptTrees, text, s.t.conn.Fd())
	return nil
}

// Handover gives the Keeper of the options what another process needs to go on with the mount; see Server.Handover.
func (s *Containers) Handover() error { return s.keep() }

// dropKept takes back what was given away, for a mount that is over.
func (s *Containers) dropKept() {
	for _, name := range append([]string{keptTrees, keptTreesCounters, keptTreesDirs}, keptTreesNodes[:]...) {
		s.t.memory.keeper.Drop(name)
	}
}

// leftSlots takes over the slots of containers.
func (t *trees) leftSlots() {
	for name, kept := range t.memory.left {
		id, ok := strings.CutPrefix(name, keptTreesSlot)
		slot, err := strconv.ParseUint(string(kept.Data), 10, 16)
		if ok && err == nil {
			t.slots[id] = uint32(slot)
			t.lastSlot = max(t.lastSlot, uint32(slot))
		}
	}
}

// keepSlot gives away the slot of a container before anybody can know of it.
func (t *trees) keepSlot(id string, slot uint32) {
	t.memory.keeper.Put(keptTreesSlot+id, []byte(strconv.FormatUint(uint64(slot), 10)), -1)
}

// resume goes on with a connection that another process has served.
func (s *Containers) resume(set *settings) error {
	var m mountedTrees
	if err := json.Unmarshal(set.left[keptTrees].Data, &m); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	if err := s.t.memory.resume(); err != nil {
		return err
	}
	s.t.leftSlots()
	s.dir, s.minor = m.Dir, m.Minor
	s.t.unchecked = m.Unchecked
	s.connect(set.left[keptTrees].File, set)
	if err := s.prepare(m.Container); err != nil {
		return err
	}
	s.t.leftDirs()
	// Nobody else may write into what was in use.
	for _, c := range s.t.list.Load().bySlot {
		if set.left["container/"+c.id].File == nil {
			continue
		}
		if _, err := s.t.use(c); err != nil {
			s.t.log.Error("a container is not shown any more", "container", *c.name.Load(), "error", err)
		}
	}
	return s.t.conn.Resume(m.Init)
}

// A fdKeeper keeps the files without names of one container.
type fdKeeper struct {
	keeper Keeper
	prefix string
}

func (t *trees) fdKeeper(c *container) fdKeeper {
	return fdKeeper{t.memory.keeper, fmt.Sprintf("%s%d/", keptTreesFd, c.slot)}
}

// Put implements overlay.Keeper.
func (k fdKeeper) Put(id overlay.ID, fd int) { k.keeper.Put(k.name(id), nil, fd) }

// Drop implements overlay.Keeper.
func (k fdKeeper) Drop(id overlay.ID) { k.keeper.Drop(k.name(id)) }

func (k fdKeeper) name(id overlay.ID) string { return k.prefix + strconv.FormatUint(uint64(id), 10) }

// leftFiles returns the files without names of a container that another process has left.
func (k fdKeeper) leftFiles(left map[string]Kept) map[overlay.ID]*os.File {
	out := map[overlay.ID]*os.File{}
	for name, kept := range left {
		text, ok := strings.CutPrefix(name, k.prefix)
		id, err := strconv.ParseUint(text, 10, 64)
		if ok && err == nil && kept.File != nil {
			out[overlay.ID(id)] = kept.File
		}
	}
	return out
}

// dirRecord is what of an open directory outlives the process.
type dirRecord struct {
	fh    uint64
	node  uint64
	marks [2]overlay.Mark
	slot  uint32
	made  uint32 // 1: not a directory, but a file that was made when it was opened
	_     uint64
}

const dirRecordSize = int(unsafe.Sizeof(dirRecord{}))

// remember makes the record of an open directory.
func (d *treeDirs) remember(h *treeDir, fh, node uint64) {
	if d.table == nil {
		return
	}
	i, raw := d.table.Alloc()
	r := (*dirRecord)(unsafe.Pointer(&raw[0]))
	r.node = node
	if h.c != nil {
		r.slot = h.c.slot
	}
	if h.file != nil {
		r.made = 1
	}
	h.rec, h.recAt = r, i
	r.fh = fh
}

// mark writes down how far a directory was read. Two readers of one open directory do not matter: the kernel lets in
// one at a time.
func (h *treeDir) mark() {
	if h.rec != nil {
		h.rec.marks = h.dir.Marks()
	}
}

// leftDirs takes over what another process had open.
func (t *trees) leftDirs() {
	t.dirs.table = t.memory.dirs
	t.dirs.open = map[uint64]*treeDir{}
	t.memory.dirs.Each(func(i uint32, raw []byte) {
		r := (*dirRecord)(unsafe.Pointer(&raw[0]))
		t.dirs.open[r.fh] = &treeDir{rec: r, recAt: i, left: true}
		t.dirs.last = max(t.dirs.last, r.fh-fhMade)
	})
}

// reopen makes a directory usable that another process had opened.
func (t *trees) reopen(h *treeDir) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.left {
		return nil
	}
	r := h.rec
	if r.made != 0 {
		name := keptTreesMade + strconv.FormatUint(r.fh, 10)
		h.file = t.memory.left[name].File
		if h.file == nil {
			return unix.EIO
		}
	} else if kind, _, _ := splitTree(t.meant(r.node)); !isTree(kind) {
		entries, errno := t.ownEntries(r.node)
		if errno != 0 {
			return errno
		}
		h.entries = entries
	} else {
		c, o, id, errno := t.tree(r.node)
		if errno != 0 {
			return errno
		}
		d, err := o.OpenDir(id)
		if err != nil {
			return err
		}
		d.Resume(r.marks)
		h.c, h.dir = c, d
	}
	if h.c == nil {
		h.c = t.list.Load().bySlot[r.slot]
	}
	h.left = false
	return nil
}

// keepMade gives away the content of a file that was made when it was opened.
func (t *trees) keepMade(h *treeDir, fh uint64) {
	t.memory.keeper.Put(keptTreesMade+strconv.FormatUint(fh, 10), nil, int(h.file.Fd()))
}

// unnamedText returns a file in memory with a text.
func unnamedText(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("text", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "text")
	if _, err := f.Write(text); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// backingUse packs how a file is open into one word, so that it is written down at once.
func (u *treeUse) pack() int64 { return int64(u.id)<<40 | int64(u.passed)<<20 | int64(u.others) }

func unpackUse(v int64) treeUse {
	const count = 1<<20 - 1
	return treeUse{id: int32(v >> 40), passed: int(v >> 20 & count), others: int(v & count)}
}

// newTreeBacking takes over how files are open.
func newTreeBacking(conn *wire.Conn, c *counters) *treeBacking {
	b := &treeBacking{conn: conn, files: map[uint64]*treeUse{}, counters: c}
	c.each(func(key uint64, n *counter) {
		if key&openFiles != 0 {
			u := unpackUse(n.Load())
			b.files[key&^openFiles] = &u
		}
	})
	return b
}

// note writes down how a file is open. Preconditions: b.mu is held.
func (b *treeBacking) note(node uint64, u *treeUse) {
	if u.others <= 0 && u.passed <= 0 {
		delete(b.files, node)
		b.counters.drop(openFiles | node)
		return
	}
	b.counters.at(openFiles | node).Store(u.pack())
}
