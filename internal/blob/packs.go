package blob

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxPacks is the number of packs that stay mapped without being pinned. A
// process may have 65,530 mappings by default.
const maxPacks = 4096

// mapping is a pack's file, mapped whole for reading.
type mapping struct {
	data []byte
	refs atomic.Int32 // one for the cache, one for each reader at work
	lent atomic.Bool  // PackBytes gave out a part: not evicted
}

// release gives one reference back; the last one unmaps.
func (m *mapping) release() {
	if m.refs.Add(-1) == 0 {
		_ = unix.Munmap(m.data) // it was mapped whole and once: cannot fail
	}
}

// pack is a cache entry.
type pack struct {
	cur       *mapping   // nil until it is first read
	old       []*mapping // smaller ones that parts of may be lent
	pins      int
	forgotten bool // drop at the last Unpin
}

// packCache maps packs at their first use.
type packCache struct {
	store *Store

	mu     sync.RWMutex
	byID   map[PackID]*pack
	mapped int // entries with a mapping
}

func (c *packCache) init(s *Store) {
	c.store = s
	c.byID = make(map[PackID]*pack)
}

// acquire returns a mapping of at least need bytes and a reference to it. With
// lend it is kept until Forget.
func (c *packCache) acquire(id PackID, need int64, lend bool) (*mapping, error) {
	c.mu.RLock()
	if m := c.lookupLocked(id, need, lend); m != nil {
		c.mu.RUnlock()
		return m, nil
	}
	c.mu.RUnlock()

	fresh, err := c.store.mapPack(id, need)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.lookupLocked(id, need, lend); m != nil { // raced with another reader
		fresh.release()
		return m, nil
	}
	c.insertLocked(id, fresh)
	return c.lookupLocked(id, need, lend), nil
}

// lookupLocked returns a reference to the mapping of id when it has one that is
// large enough.
//
// Preconditions: c.mu is held, shared at least.
func (c *packCache) lookupLocked(id PackID, need int64, lend bool) *mapping {
	p := c.byID[id]
	if p == nil || p.cur == nil || int64(len(p.cur.data)) < need {
		return nil
	}
	p.cur.refs.Add(1)
	if lend && !p.cur.lent.Load() {
		p.cur.lent.Store(true)
	}
	return p.cur
}

// insertLocked makes m the mapping of id. m's reference becomes the cache's.
//
// Preconditions: c.mu is held.
func (c *packCache) insertLocked(id PackID, m *mapping) {
	p := c.byID[id]
	if p == nil {
		p = &pack{}
		c.byID[id] = p
	}
	switch {
	case p.cur == nil:
		c.mapped++
	default:
		p.old = append(p.old, p.cur)
	}
	p.cur = m
	if c.mapped > maxPacks {
		c.evictLocked(id)
	}
}

// evictLocked drops a pack that nobody has pinned or borrowed from.
//
// Preconditions: c.mu is held.
func (c *packCache) evictLocked(except PackID) {
	for id, p := range c.byID {
		if id != except && p.pins == 0 && p.cur != nil && !p.cur.lent.Load() && len(p.old) == 0 {
			c.dropLocked(id, p)
			return
		}
	}
}

// dropLocked removes an entry. Readers at work keep their mapping.
//
// Preconditions: c.mu is held.
func (c *packCache) dropLocked(id PackID, p *pack) {
	delete(c.byID, id)
	if p.cur != nil {
		c.mapped--
		p.cur.release()
	}
	for _, m := range p.old {
		m.release()
	}
}

func (c *packCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, p := range c.byID {
		c.dropLocked(id, p)
	}
}

// Pin makes slices that PackBytes returns for a pack valid until the matching
// Unpin, whatever Forget is told. It does not look whether the pack exists.
func (s *Store) Pin(id PackID) {
	c := &s.packs
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.byID[id]
	if p == nil {
		p = &pack{}
		c.byID[id] = p
	}
	p.pins++
}

// Unpin undoes one Pin.
func (s *Store) Unpin(id PackID) {
	c := &s.packs
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.byID[id]
	if p == nil {
		return // Close came before
	}
	p.pins--
	if p.pins == 0 && (p.forgotten || p.cur == nil) {
		c.dropLocked(id, p)
	}
}

// Forget drops the mapping of a pack, so that the space of a removed one
// becomes free: now, or at the last Unpin.
func (s *Store) Forget(id PackID) {
	c := &s.packs
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.byID[id]
	switch {
	case p == nil:
	case p.pins > 0:
		p.forgotten = true
	default:
		c.dropLocked(id, p)
	}
}

// mapPack maps a pack's file. A file of less than need bytes is ErrDamaged, so
// no address of the result lies behind the end of the file.
func (s *Store) mapPack(id PackID, need int64) (*mapping, error) {
	f, err := openFile(s.packPath(id), packName(id))
	if err != nil {
		return nil, missingIsDamage(err)
	}
	defer f.Close() // the mapping does not need it
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() < need || st.Size() == 0 {
		return nil, fmt.Errorf("%s: %d bytes instead of at least %d: %w", packName(id), st.Size(), need, ErrDamaged)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: map: %w", packName(id), err)
	}
	m := &mapping{data: data}
	m.refs.Store(1)
	return m, nil
}
