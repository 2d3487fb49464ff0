package layers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/spool"
)

// Collected is what a collection removed, or would remove.
type Collected struct {
	Layers  []DiffID `json:"layers"`  // directories of layers without a record
	Bodies  int64    `json:"bodies"`  // file contents that no layer holds
	Objects int64    `json:"objects"` // files of large bodies
	Packs   int64    `json:"packs"`   // packs that were removed whole
	Blobs   int64    `json:"blobs"`   // manifests, configs, compressed layers and what makes them anew
	// Containers are directories of containers without a record.
	Containers []string `json:"containers"`
	Bytes      int64    `json:"bytes"` // space on disk
	// InUse are layers without a record that somebody has open; their content stays
	// until a collection after their last user has gone.
	InUse []DiffID `json:"in_use"`
}

// GC removes everything that no image, no open layer and no running import needs.
// It waits for running imports, and returns ErrBusy when they take longer than the
// store's timeout. With dryRun it only says what it would remove.
func (s *Store) GC(ctx context.Context, dryRun bool) (*Collected, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	release, err := s.lockImports(ctx, true, s.timeout)
	if err != nil {
		return nil, err
	}
	defer release()
	c, err := s.collect(ctx, dryRun)
	if err != nil {
		return nil, err
	}
	return c, s.sweepPartials(dryRun, c)
}

// tryCollect collects unless imports are running; then it returns ErrBusy at once.
func (s *Store) tryCollect(ctx context.Context) (*Collected, error) {
	release, err := s.lockImports(ctx, true, 10*time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.collect(ctx, false)
}

// A collection marks from the records and from the layers that are open, then
// sweeps. Its sets lie in temporary files, so that it needs no more memory for a
// large store.
type collection struct {
	s      *Store
	dryRun bool
	out    Collected
	live   *spool.Map[uint8]       // bodies
	ranges *spool.Array[packRange] // live parts of packs
	blobs  map[blob.Sum]bool       // live blobs

	corrections map[blob.Sum]bool // live ones
}

type packRange struct {
	pack      blob.PackID
	off, size int64
}

// collect requires that import.lock is held exclusively.
func (s *Store) collect(ctx context.Context, dryRun bool) (*Collected, error) {
	tmp := filepath.Join(s.root, "tmp")
	c := &collection{
		s: s, dryRun: dryRun, blobs: map[blob.Sum]bool{}, corrections: map[blob.Sum]bool{},
		live: spool.NewMap[uint8](tmp), ranges: spool.NewArray[packRange](tmp),
	}
	defer c.live.Close()
	defer c.ranges.Close()
	steps := []func(context.Context) error{c.markRecords, c.markForms, c.sweepContainers, c.sweepLayers, c.sweepBodies, c.sweepPacks, c.sweepBlobs}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("collection: %w", err)
		}
	}
	return &c.out, nil
}

func (c *collection) markRecords(ctx context.Context) error {
	var live []DiffID
	err := c.s.index.View(ctx, func(tx *index.Tx) error {
		live = live[:0]
		err := tx.EachImage(func(img index.Image) error {
			c.blobs[sumOf(img.Config.Digest)] = true
			for _, m := range img.Manifests {
				c.blobs[sumOf(m.Descriptor.Digest)] = true
				for _, d := range m.Indexes {
					c.blobs[sumOf(d.Digest)] = true
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.EachLayer(func(l index.Layer) error {
			if l.Additional == "" { // the bodies of others are in another store
				live = append(live, DiffID(l.DiffID))
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, d := range live {
		if err := c.markLayer(filepath.Join(c.s.layerDir(d), "tree")); err != nil {
			return fmt.Errorf("layer %s: %w", d, err)
		}
	}
	return nil
}

// markLayer marks the bodies of a layer. When its tree cannot be read nobody can
// tell which they are, and nothing must be removed.
func (c *collection) markLayer(path string) error {
	t, err := tree.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w; `layerfs check` says more", ErrDamaged, err)
	}
	defer t.Close()
	return t.EachBody(func(b tree.Body) error {
		if _, ok := c.live.Get(b.Sum); ok {
			return nil
		}
		if err := c.live.Put(b.Sum, 1); err != nil {
			return err
		}
		if b.Place.Pack == 0 {
			return nil
		}
		_, err := c.ranges.Append(packRange{blob.PackID(b.Place.Pack), b.Place.Offset, b.Size})
		return err
	})
}

// sweepLayers removes the directories of layers that have no record, but for those
// that somebody has open.
func (c *collection) sweepLayers(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(c.s.root, "layers"))
	if err != nil {
		return err
	}
	known := map[string]bool{}
	err = c.s.index.View(ctx, func(tx *index.Tx) error {
		return tx.EachLayer(func(l index.Layer) error {
			known[l.DiffID.Encoded()] = true
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !known[e.Name()] {
			if err := c.sweepLayer(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *collection) sweepLayer(name string) error {
	dir := filepath.Join(c.s.root, "layers", name)
	d := DiffID(digest.NewDigestFromEncoded(digest.SHA256, name))
	f, err := os.Open(filepath.Join(dir, "tree"))
	if err == nil {
		defer f.Close()
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			c.out.InUse = append(c.out.InUse, d)
			return c.markLayer(filepath.Join(dir, "tree"))
		}
	}
	c.out.Layers = append(c.out.Layers, d)
	c.out.Bytes += diskUsage(dir)
	if c.dryRun {
		return nil
	}
	temp, err := c.s.newTemp("gc")
	if err != nil {
		return err
	}
	err = c.s.disk.Rename(dir, filepath.Join(temp.path, "layer"))
	return errors.Join(err, temp.remove())
}

// sweepBodies forgets the bodies that no layer holds, a chunk in one transaction,
// and then removes the files of the large ones.
func (c *collection) sweepBodies(ctx context.Context) error {
	var from index.Sum
	for more := true; more; {
		var dead []index.Sum
		err := c.s.index.View(ctx, func(tx *index.Tx) error {
			dead, more = dead[:0], false
			return tx.EachBody(from, func(sum index.Sum, _ index.Body) error {
				if len(dead) == sweepChunk {
					from, more = sum, true
					return errStop
				}
				if _, ok := c.live.Get(sum); !ok {
					dead = append(dead, sum)
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
		c.out.Bodies += int64(len(dead))
		if err := c.forget(ctx, dead); err != nil {
			return err
		}
	}
	return c.s.blobs.WalkObjects(func(sum blob.Sum, size int64) error {
		if _, ok := c.live.Get(sum); ok {
			return nil
		}
		c.out.Objects++
		c.out.Bytes += size
		if c.dryRun {
			return nil
		}
		return c.s.blobs.RemoveObject(sum)
	})
}

// sweepChunk is how many bodies are forgotten in one transaction.
const sweepChunk = 4096

var errStop = errors.New("stop")

func (c *collection) forget(ctx context.Context, dead []index.Sum) error {
	if len(dead) == 0 || c.dryRun {
		return nil
	}
	return c.s.index.Update(ctx, "gc", func(tx *index.Tx) error {
		for _, sum := range dead {
			if err := tx.DeleteBody(sum); err != nil {
				return err
			}
		}
		return nil
	})
}

// sweepPacks removes packs without a live body and punches holes where dead ones
// lie in others. It goes by what is live, so that a killed collection is completed
// by the next.
func (c *collection) sweepPacks(context.Context) error {
	live := c.ranges.Slice()
	slices.SortFunc(live, func(a, b packRange) int {
		return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.off, b.off))
	})
	return c.s.blobs.WalkPacks(func(id blob.PackID, size int64) error {
		first, _ := slices.BinarySearchFunc(live, id, func(r packRange, id blob.PackID) int { return cmp.Compare(r.pack, id) })
		if first == len(live) || live[first].pack != id {
			c.out.Packs++
			c.out.Bytes += size
			if c.dryRun {
				return nil
			}
			return c.s.blobs.RemovePack(id)
		}
		return c.punch(id, size, live[first:])
	})
}

// punch frees the gaps between the live ranges of a pack.
func (c *collection) punch(id blob.PackID, size int64, live []packRange) error {
	var gaps []blob.Range
	var end int64
	for _, r := range live {
		if r.pack != id {
			break
		}
		if r.off > end {
			gaps = append(gaps, blob.Range{Offset: end, Length: r.off - end})
		}
		end = max(end, r.off+r.size)
	}
	if size > end {
		gaps = append(gaps, blob.Range{Offset: end, Length: size - end})
	}
	if len(gaps) == 0 || c.dryRun {
		return nil
	}
	freed, err := c.s.blobs.PunchPack(id, gaps)
	c.out.Bytes += freed
	return err
}

func (c *collection) sweepBlobs(context.Context) error {
	err := c.s.blobs.WalkBlobs(func(sum blob.Sum, size int64) error {
		return c.sweepBlob(c.blobs[sum], size, func() error { return c.s.blobs.RemoveBlob(sum) })
	})
	if err != nil {
		return err
	}
	return c.s.blobs.WalkCorrections(func(sum blob.Sum, size int64) error {
		return c.sweepBlob(c.corrections[sum], size, func() error { return c.s.blobs.RemoveCorrection(sum) })
	})
}

func (c *collection) sweepBlob(live bool, size int64, remove func() error) error {
	if live {
		return nil
	}
	c.out.Blobs++
	c.out.Bytes += size
	if c.dryRun {
		return nil
	}
	return remove()
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
