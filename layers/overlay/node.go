package overlay

import (
	"container/list"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

const (
	kindDirectory = tree.KindDirectory
	kindSymlink   = tree.KindSymlink
)

func inoOf(n uint32) tree.Ino { return tree.Ino(n) }

// A node is something that is up, or on its way there.
type node struct {
	id, ino  ID
	kind     uint32     // the S_IFMT bits, as the container sees it
	lower    union.Node // a directory: what it is merged with; else the file that it was
	hasLower bool

	up       atomic.Bool
	metacopy atomic.Bool // the content is still lower's
	moved    atomic.Bool // into another directory, and not opened since
	unsynced atomic.Bool // it was copied up, and nobody has made its place durable

	mu sync.RWMutex
	e  upper.Entry // what is known without asking the host: marks, and the override. Guarded by mu
	// defaultACL of a directory: 0 not known, 1 none, 2 there is one. Guarded by mu.
	defaultACL uint8

	place  sync.RWMutex
	parent *node // nil: the root, or without a name. Guarded by place
	name   string
	gone   *Attr // of what has neither a name nor a descriptor. Guarded by place

	// Guarded by FS.mu.
	lookups int64  // by the kernel
	refs    int    // nodes whose parent this is
	sticky  bool   // lookups is not known: stays until its last name is gone
	orphan  bool   // has no name any more
	host    uint64 // inode number on the host

	// What outlives the process, see Memory.
	rec   *record // nil: nothing. Guarded by FS.mu, its opens by fds.mu
	recAt uint32
	stale atomic.Bool // e is not known yet, see revive
	given bool        // a Keeper has the descriptor. Guarded by place

	// Guarded by fds.mu.
	fd     int
	opened bool
	pins   int // users of fd
	opens  int // those of them that are open files
	kept   bool
	elem   *list.Element
}

func (n *node) isDir() bool { return n.kind == unix.S_IFDIR }

// get returns the node with an ID; nil when it has none, because it is below.
func (f *FS) get(id ID) *node {
	f.mu.Lock()
	n := f.nodes[id]
	f.mu.Unlock()
	f.revive(n)
	return n
}

// node returns the node with an ID, and makes one for what is below. It fails with
// ESTALE for an ID that leads nowhere.
func (f *FS) node(id ID) (*node, error) {
	if n := f.get(id); n != nil {
		return n, nil
	}
	l, ok := f.lowerNode(id)
	if !ok {
		return nil, unix.ESTALE
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.nodes[id]; n != nil {
		return n, nil
	}
	n := &node{id: id, ino: id, kind: modeOf(l.Kind), lower: l, hasLower: true, sticky: true}
	f.nodes[id] = n
	return n, nil
}

// register puts a node into the tables under the place where it is, unless there is
// one for the same file by now, which is then returned. It is counted as looked up.
func (f *FS) register(n, parent *node, name string, lookups int64) *node {
	got := f.enter(n, parent, name, lookups)
	f.revive(got)
	return got
}

func (f *FS) enter(n, parent *node, name string, lookups int64) *node {
	f.mu.Lock()
	defer f.mu.Unlock()
	if was := f.byHost[n.host]; was != nil {
		was.counted(lookups)
		return was
	}
	if n.id == 0 || f.nodes[n.id] != nil && f.nodes[n.id] != n {
		f.born++
		n.id = f.born
		if n.ino == 0 {
			n.ino = kindBorn | ID(n.host)&numberMask
		}
	}
	n.lookups += lookups
	n.parent, n.name = parent, name
	if parent != nil {
		parent.refs++
	}
	f.nodes[n.id], f.byHost[n.host] = n, n
	f.remember(n)
	return n
}

// known returns the node of a file of the host, counted as looked up.
func (f *FS) known(host uint64, lookups int64) *node {
	f.mu.Lock()
	n := f.byHost[host]
	if n != nil {
		n.counted(lookups)
	}
	f.mu.Unlock()
	f.revive(n)
	return n
}

// Forget takes count look-ups of a node back.
func (f *FS) Forget(id ID, count uint64) {
	f.mu.Lock()
	n := f.nodes[id]
	if n == nil || n == f.root {
		f.mu.Unlock()
		return
	}
	n.counted(-int64(count))
	var closing []*node
	for n != nil && n != f.root && n.refs == 0 && (n.orphan || n.lookups <= 0 && !n.sticky) && !f.fds.busy(n) {
		delete(f.nodes, n.id)
		if f.byHost[n.host] == n {
			delete(f.byHost, n.host)
		}
		f.forgetRecord(n)
		closing = append(closing, n)
		if n.parent == nil {
			break
		}
		n.parent.refs--
		n = n.parent
	}
	f.mu.Unlock()
	for _, n := range closing {
		f.take(n)
		f.fds.drop(n)
	}
}

// setPlace says where a node is from now on. Preconditions: n.place is held.
func (f *FS) setPlace(n, parent *node, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.parent != nil {
		n.parent.refs--
	}
	if parent != nil {
		parent.refs++
	}
	if n.isDir() && n.parent != nil && n.parent != parent {
		n.moved.Store(true)
	}
	n.parent, n.name, n.orphan = parent, name, parent == nil
	f.rememberPlace(n)
}

// setHost says which file of the host a node is.
func (f *FS) setHost(n *node, host uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n.host = host
	if n.rec != nil {
		n.rec.host = host
	}
	f.byHost[host] = n
}

// at returns the place of a node on the host, and what must be called when it was
// used: until then the node stays there.
func (f *FS) at(n *node) (upper.At, func(), error) {
	n.place.RLock()
	if n.parent == nil {
		defer n.place.RUnlock()
		fd, ok := f.fds.pin(n)
		if !ok {
			return upper.At{}, nil, unix.ENOENT
		}
		return upper.At{Dir: fd}, func() { f.fds.unpin(n) }, nil
	}
	p := n.parent
	fd, err := f.pin(p)
	if err != nil {
		n.place.RUnlock()
		return upper.At{}, nil, err
	}
	return upper.At{Dir: fd, Name: n.name}, func() { f.fds.unpin(p); n.place.RUnlock() }, nil
}

// pin returns a descriptor of a node: O_PATH for what is no regular file. It stays
// open until it is unpinned. Preconditions: n is up; its place is not held for writing.
func (f *FS) pin(n *node) (int, error) {
	if fd, ok := f.fds.pin(n); ok {
		return fd, nil
	}
	n.place.RLock()
	defer n.place.RUnlock()
	if n.parent == nil {
		return -1, unix.ENOENT
	}
	p, err := f.pin(n.parent)
	if err != nil {
		return -1, err
	}
	defer f.fds.unpin(n.parent)
	return f.pinAt(n, upper.At{Dir: p, Name: n.name})
}

// pinAt is like pin for a caller that holds the place.
func (f *FS) pinAt(n *node, at upper.At) (int, error) {
	if fd, ok := f.fds.pin(n); ok {
		return fd, nil
	}
	flags := unix.O_PATH
	switch {
	case n.isDir():
		flags |= unix.O_DIRECTORY
	case n.kind == unix.S_IFREG && f.readOnly:
		flags = unix.O_RDONLY | unix.O_NONBLOCK
	case n.kind == unix.S_IFREG:
		flags = unix.O_RDWR | unix.O_NONBLOCK
	}
	fd, err := at.Open(flags)
	if flags&unix.O_RDWR != 0 && (err == unix.EPERM || err == unix.EACCES) {
		fd, err = at.Open(unix.O_RDONLY | unix.O_NONBLOCK) // immutable, or somebody else's
	}
	if err != nil {
		return -1, err
	}
	return f.fds.put(n, fd), nil
}
