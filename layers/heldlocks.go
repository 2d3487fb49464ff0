package layers

import (
	"errors"
	"os"
	"sync"

	"github.com/layerfs/layerfs/internal/flock"
)

// heldLocks are the locks of a process whose work another one may go on with, which
// then has them, too: a flock belongs to the open file, and is held until the last
// descriptor of that is closed or somebody gives it back.
type heldLocks struct {
	keep func(name string, fd int) // nil: nobody else has them

	mu   sync.Mutex
	left map[string]*os.File // of containers, of the process before
}

// took says that a lock is held from now on.
func (h *heldLocks) took(name string, f *os.File) {
	if h.keep != nil {
		h.keep(name, int(f.Fd()))
	}
}

// release gives a lock back, whoever else has the file, and closes it.
func (h *heldLocks) release(name string, f *os.File) error {
	if h.keep == nil {
		return f.Close()
	}
	h.keep(name, -1)
	return errors.Join(flock.Unlock(f), f.Close())
}

// inherit returns the lock of a container that the process before had; nil when it
// had none.
func (h *heldLocks) inherit(id string) *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.left[id]
	delete(h.left, id)
	return f
}

// Names of locks, as those who keep them see them.
func layerLock(d DiffID) string          { return "layer/" + string(d) }
func containerLockName(id string) string { return "container/" + id }
