package fs

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/overlay"
)

// trees answers the requests of the connection for containers: their directories, and the writable trees in them.
//
// Locks: trees.mu is held while the list of containers is replaced, never while a notification is sent: that waits for
// requests in the same directory. container.mu is held while a container is opened; under it is nothing of ours.
type trees struct {
	f         *fileSystem // for the store, owners and the log
	log       *slog.Logger
	dir       string // the mount that others are told of
	conn      *wire.Conn
	single    *container // the one whose tree is the root, or nil
	passed    *treeBacking
	unchecked bool // the kernel lets the owner of the mount do everything, see Containers.attach

	mu       sync.Mutex
	list     atomic.Pointer[treeList]
	slots    map[string]uint32 // by ID of the container
	lastSlot uint32
	own      map[string]int // names that a request is changing, which knows itself what to tell the kernel

	dirs   treeDirs
	memory treeMemory
}

// A treeList is a picture of the containers.
type treeList struct {
	generation uint64
	time       time.Time
	entries    []treeName // in the order of names
	bySlot     map[uint32]*container
}

// treeName is an entry of the directory of containers.
type treeName struct {
	name  string
	c     *container
	first bool // the name under which the directory is; the others are links to it
}

// find returns the entry of a name.
func (l *treeList) find(name string) (treeName, bool) {
	i, ok := slices.BinarySearchFunc(l.entries, name, func(e treeName, name string) int { return cmp.Compare(e.name, name) })
	if !ok {
		return treeName{}, false
	}
	return l.entries[i], true
}

// node returns the node of an entry.
func (e *treeName) node() uint64 {
	if e.first {
		return objectNode(e.c.slot, treeTop)
	}
	return objectNode(e.c.slot, treeAlias)
}

func (e *treeName) mode() uint32 {
	if e.first {
		return syscall.S_IFDIR
	}
	return syscall.S_IFLNK
}

// A container is one that the mount knows of.
type container struct {
	slot uint32 // in node IDs
	ino  uint32 // in inode numbers
	id   string

	record atomic.Pointer[layers.CatalogueContainer]
	owners atomic.Pointer[owners] // its own map of IDs; nil: that of the mount, or the tree has not been opened
	stack  []layers.DiffID
	name   atomic.Pointer[string] // the first

	open     atomic.Pointer[openTree]
	mu       sync.Mutex // guards the making of open
	gone     atomic.Bool
	lookups  *counter     // what the kernel remembers of the tree
	handles  *counter     // open files and directories
	used     atomic.Int64 // when a request came last, in seconds since 1970
	readOnly atomic.Pointer[string]
}

// openTree is the tree of a container that is in use.
type openTree struct {
	*overlay.FS
	lock   *layers.ContainerLock // nil: somebody else writes
	layers []*layers.Layer
}

// newList makes the picture that a catalogue gives. Preconditions: t.mu is held.
func (t *trees) newList(c *layers.Catalogue) *treeList {
	old := t.list.Load()
	l := &treeList{generation: c.Generation, bySlot: map[uint32]*container{}, time: old.time}
	for i := range c.Containers {
		rec := &c.Containers[i]
		x := t.container(old, c, rec)
		if x == nil {
			continue
		}
		l.bySlot[x.slot] = x
		for k, name := range rec.Names {
			if validPath(name) {
				l.entries = append(l.entries, treeName{name, x, k == 0})
			}
		}
	}
	slices.SortFunc(l.entries, func(a, b treeName) int { return cmp.Compare(a.name, b.name) })
	// What is gone lingers until the kernel has forgotten it.
	for slot, x := range old.bySlot {
		if l.bySlot[slot] == nil {
			x.gone.Store(true)
			l.bySlot[slot] = x
		}
	}
	if !slices.Equal(old.entries, l.entries) {
		l.time = time.Now()
	}
	return l
}

// container returns what the mount keeps of a container; nil when there are too many.
func (t *trees) container(old *treeList, c *layers.Catalogue, rec *layers.CatalogueContainer) *container {
	slot, ok := t.slots[rec.ID]
	if !ok {
		if t.lastSlot == treeSlotMask {
			t.f.report("more than 65535 containers were seen by this mount; mount again to see the newest")
			return nil
		}
		t.lastSlot++
		slot = t.lastSlot
		t.slots[rec.ID] = slot
		t.keepSlot(rec.ID, slot)
	}
	x := old.bySlot[slot]
	if x == nil {
		x = &container{slot: slot, ino: rec.Slot, id: rec.ID}
		x.lookups, x.handles = t.memory.counters.at(lookupsKey(slot)), t.memory.counters.at(handlesKey(slot))
		for _, i := range rec.Layers {
			x.stack = append(x.stack, c.Layers[i].DiffID)
		}
	}
	x.record.Store(rec)
	first := rec.ID
	if len(rec.Names) > 0 {
		first = rec.Names[0]
	}
	x.name.Store(&first)
	return x
}
