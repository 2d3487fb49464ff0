package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/spool"
)

// Collected is what a collection removed, or would remove.
type Collected struct {
	Layers  []DiffID `json:"layers"`  // directories of layers that nothing needs
	Bodies  int64    `json:"bodies"`  // file contents that no layer holds
	Objects int64    `json:"objects"` // files of large bodies
	Packs   int64    `json:"packs"`   // packs that were removed whole
	Blobs   int64    `json:"blobs"`   // manifests, configs, compressed layers and what makes them anew, big data
	// Containers are directories of containers without a record.
	Containers []string `json:"containers"`
	Bytes      int64    `json:"bytes"` // space on disk, without that of the index
	// IndexBytes is by how much the index shrank; a dry run does not know.
	IndexBytes int64 `json:"index_bytes"`
	// InUse are layers without a record that somebody has open; their content stays
	// until a collection after their last user has gone.
	InUse []DiffID `json:"in_use"`
}

// GC removes everything that no image, layer record, container, lease, open layer
// or running import needs. Imports and mounts go on meanwhile; only another
// collection is waited for, with ErrBusy when it takes longer than the store's
// timeout. With dryRun it only says what it would remove.
func (s *Store) GC(ctx context.Context, dryRun bool) (*Collected, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	release, err := s.lockGC(ctx, s.timeout)
	if err != nil {
		return nil, err
	}
	defer release()
	out, err := s.collect(ctx, dryRun, nil)
	if err == nil && !dryRun {
		err = s.blobs.SweepTemp()
	}
	return out, err
}

// tryCollect collects unless somebody else does; then it asks him to do it once
// more and returns ErrBusy.
func (s *Store) tryCollect(ctx context.Context) (*Collected, error) {
	for range 2 {
		release, err := s.lockGC(ctx, 0)
		if err == nil {
			defer release()
			return s.collect(ctx, false, nil)
		}
		if !errors.Is(err, ErrBusy) {
			return nil, err
		}
		// He looks for this before he ends; should he have done so just before, the
		// lock is free now.
		if err := s.addPending(pendingWanted); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: a collection is running; it will also free this", ErrBusy)
}

// CollectPending frees what could not be freed before, because a mount had it open
// or a collection was running, if that has changed. It costs next to nothing when
// there is nothing of the kind. It returns nil when nothing was collected.
func (s *Store) CollectPending(ctx context.Context) (*Collected, error) {
	if s.readOnly || !s.pendingReady() {
		return nil, nil
	}
	out, err := s.tryCollect(ctx)
	if errors.Is(err, ErrBusy) {
		return nil, nil
	}
	return out, err
}

// A collection marks what the records, the leases and the open layers need, and
// removes the rest. Nobody is kept out meanwhile. What it removes it first takes
// out of the way in a short transaction, in which it looks once more whether the
// records or the leases have changed. Its sets lie in temporary files, so that it
// needs no more memory for a large store.
type collection struct {
	s       *Store
	dryRun  bool
	without *Removed // of a dry run: taken for removed
	out     Collected

	refs   references
	holds  *holds
	marked map[index.Sum]bool // layers whose bodies are in live
	todo   []index.Sum        // layers that must be marked

	listed   bool   // layers/ was looked through
	listedAt uint64 // in this generation

	live   *spool.Map[uint8]       // bodies
	ranges *spool.Array[packRange] // live parts of packs
	blobs  map[blob.Sum]bool       // live blobs
	known  uint64                  // the generation that blobs and corrections are of

	corrections map[blob.Sum]bool // live ones
}

type packRange struct {
	pack      blob.PackID
	off, size int64
}

// collect requires gc.lock.
func (s *Store) collect(ctx context.Context, dryRun bool, without *Removed) (*Collected, error) {
	if dryRun {
		return s.collectOnce(ctx, true, without)
	}
	if err := os.Remove(s.pendingPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var sum Collected
	for range collectRounds {
		out, err := s.collectOnce(ctx, false, nil)
		if err != nil {
			return nil, errors.Join(err, s.addPending(pendingWanted)) // somebody else finishes it
		}
		sum.add(out)
		if !s.takeWanted() {
			break
		}
	}
	if len(sum.InUse) > 0 {
		if err := s.addPending(sum.InUse...); err != nil {
			return nil, err
		}
	}
	freed, err := s.index.Compact(ctx, index.CompactMin)
	sum.IndexBytes = freed
	return &sum, err
}

// collectRounds is how often a collection begins again for others who came too late.
const collectRounds = 3

func (c *Collected) add(o *Collected) {
	c.Layers = append(c.Layers, o.Layers...)
	c.Containers = append(c.Containers, o.Containers...)
	c.Bodies += o.Bodies
	c.Objects += o.Objects
	c.Packs += o.Packs
	c.Blobs += o.Blobs
	c.Bytes += o.Bytes
	c.InUse = o.InUse
}

func (s *Store) collectOnce(ctx context.Context, dryRun bool, without *Removed) (*Collected, error) {
	c := s.newCollection(dryRun, without)
	defer c.close()
	if !dryRun {
		s.sweepTemp()
	}
	for _, step := range c.steps() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("collection: %w", err)
		}
	}
	return &c.out, nil
}

func (s *Store) newCollection(dryRun bool, without *Removed) *collection {
	tmp := filepath.Join(s.root, "tmp")
	c := &collection{
		s: s, dryRun: dryRun, without: without, holds: newHolds(s), marked: map[index.Sum]bool{},
		live: spool.NewMap[uint8](tmp), ranges: spool.NewArray[packRange](tmp),
	}
	c.holds.body = func(sum blob.Sum) error { return c.live.Put(sum, 1) }
	return c
}

func (c *collection) close() {
	c.live.Close()
	c.ranges.Close()
}

// steps are the parts of a collection in their order.
func (c *collection) steps() []func(context.Context) error {
	return []func(context.Context) error{
		c.markAll, c.sweepRows, c.sweepForms, c.sweepContainers, c.sweepLayers, c.sweepBodies, c.sweepObjects, c.sweepPacks,
		c.sweepBlobs, c.sweepPartials,
	}
}

// moved is what a step takes out of the way before it is removed: a directory that
// is removed with all that is in it.
func (c *collection) moved(fn func(dir string) error) error {
	temp, err := c.s.newTemp("gc")
	if err != nil {
		return err
	}
	return errors.Join(fn(temp.path), temp.remove())
}

// diskUsage adds up what the files below dir occupy; what cannot be read counts 0.
func diskUsage(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

func diffIDOf(sum index.Sum) DiffID { return DiffID(digest.NewDigestFromBytes(digest.SHA256, sum[:])) }
