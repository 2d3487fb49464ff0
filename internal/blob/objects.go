package blob

import (
	"os"
	"sync"
)

// maxObjects is the number of objects that stay open between reads.
const maxObjects = 256

// object is an open object. It is a member of the list while it is cached.
type object struct {
	sum        Sum
	f          *os.File
	size       int64
	refs       int // readers at work
	cached     bool
	prev, next *object
}

// objectCache keeps the objects open that were read last.
type objectCache struct {
	store *Store

	mu    sync.Mutex
	bySum map[Sum]*object
	ring  object // the list's ends: next was used last, prev longest ago
}

func (c *objectCache) init(s *Store) {
	c.store = s
	c.bySum = make(map[Sum]*object)
	c.ring.next, c.ring.prev = &c.ring, &c.ring
}

// acquire returns an open object and a reference to it. A missing one is
// ErrNotFound.
func (c *objectCache) acquire(sum *Sum) (*object, error) {
	c.mu.Lock()
	if o := c.lookupLocked(sum); o != nil {
		c.mu.Unlock()
		return o, nil
	}
	c.mu.Unlock()

	fresh, err := c.store.openObject(*sum)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if o := c.lookupLocked(sum); o != nil { // raced with another reader
		c.mu.Unlock()
		closeAll(fresh.f)
		return o, nil
	}
	fresh.refs, fresh.cached = 1, true
	c.bySum[*sum] = fresh
	c.toFrontLocked(fresh)
	var idle *os.File
	if len(c.bySum) > maxObjects {
		idle = c.dropLocked(c.ring.prev)
	}
	c.mu.Unlock()
	closeAll(idle)
	return fresh, nil
}

// lookupLocked returns a reference to an object that is open.
//
// Preconditions: c.mu is held.
func (c *objectCache) lookupLocked(sum *Sum) *object {
	o := c.bySum[*sum]
	if o == nil {
		return nil
	}
	o.refs++
	o.prev.next, o.next.prev = o.next, o.prev
	c.toFrontLocked(o)
	return o
}

// toFrontLocked puts o, which is not in the list, at its beginning.
//
// Preconditions: c.mu is held.
func (c *objectCache) toFrontLocked(o *object) {
	o.prev, o.next = &c.ring, c.ring.next
	o.prev.next, o.next.prev = o, o
}

// dropLocked takes o out of the cache and returns the file that is to be
// closed: nil when a reader is at work, who closes it.
//
// Preconditions: c.mu is held; o is cached.
func (c *objectCache) dropLocked(o *object) *os.File {
	delete(c.bySum, o.sum)
	o.prev.next, o.next.prev = o.next, o.prev
	o.prev, o.next, o.cached = nil, nil, false
	if o.refs > 0 {
		return nil
	}
	return o.f
}

// release gives a reference back.
func (c *objectCache) release(o *object) {
	c.mu.Lock()
	o.refs--
	last := o.refs == 0 && !o.cached
	c.mu.Unlock()
	if last {
		closeAll(o.f)
	}
}

// forget drops an object from the cache.
func (c *objectCache) forget(sum Sum) {
	c.mu.Lock()
	var idle *os.File
	if o := c.bySum[sum]; o != nil {
		idle = c.dropLocked(o)
	}
	c.mu.Unlock()
	closeAll(idle)
}

func (c *objectCache) close() {
	c.mu.Lock()
	var idle []*os.File
	for _, o := range c.bySum {
		idle = append(idle, c.dropLocked(o))
	}
	c.mu.Unlock()
	closeAll(idle...)
}

// closeAll closes files that were only read, so that nothing can be lost.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// openObject opens an object for the cache.
func (s *Store) openObject(sum Sum) (*object, error) {
	f, err := s.OpenObject(sum)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		closeAll(f)
		return nil, err
	}
	return &object{sum: sum, f: f, size: st.Size()}, nil
}

// OpenObject opens an object for reading, not verified. It returns ErrNotFound.
// The caller closes the file.
func (s *Store) OpenObject(sum Sum) (*os.File, error) {
	return openFile(s.objectPath(sum), digestOf("object", sum))
}

// ForgetObjects closes all objects that are open between reads, so that the
// space of removed ones becomes free.
func (s *Store) ForgetObjects() { s.objects.close() }
