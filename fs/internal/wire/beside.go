package wire

import (
	"sync"
	"sync/atomic"
)

// beside is work of a connection that no request waits for.
type beside struct {
	busy atomic.Uint64 // odd while there is some, as that of a worker
	wg   sync.WaitGroup
}

// Beside runs fn in a goroutine of its own, unless another fn runs, and reports whether it does. A handler may call it: fn
// may use what the handler may, since Quiesce waits for it as for a request, and may send notifications.
func (c *Conn) Beside(fn func()) bool {
	b := &c.beside
	was := b.busy.Load()
	if was&1 == 1 || !b.busy.CompareAndSwap(was, was+1) {
		return false
	}
	b.wg.Go(func() {
		defer b.busy.Add(1)
		fn()
	})
	return true
}
