package overlay

import (
	"container/list"
	"sync"

	"golang.org/x/sys/unix"
)

// fds keeps descriptors of nodes open while they are used, and as many of the others
// as there is room for, those used last.
type fds struct {
	mu   sync.Mutex
	max  int
	n    int
	idle list.List // of *node that nobody has pinned, the one used last in front
}

// maxIdle is how many descriptors are open at the most before those that nobody uses
// are closed: a quarter of what the process may have, at least 64.
const maxIdle = 4096

func (c *fds) init() {
	var lim unix.Rlimit
	c.max = 256
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
		c.max = int(min(max(lim.Cur/4, 64), maxIdle))
	}
	c.idle.Init()
}

// pin returns the descriptor of a node when it is open.
func (c *fds) pin(n *node) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !n.opened {
		return -1, false
	}
	c.use(n)
	return n.fd, true
}

// use counts one user more. Preconditions: c.mu is held, n is open.
func (c *fds) use(n *node) {
	if n.elem != nil {
		c.idle.Remove(n.elem)
		n.elem = nil
	}
	n.pins++
}

func (c *fds) unpin(n *node) {
	c.mu.Lock()
	n.pins--
	if n.pins == 0 && n.opened {
		n.elem = c.idle.PushFront(n)
	}
	fd := c.surplus()
	c.mu.Unlock()
	if fd >= 0 {
		unix.Close(fd)
	}
}

// surplus takes the descriptor that was not used for the longest time away from its
// node when there are too many. Preconditions: c.mu is held.
func (c *fds) surplus() int {
	last := c.idle.Back()
	if c.n <= c.max || last == nil {
		return -1
	}
	return c.take(last.Value.(*node))
}

// take takes an unused descriptor from its node. Preconditions: c.mu is held.
func (c *fds) take(n *node) int {
	c.idle.Remove(n.elem)
	n.elem, n.opened = nil, false
	c.n--
	return n.fd
}

// put gives a node a descriptor that was just opened, and pins it. When it has one by
// now the new one is closed.
func (c *fds) put(n *node, fd int) int {
	c.mu.Lock()
	if n.opened {
		c.use(n)
		mine := n.fd
		c.mu.Unlock()
		unix.Close(fd)
		return mine
	}
	n.fd, n.opened = fd, true
	n.pins++
	c.n++
	old := c.surplus()
	c.mu.Unlock()
	if old >= 0 {
		unix.Close(old)
	}
	return fd
}

// adopt gives a node a descriptor that stays pinned.
func (c *fds) adopt(n *node, fd int) { c.put(n, fd) }

// open and release count the open files of a node, each of which has pinned it.
func (c *fds) open(n *node) {
	c.mu.Lock()
	n.opens++
	n.recordOpens()
	c.mu.Unlock()
}

func (c *fds) release(n *node) {
	c.mu.Lock()
	open := n.opens > 0
	if open {
		n.opens--
		n.recordOpens()
	}
	c.mu.Unlock()
	if open {
		c.unpin(n)
	}
}

// openCount returns the number of open files.
func (c *fds) openCount(n *node) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return n.opens
}

// busy reports whether somebody uses the descriptor of a node, other than because it
// has no name any more.
func (c *fds) busy(n *node) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := 0
	if n.kept {
		own = 1
	}
	return n.pins > own
}

// keep makes a node without a name keep its descriptor, which the caller has pinned
// for it.
func (c *fds) keep(n *node) {
	c.mu.Lock()
	again := n.kept
	n.kept = true
	c.mu.Unlock()
	if again {
		c.unpin(n)
	}
}

// drop closes the descriptor of a node that nobody uses.
func (c *fds) drop(n *node) {
	c.mu.Lock()
	if n.kept {
		n.kept = false
		n.pins--
		if n.pins == 0 && n.opened {
			n.elem = c.idle.PushFront(n)
		}
	}
	fd := -1
	if n.opened && n.elem != nil {
		fd = c.take(n)
	}
	c.mu.Unlock()
	if fd >= 0 {
		unix.Close(fd)
	}
}

func (c *fds) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// closeAll closes the descriptors of nodes. Preconditions: nobody uses them.
func (c *fds) closeAll(nodes map[ID]*node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle.Init()
	for _, n := range nodes {
		if n.opened {
			n.opened = false
			unix.Close(n.fd)
		}
	}
}
