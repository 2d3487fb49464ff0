package tarsplit

import "sync"

// cacheGroups is how many decoded groups a Reader keeps: about 2 MiB at most in
// practice, one for each reader that goes through the stream at its own place.
const cacheGroups = 8

// A groupCache keeps the groups used last. A group is decoded once, however many
// ask for it at the same time.
type groupCache struct {
	mu    sync.Mutex
	clock uint64
	slots [cacheGroups]cacheSlot // mu
}

type cacheSlot struct {
	group *cachedGroup
	index int
	used  uint64
}

type cachedGroup struct {
	once  sync.Once
	group group
	err   error
}

// get returns the group with the index; load is called when it is not there.
func (c *groupCache) get(index int, load func(*group) error) (*group, error) {
	cg := c.slot(index)
	cg.once.Do(func() { cg.err = load(&cg.group) })
	if cg.err != nil {
		c.forget(cg) // the next caller may have more luck with the disk
		return nil, cg.err
	}
	return &cg.group, nil
}

func (c *groupCache) slot(index int) *cachedGroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	oldest := &c.slots[0]
	for i := range c.slots {
		s := &c.slots[i]
		if s.group != nil && s.index == index {
			s.used = c.clock
			return s.group
		}
		if s.used < oldest.used {
			oldest = s
		}
	}
	*oldest = cacheSlot{group: new(cachedGroup), index: index, used: c.clock}
	return oldest.group
}

func (c *groupCache) forget(cg *cachedGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.slots {
		if c.slots[i].group == cg {
			c.slots[i] = cacheSlot{}
		}
	}
}
