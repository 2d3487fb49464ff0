package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
)

// references are the layers that the records need, as of one generation.
type references struct {
	generation uint64
	layers     map[index.Sum]bool
}

// readReferences reads the heads of the records: that is quick enough for a
// transaction that others wait for.
func readReferences(tx *index.Tx, without *Removed) (references, error) {
	r := references{generation: tx.Generation(), layers: map[index.Sum]bool{}}
	gone := without.keys()
	add := func(key []byte, h index.Head) error {
		if gone[string(key)] {
			return nil
		}
		for _, sum := range h.Layers {
			r.layers[sum] = true
		}
		return nil
	}
	return r, errors.Join(tx.EachHead(index.HeadImages, add), tx.EachHead(index.HeadLayerRecords, add), tx.EachHead(index.HeadContainers, add))
}

// keys are the IDs of what a removal removes.
func (r *Removed) keys() map[string]bool {
	if r == nil {
		return nil
	}
	keys := map[string]bool{}
	for _, id := range r.Deleted {
		keys[id.Encoded()] = true
	}
	for _, id := range r.Records {
		keys[id] = true
	}
	return keys
}

// needed reports whether a record or a lease needs the layer.
func (c *collection) needed(sum index.Sum) bool {
	return c.refs.layers[sum] || c.holds.layers[sum] != nil
}

// errStale is returned by current when layers must be marked before the
// transaction can go on.
var errStale = errors.New("the marks are stale")

// current brings the collection up to date with the records and the leases, inside
// a transaction. It returns errStale when there are layers to mark.
func (c *collection) current(tx *index.Tx) error {
	if err := c.holds.refresh(); err != nil {
		return err
	}
	if c.refs.layers == nil || tx.Generation() != c.refs.generation {
		refs, err := readReferences(tx, c.without)
		if err != nil {
			return err
		}
		c.refs = refs
	}
	c.todo = c.todo[:0]
	for sum := range c.refs.layers {
		if err := c.want(tx, sum); err != nil {
			return err
		}
	}
	for sum := range c.holds.layers {
		if err := c.want(tx, sum); err != nil {
			return err
		}
	}
	if err := c.wantOpen(tx); err != nil {
		return err
	}
	if len(c.todo) > 0 {
		return errStale
	}
	return nil
}

// wantOpen puts the layers on the list that somebody has open although nothing needs
// them any more. Layers come and go while a collection runs, so it looks again
// whenever the records have changed.
func (c *collection) wantOpen(tx *index.Tx) error {
	if c.listed && c.listedAt == tx.Generation() {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(c.s.root, "layers"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		sum, ok := parseHex(e.Name())
		if !ok || c.needed(sum) || c.marked[sum] {
			continue
		}
		free, err := lockTree(c.s.layerDir(diffIDOf(sum)))
		if err != nil {
			c.todo = append(c.todo, sum)
			continue
		}
		free()
	}
	c.listed, c.listedAt = true, tx.Generation()
	return nil
}

// want puts a layer on the list unless it is marked. One that is held, but has no
// record yet, has its bodies held by the import that makes it.
func (c *collection) want(tx *index.Tx, sum index.Sum) error {
	if c.marked[sum] {
		return nil
	}
	l, err := tx.Layer(digest.Digest(diffIDOf(sum)))
	if errors.Is(err, index.ErrNotFound) || l.Additional != "" || c.s.graph != nil {
		return nil // the bodies are in another store
	}
	if err == nil {
		c.todo = append(c.todo, sum)
	}
	return err
}

// guarded runs fn in a transaction for which all marks are current.
func (c *collection) guarded(ctx context.Context, run func(context.Context, func(*index.Tx) error) error, fn func(*index.Tx) error) error {
	for {
		err := run(ctx, func(tx *index.Tx) error {
			if err := c.current(tx); err != nil {
				return err
			}
			return fn(tx)
		})
		if !errors.Is(err, errStale) {
			return err
		}
		if err := c.markTodo(ctx); err != nil {
			return err
		}
	}
}

func (c *collection) view(ctx context.Context, fn func(*index.Tx) error) error {
	return c.s.view(ctx, fn)
}

func (c *collection) update(ctx context.Context, fn func(*index.Tx) error) error {
	return c.s.index.DB.Update(ctx, "gc", fn)
}

func (c *collection) exclude(ctx context.Context, fn func(*index.Tx) error) error {
	return c.s.index.Exclude(ctx, "gc", fn)
}

// markAll marks everything that is needed now.
func (c *collection) markAll(ctx context.Context) error {
	return c.guarded(ctx, c.view, func(*index.Tx) error { return nil })
}

// markTodo marks the bodies of the layers on the list. A layer that was removed
// meanwhile is left out, and asked for again should it come back.
func (c *collection) markTodo(ctx context.Context) error {
	for _, sum := range c.todo {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := diffIDOf(sum)
		err := c.markLayer(filepath.Join(c.s.layerDir(d), "tree"), !c.needed(sum))
		if errors.Is(err, fs.ErrNotExist) {
			known, kerr := c.s.hasLayer(ctx, d)
			if kerr == nil && !known {
				continue
			}
		}
		if err != nil && !c.s.isQuarantined(d) { // nothing of it can be used any more
			return fmt.Errorf("layer %s: %w", d, err)
		}
		c.marked[sum] = true
	}
	return nil
}

// markLayer marks the bodies of a layer and, of one whose record is gone, their
// places. When its tree cannot be read nobody can tell which they are, and nothing
// must be removed.
func (c *collection) markLayer(path string, places bool) error {
	t, err := tree.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w; run `layerfs check --repair`", ErrDamaged, err)
	}
	defer t.Close()
	return t.EachBody(func(b tree.Body) error {
		if places && b.Place.Pack != 0 {
			if _, err := c.ranges.Append(packRange{blob.PackID(b.Place.Pack), b.Place.Offset, b.Size}); err != nil {
				return err
			}
		}
		return c.live.Put(b.Sum, 1)
	})
}

// currentBlobs brings the set of the blobs that records need up to date.
func (c *collection) currentBlobs(tx *index.Tx) error {
	if c.blobs != nil && c.known == tx.Generation() {
		return nil
	}
	c.blobs, c.corrections, c.known = map[blob.Sum]bool{}, map[blob.Sum]bool{}, tx.Generation()
	gone := c.without.keys()
	need := func(d digest.Digest) { c.blobs[sumOf(d)] = true }
	err := tx.EachImage(func(img index.Image) error {
		if gone[img.ID.Encoded()] {
			return nil
		}
		need(img.Config.Digest)
		for _, m := range img.Manifests {
			need(m.Descriptor.Digest)
			if img.IsArtifact() {
				for _, l := range m.Layers {
					need(l.Digest)
				}
			}
			for _, d := range m.Indexes {
				need(d.Digest)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.currentForms(tx); err != nil {
		return err
	}
	return tx.EachOwnedData(func(o index.Owner, _ []byte, d index.Data) error {
		if !gone[o.ID] {
			need(d.Digest)
		}
		return nil
	})
}
