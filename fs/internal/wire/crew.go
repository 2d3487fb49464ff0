package wire

import (
	"sync"
	"sync/atomic"
)

// A crew lets only one worker of a writable connection take requests: most are answered sooner than a second thread is
// awake. But fsync and the copying of large files need workers to spare. Whoever does such a thing says so, and another
// takes his place until he is done; and while somebody does, so does everybody, because he may have to wait for him.
type crew struct {
	lent atomic.Int32 // who does what takes long

	mu     sync.Mutex
	want   int
	active int
	spare  int
	wake   chan struct{}
	over   bool
}

func (c *crew) init(want, workers int) {
	c.want, c.wake = want, make(chan struct{}, workers)
}

// enter returns when the caller, who is not active, may take requests; false when the connection has ended.
func (c *crew) enter() bool {
	c.mu.Lock()
	if c.active < c.want {
		c.active++
		c.mu.Unlock()
		return true
	}
	c.spare++
	c.mu.Unlock()
	_, ok := <-c.wake
	return ok
}

// stay is called by an active worker between two requests. It waits when there are too many of them.
func (c *crew) stay() bool {
	c.mu.Lock()
	if c.active <= c.want {
		c.mu.Unlock()
		return true
	}
	c.active--
	c.spare++
	c.mu.Unlock()
	_, ok := <-c.wake
	return ok
}

// begin says that an active worker is going to be slow, end that it was.
func (c *crew) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	if c.spare > 0 && !c.over {
		c.spare--
		c.active++
		c.wake <- struct{}{}
	}
}

func (c *crew) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
}

// finish ends the waiting of all.
func (c *crew) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		close(c.wake)
	}
}

// Slowly calls fn, which takes long: other requests are answered meanwhile. It must be called by a handler, if at all.
func (c *Conn) Slowly(fn func()) {
	if !c.opts.Writable {
		fn()
		return
	}
	c.crew.lent.Add(1)
	defer c.crew.lent.Add(-1)
	c.crew.begin()
	defer c.crew.end()
	fn()
}
