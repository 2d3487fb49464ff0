package fs

import (
	"errors"
	"fmt"
	"time"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/overlay"
	"github.com/layerfs/layerfs/layers/upper"
)

// use returns the tree of a container, which it opens when it is first used. While it is open no other process writes
// into the container; when one does already, the tree can only be read.
func (t *trees) use(c *container) (*openTree, error) {
	c.used.Store(time.Now().Unix())
	if o := c.open.Load(); o != nil {
		return o, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.open.Load(); o != nil {
		return o, nil
	}
	if c.gone.Load() {
		return nil, fmt.Errorf("%w: %s", layers.ErrContainerUnknown, c.id)
	}
	o, err := t.openTree(c)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", *c.name.Load(), err)
	}
	c.open.Store(o)
	return o, nil
}

func (t *trees) openTree(c *container) (o *openTree, err error) {
	o = &openTree{}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if err := t.useMap(c); err != nil {
		return nil, err
	}
	c.readOnly.Store(nil)
	o.lock, err = t.f.store.LockContainer(c.id, "mount "+t.dir)
	if errors.Is(err, layers.ErrInUse) || errors.Is(err, layers.ErrReadOnly) {
		reason := err.Error()
		c.readOnly.Store(&reason)
		t.log.Warn("a container can only be read", "container", *c.name.Load(), "reason", reason)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	owners, err := upper.Self()
	if err != nil {
		return nil, err
	}
	opts := overlay.Options{
		Cache: t.f.cache, Format: upper.New(owners), ReadOnly: o.lock == nil,
		Slowly: func(fn func()) { t.conn.Slowly(fn) },
		Memory: t.memory.nodes, Tree: c.slot, Keeper: t.fdKeeper(c), Left: t.fdKeeper(c).leftFiles(t.memory.left),
		Upper: t.f.store.UpperPath(c.id), Work: t.f.store.WorkPath(c.id), Meta: t.f.store.MetaPath(c.id),
	}
	for _, d := range c.stack {
		l, err := t.f.store.OpenLayer(d)
		if err != nil {
			return nil, err
		}
		o.layers = append(o.layers, l)
		opts.Layers = append(opts.Layers, l)
	}
	o.FS, err = overlay.Open(&opts)
	return o, err
}

// useMap takes over the map of IDs that the container was made with, unless it is mounted alone with another one.
func (t *trees) useMap(c *container) error {
	rec, err := c.record.Load().Container()
	if err != nil || rec.UIDMap == "" && rec.GIDMap == "" || t.single != nil && t.f.owners.explicit {
		return err
	}
	own, err := parseMaps(rec.UIDMap, rec.GIDMap)
	if err == nil {
		c.owners.Store(&own)
	}
	return err
}

// ownersOf returns the map of IDs of a container whose tree is open.
func (t *trees) ownersOf(c *container) *owners {
	if o := c.owners.Load(); o != nil {
		return o
	}
	return &t.f.owners
}

// close gives back what an open tree holds. Preconditions: no request uses it.
func (o *openTree) close() error {
	var err error
	if o.FS != nil {
		err = o.FS.Close()
	}
	for _, l := range o.layers {
		err = errors.Join(err, l.Close())
	}
	if o.lock != nil {
		err = errors.Join(err, o.lock.Close())
	}
	return err
}

// giveUp closes the tree of a container if nobody uses it: the kernel is made to forget it first. It must not be called by a
// handler.
func (t *trees) giveUp(c *container) bool {
	if c == t.single || c.handles.Load() > 0 {
		return false
	}
	t.say(t.conn.NotifyEntry(objectNode(c.slot, treeTop), rootfsName))
	for range 50 {
		t.conn.Quiesce()
		if c.handles.Load() == 0 && c.lookups.Load() == 0 {
			t.closeTree(c)
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false // somebody has his working directory there
}

// closeTree closes the tree of a container when it is open. It must not be called by a handler.
func (t *trees) closeTree(c *container) {
	c.mu.Lock()
	o := c.open.Swap(nil)
	c.mu.Unlock()
	if o == nil {
		return
	}
	t.conn.Quiesce()
	if err := o.close(); err != nil {
		t.log.Warn("close container", "container", *c.name.Load(), "error", err)
	}
}
