package fs

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/layerfs/layerfs/layers"
)

// tickEvery is how often lingering layers are looked at, and changes that could not be read are tried again.
const tickEvery = 2 * time.Second

// watch follows the store until ctx ends.
func (s *Server) watch(ctx context.Context) {
	if err := s.fs.store.Watch(ctx, func() { s.reload(ctx) }); err != nil && ctx.Err() == nil {
		s.fs.log.Error("the mount does not follow changes of the store any more", "error", err)
	}
}

// tick does what no change of the store causes.
func (s *Server) tick(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.replace.Lock()
			missed := s.missed
			s.prune.lockedTick(s)
			s.sweepLocked()
			s.replace.Unlock()
			s.fs.mapped.drop(false, s.conn.Quiesce)
			s.fs.layerBlobs.trim(time.Now().Add(-blobIdle))
			if missed {
				s.reload(ctx)
			}
			s.collect(ctx)
		}
	}
}

// collect frees what the mount had open when it was removed, once it is closed. Nothing waits for that.
func (s *Server) collect(ctx context.Context) {
	if !s.collecting.CompareAndSwap(false, true) {
		return
	}
	s.keepers.Add(1)
	go func() {
		defer s.keepers.Done()
		defer s.collecting.Store(false)
		if _, err := s.fs.store.CollectPending(ctx); err != nil && ctx.Err() == nil {
			s.fs.report("space of removed layers is not freed: " + err.Error())
		}
	}()
}

// reload shows the newest catalogue: first to new requests, then by making the kernel forget what has changed, then by
// letting go what nobody uses any more.
func (s *Server) reload(ctx context.Context) {
	s.replace.Lock()
	defer s.replace.Unlock()
	// Most transactions only add bodies, which nobody sees.
	if n, err := s.fs.store.Generation(ctx); err == nil && n == s.fs.snap.Load().generation {
		s.missed = false
		return
	}
	c, err := s.fs.store.Catalogue(ctx)
	s.missed = err != nil
	if err != nil {
		if ctx.Err() == nil {
			s.fs.report("a change of the store is not shown yet: " + err.Error())
		}
		return
	}
	old := s.fs.snap.Load()
	if c.Generation == old.generation {
		return
	}
	snap := s.fs.newSnapshot(old, c, time.Now())
	podman, oci := old.podman.made.Load(), old.oci.made.Load()
	s.fs.followViews(snap, c, podman, oci)
	s.say(s.keepCatalogueOf(snap)) // before anybody sees it, so that the next process knows all that the kernel may know
	s.fs.snap.Store(snap)
	if podman == nil || oci == nil {
		// Somebody may have looked for the first time since, and the kernel remembers what he saw.
		s.conn.Quiesce()
		s.fs.followViews(snap, c, unless(podman, old.podman.made.Load()), unless(oci, old.oci.made.Load()))
	}
	s.notify(old, snap)
	s.sweepLocked()
}

// followViews makes the views of a snapshot that follow those of an older one, as far as there are any.
func (f *fileSystem) followViews(snap *snapshot, c *layers.Catalogue, podman *podmanView, oci *ociStore) {
	if podman != nil {
		snap.podman.made.Store(f.newPodmanView(snap, c, podman))
	}
	if oci != nil {
		snap.oci.made.Store(f.newOCIStore(snap, oci))
	}
}

// unless returns what there is now, but nil when there was something before.
func unless[T any](before, now *T) *T {
	if before != nil {
		return nil
	}
	return now
}

// notify makes the kernel forget what differs between two snapshots. It may wait for look-ups that are under way, so
// it must not be called by a handler.
func (s *Server) notify(old, now *snapshot) {
	for node := range maps.Keys(now.dirs) {
		if old.dirs[node] == nil {
			continue // its parent has changed
		}
		s.notifyDir(old.dirs[node], now.dirs[node])
	}
	for node, d := range old.dirs {
		if now.dirs[node] == nil {
			s.notifyDir(d, &dir{node: node})
		}
	}
	s.notifyOCI(old, now)
	s.notifyPodman(old.podman.made.Load(), now.podman.made.Load())
	for slot, v := range now.views {
		if was := old.views[slot]; was != nil && was.manifest.Digest != v.manifest.Digest {
			s.say(s.conn.NotifyInode(nodeID(kindViewObject, slot, viewManifest)))
		}
	}
}

// notifyPodman tells of the changes below podman/, if anybody has looked there.
func (s *Server) notifyPodman(old, now *podmanView) {
	if old == nil || now == nil {
		return
	}
	for node, d := range old.dirs {
		if new := now.dirs[node]; new != nil {
			s.notifyDir(d, new)
		} else {
			s.notifyDir(d, &dir{node: node})
		}
	}
}

// notifyDir tells of the entries that only one of two states of a directory has, or that lead elsewhere.
func (s *Server) notifyDir(old, now *dir) {
	if sameEntries(old, now) {
		return
	}
	was := make(map[string]uint64, len(old.entries))
	for _, e := range old.entries {
		was[e.name] = e.node
	}
	for _, e := range now.entries {
		if node, ok := was[e.name]; ok && node == e.node {
			delete(was, e.name)
			continue
		}
		was[e.name] = e.node // new, or another thing under the name
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		s.say(s.conn.NotifyEntry(now.node, name))
	}
	s.say(s.conn.NotifyInode(now.node))
}

// say reports an error of a notification.
func (s *Server) say(err error) {
	if err != nil {
		s.fs.report("notification: " + err.Error())
	}
}

// sweepLocked lets lingering views and layers go that the kernel has forgotten.
// Preconditions: s.replace is held.
func (s *Server) sweepLocked() {
	snap := s.fs.snap.Load()
	if len(snap.goneViews)+len(snap.goneLayers) == 0 {
		return
	}
	// From here on no request works with an older snapshot: what it has counted is counted.
	s.conn.Quiesce()
	views, gone := snap.forgotten()
	if len(views)+len(gone) == 0 {
		return
	}
	s.fs.snap.Store(snap.without(views, gone))
	s.conn.Quiesce() // now nobody can reach them
	for v := range views {
		s.fs.counters.drop(nodeID(kindViewObject, v.slot, viewTop))
	}
	for l := range gone {
		s.fs.mapped.retire(l)
		s.closeLayer(l)
		s.fs.counters.drop(nodeID(kindLayerObject, l.slot, layerTop))
	}
	s.fs.mapped.drop(false, s.conn.Quiesce)
}

// closeLayer closes a layer that no request can reach.
func (s *Server) closeLayer(l *layer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.open.Swap(nil)
	if o == nil {
		return
	}
	if err := o.Close(); err != nil {
		s.fs.log.Warn("close layer", "layer", l.diffID, "error", err)
	}
}

// closeLayers closes everything. Preconditions: no worker runs.
func (s *Server) closeLayers() {
	s.fs.mapped.drop(true, func() {})
	s.fs.layerBlobs.close()
	for _, l := range s.fs.snap.Load().layers {
		s.closeLayer(l)
	}
}
