package union

import (
	"slices"
	"sync"
	"sync/atomic"
)

// DefaultCacheBytes is how much a cache keeps unless told otherwise.
const DefaultCacheBytes = 8 << 20

const (
	borderSlots  = 1 << 15 // borders that a cache remembers
	keepListings = 4       // listings kept however large they are
	itemBytes    = 160     // what an item costs beside what it points to
)

// Cache keeps what was computed about merged directories, in bounded memory. Any
// number of stacks may share one.
type Cache struct {
	stacks atomic.Uint32 // the last stack's number

	mu       sync.Mutex
	chains   lru[merged]
	listings lru[Listing]
	borders  []border // by a hash of the key, a newer one replaces an older one
}

// key names a directory of a stack: stack<<32 | DirID.
type key uint64

// key returns the key of a directory.
func (s *Stack) key(id DirID) key { return key(s.id)<<32 | key(id) }

// border is a single directory and its merged parent.
type border struct {
	key    key
	parent DirID
}

// merged is what is known about a merged directory.
type merged struct {
	parent DirID
	rest   []contrib // contributors behind the first, in short when they fit
	short  [5]contrib
}

// NewCache returns a cache that keeps about so many bytes, DefaultCacheBytes when
// 0. Beyond that it keeps the few listings last used, however large, for readers
// come back to them for every piece.
func NewCache(bytes int64) *Cache {
	if bytes == 0 {
		bytes = DefaultCacheBytes
	}
	half := int(bytes / 2)
	return &Cache{chains: lru[merged]{max: half}, listings: lru[Listing]{max: half, keep: keepListings}}
}

// known returns the contributors, behind the first, of a merged directory, or says
// that the directory is a border.
func (c *Cache) known(k key) (rest []contrib, border, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.slot(k); b != nil && b.key == k {
		return nil, true, true
	}
	if it := c.chains.get(k); it != nil {
		return it.value.rest, false, true
	}
	return nil, false, false
}

// slot returns the slot of a border, nil when there are none yet.
// Preconditions: c.mu is held.
func (c *Cache) slot(k key) *border {
	if c.borders == nil {
		return nil
	}
	return &c.borders[uint64(k)*0x9e3779b97f4a7c15>>32%borderSlots]
}

// border returns the parent of a directory that is a known border.
func (c *Cache) border(k key) (DirID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.slot(k); b != nil && b.key == k {
		return b.parent, true
	}
	return 0, false
}

// putBorder remembers a border.
func (c *Cache) putBorder(k key, parent DirID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.borders == nil {
		c.borders = make([]border, borderSlots)
	}
	*c.slot(k) = border{k, parent}
}

// putMerged remembers a copy of the contributors, behind the first, of a merged
// directory and returns it.
func (c *Cache) putMerged(k key, parent DirID, rest []contrib) []contrib {
	it := &item[merged]{key: k, bytes: itemBytes}
	it.value.parent = parent
	if len(rest) <= len(it.value.short) {
		it.value.rest = it.value.short[:copy(it.value.short[:], rest)]
	} else {
		it.value.rest = slices.Clone(rest)
		it.bytes += 8 * len(rest)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chains.put(it)
	return it.value.rest
}

// parent returns the parent of a directory that is merged or a border.
func (c *Cache) parent(k key) (DirID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.slot(k); b != nil && b.key == k {
		return b.parent, true
	}
	if it := c.chains.get(k); it != nil {
		return it.value.parent, true
	}
	return 0, false
}

// listing returns the listing of a directory.
func (c *Cache) listing(k key) *Listing {
	c.mu.Lock()
	defer c.mu.Unlock()
	if it := c.listings.get(k); it != nil {
		return &it.value
	}
	return nil
}

// putListing remembers a listing. It gives back the one that is in the cache when
// somebody else was faster.
func (c *Cache) putListing(it *item[Listing]) *Listing {
	it.bytes = itemBytes + it.value.Bytes()
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.listings.get(it.key); old != nil {
		return &old.value
	}
	c.listings.put(it)
	return &it.value
}

// lru is a map that forgets what was not used for long. Its zero value, with max
// set, is ready.
type lru[V any] struct {
	max, keep int
	bytes     int
	items     map[key]*item[V]
	ring      item[V] // head of the list: next is the item used last
}

// item is an entry of an lru.
type item[V any] struct {
	key        key
	prev, next *item[V]
	bytes      int
	value      V
}

// get returns the item of a key, nil when there is none.
func (l *lru[V]) get(k key) *item[V] {
	it := l.items[k]
	if it != nil && l.ring.next != it {
		it.unlink()
		l.link(it)
	}
	return it
}

// put adds an item, in the place of an older one of its key.
func (l *lru[V]) put(it *item[V]) {
	if l.items == nil {
		l.items = make(map[key]*item[V])
		l.ring.next, l.ring.prev = &l.ring, &l.ring
	}
	if old := l.items[it.key]; old != nil {
		l.drop(old)
	}
	l.items[it.key] = it
	l.bytes += it.bytes
	l.link(it)
	for l.bytes > l.max && len(l.items) > max(l.keep, 1) {
		l.drop(l.ring.prev)
	}
}

// drop forgets an item.
func (l *lru[V]) drop(it *item[V]) {
	delete(l.items, it.key)
	l.bytes -= it.bytes
	it.unlink()
	it.prev, it.next = nil, nil // what it holds may be in use for long
}

// link puts an item at the head of the list.
func (l *lru[V]) link(it *item[V]) {
	it.prev, it.next = &l.ring, l.ring.next
	it.prev.next, it.next.prev = it, it
}

// unlink takes an item out of the list.
func (it *item[V]) unlink() {
	it.prev.next, it.next.prev = it.next, it.prev
}
