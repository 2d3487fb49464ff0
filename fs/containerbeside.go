package fs

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/layerfs/layerfs/fs/internal/mount"
)

// containersBeside is the mount of containers that belongs to a mount of the store. It is a mount of its own in another
// place: nobody could unmount the store's while something is mounted in it, and an ordinary user may mount only on what
// he can write to.
type containersBeside struct {
	dir   string
	below string        // the mount that it belongs to
	ready chan struct{} // closed when the containers are mounted, or cannot be
	set   *settings
	s     *Containers // valid after ready
	err   error
	ended sync.Once
}

// start mounts the containers. The store is mounted already and need not wait for it.
func (b *containersBeside) start(f *fileSystem) {
	defer close(b.ready)
	set := b.set
	if _, kept := set.left[keptTrees]; !kept {
		if _, b.err = mount.CleanDead(b.dir); b.err == nil {
			b.err = os.MkdirAll(b.dir, 0o755)
		}
	}
	if b.err == nil {
		with := *set
		with.mount.Writable, with.passthrough = true, false
		b.s, b.err = serveContainers(f.sibling(), b.dir, "", b.below, &with)
	}
	if b.err == nil {
		if err := b.s.Handover(); err != nil {
			set.log.Debug("handover of the containers", "error", err)
		}
	}
	if b.err != nil {
		set.log.Error("the containers are not shown", "directory", b.dir, "error", b.err)
	}
}

// sibling returns a file system on the same store for another connection.
func (f *fileSystem) sibling() *fileSystem {
	n := &fileSystem{
		store: f.store, log: f.log, owners: f.owners, uid: f.uid, gid: f.gid, trusted: f.trusted, started: f.started,
		root: rootID, cache: f.cache,
	}
	n.snap.Store(emptySnapshot())
	return n
}

// served returns the mount of the containers, nil when there is none.
func (b *containersBeside) served() *Containers {
	if b == nil {
		return nil
	}
	select {
	case <-b.ready:
		return b.s
	default:
		return nil
	}
}

// end unmounts the containers. Whoever uses them gets errors from then on.
func (b *containersBeside) end(log *slog.Logger) { b.ended.Do(func() { b.detach(log) }) }

func (b *containersBeside) detach(log *slog.Logger) {
	<-b.ready
	if b.s == nil {
		return
	}
	if err := b.s.Detach(); err != nil {
		log.Warn("unmount the containers", "directory", b.dir, "error", err)
	}
	if err := os.Remove(b.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Debug("remove the directory of the containers", "error", err)
	}
}

// target is where the symbolic link in the mount of the store leads.
func (b *containersBeside) target() ([]byte, syscall.Errno) {
	<-b.ready
	if b.err != nil {
		return nil, syscall.EIO // the log and status.json say why
	}
	return []byte(b.dir), 0
}

func (b *containersBeside) status() *containersStatus {
	out := &containersStatus{Mountpoint: b.dir}
	select {
	case <-b.ready:
	default:
		return out
	}
	if b.err != nil {
		out.Error = b.err.Error()
		return out
	}
	out.ReadOnly, out.Requests = b.s.ReadOnly(), b.s.t.conn.Counts()
	return out
}
