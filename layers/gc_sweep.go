package layers

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/flock"
)

const (
	// sweepBatch is how many files are taken out of the way in one transaction.
	sweepBatch = 128
	// sweepChunk is how many bodies are forgotten in one transaction.
	sweepChunk = 1024
	// scanChunk is how many bodies are looked at in one transaction.
	scanChunk = 16384
)

var errStop = errors.New("stop")

// sweepRows removes the records of layers that nothing needs: those that a lease
// or an import has kept.
func (c *collection) sweepRows(ctx context.Context) error {
	var dead []DiffID
	find := func(tx *index.Tx) error {
		dead = dead[:0]
		return tx.EachRawLayer(func(l index.Raw) error {
			if d := l.Digest(); !c.needed(sumOf(d)) {
				dead = append(dead, DiffID(d))
			}
			return nil
		})
	}
	if err := c.guarded(ctx, c.view, find); err != nil || len(dead) == 0 || c.dryRun {
		return err
	}
	return c.guarded(ctx, c.update, func(tx *index.Tx) error {
		if err := find(tx); err != nil {
			return err
		}
		for _, d := range dead {
			if err := tx.DeleteLayer(d.digest()); err != nil {
				return err
			}
		}
		return nil
	})
}

// sweepLayers removes the directories of layers that nothing needs, but for those
// that somebody has open: their bodies are needed too.
func (c *collection) sweepLayers(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(c.s.root, "layers"))
	if err != nil {
		return err
	}
	var dead []index.Sum
	for _, e := range entries {
		if sum, ok := parseHex(e.Name()); ok && !c.needed(sum) {
			dead = append(dead, sum)
		}
	}
	for len(dead) > 0 {
		n := min(len(dead), sweepBatch)
		if err := c.sweepSomeLayers(ctx, dead[:n]); err != nil {
			return err
		}
		dead = dead[n:]
	}
	for _, d := range c.out.InUse {
		if err := c.markLayer(filepath.Join(c.s.layerDir(d), "tree"), true); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func parseHex(name string) (sum index.Sum, ok bool) {
	n, err := hex.Decode(sum[:], []byte(name[:min(len(name), 2*len(sum))]))
	return sum, err == nil && n == len(sum) && hex.EncodeToString(sum[:]) == name
}

func (c *collection) sweepSomeLayers(ctx context.Context, dead []index.Sum) error {
	usage := make([]int64, len(dead))
	for i, sum := range dead {
		usage[i] = diskUsage(c.s.layerDir(diffIDOf(sum)))
	}
	sweep := func(to string) func(*index.Tx) error {
		return func(tx *index.Tx) error {
			for i, sum := range dead {
				if err := c.sweepLayer(tx, diffIDOf(sum), usage[i], to); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if c.dryRun {
		return c.guarded(ctx, c.view, sweep(""))
	}
	return c.moved(func(dir string) error { return c.guarded(ctx, c.exclude, sweep(dir)) })
}

// sweepLayer moves the directory of a layer below to, unless it is needed after
// all or in use.
func (c *collection) sweepLayer(tx *index.Tx, d DiffID, usage int64, to string) error {
	if c.needed(sumOf(d.digest())) {
		return nil
	}
	if _, err := tx.Layer(d.digest()); !c.dryRun && !errors.Is(err, index.ErrNotFound) {
		return err
	}
	dir := c.s.layerDir(d)
	free, err := lockTree(dir)
	if err != nil {
		c.out.InUse = append(c.out.InUse, d)
		return nil
	}
	defer free()
	if !c.dryRun {
		if err := c.s.disk.Rename(dir, filepath.Join(to, d.Hex())); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
	}
	c.out.Layers = append(c.out.Layers, d)
	c.out.Bytes += usage
	return nil
}

// lockTree takes the lock of a layer's tree, which those who have the layer open
// share; it returns ErrInUse when there are any. A tree that is not there is no
// obstacle.
func lockTree(dir string) (free func(), err error) {
	f, err := os.Open(filepath.Join(dir, "tree"))
	if err != nil {
		return func() {}, nil
	}
	if ok, err := flock.Try(f); !ok || err != nil {
		f.Close()
		return nil, ErrInUse
	}
	return func() { f.Close() }, nil
}

// sweepBodies forgets the bodies that no layer holds.
func (c *collection) sweepBodies(ctx context.Context) error {
	return c.eachBody(ctx, func(chunk []bodyAt) error {
		var dead []index.Sum
		for _, b := range chunk {
			if _, ok := c.live.Get(b.sum); !ok {
				dead = append(dead, b.sum)
			}
		}
		for len(dead) > 0 {
			n := min(len(dead), sweepChunk)
			if err := c.forget(ctx, dead[:n]); err != nil {
				return err
			}
			dead = dead[n:]
		}
		return nil
	})
}

type bodyAt struct {
	sum  index.Sum
	body index.Body
}

// eachBody calls fn for all bodies of the index, many at a time and outside of any
// transaction.
func (c *collection) eachBody(ctx context.Context, fn func([]bodyAt) error) error {
	var from index.Sum
	for more := true; more; {
		var chunk []bodyAt
		err := c.view(ctx, func(tx *index.Tx) error {
			chunk, more = chunk[:0], false
			return tx.EachBody(from, func(sum index.Sum, b index.Body) error {
				if len(chunk) == scanChunk {
					from, more = sum, true
					return errStop
				}
				chunk = append(chunk, bodyAt{sum, b})
				return nil
			})
		})
		if err != nil && !errors.Is(err, errStop) {
			return err
		}
		if err := fn(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) forget(ctx context.Context, dead []index.Sum) error {
	if c.dryRun {
		c.out.Bodies += int64(len(dead))
		return nil
	}
	n := int64(0)
	err := c.guarded(ctx, c.update, func(tx *index.Tx) error {
		n = 0
		for _, sum := range dead {
			if _, ok := c.live.Get(sum); ok {
				continue // an import has begun to rely on it
			}
			n++
			if err := tx.DeleteBody(sum); err != nil {
				return err
			}
		}
		return nil
	})
	c.out.Bodies += n
	return err
}

// sweepObjects removes the files of large bodies that the index does not know.
func (c *collection) sweepObjects(ctx context.Context) error {
	var batch []blob.Sum
	err := c.s.blobs.WalkObjects(func(sum blob.Sum, _ int64) error {
		if _, ok := c.live.Get(sum); ok {
			return nil
		}
		if batch = append(batch, sum); len(batch) < sweepBatch {
			return nil
		}
		full := batch
		batch = nil
		return c.sweepFiles(ctx, full, c.deadObject, c.s.blobs.MoveObject, &c.out.Objects)
	})
	if err != nil {
		return err
	}
	return c.sweepFiles(ctx, batch, c.deadObject, c.s.blobs.MoveObject, &c.out.Objects)
}

func (c *collection) deadObject(tx *index.Tx, sum blob.Sum) (bool, error) {
	if _, ok := c.live.Get(sum); ok || c.dryRun {
		return !ok, nil
	}
	_, known, err := tx.Body(sum)
	return !known, err
}

// sweepFiles takes files that are dead out of the way and removes them. What move
// returns is the space of the file.
func (c *collection) sweepFiles(ctx context.Context, sums []blob.Sum, dead func(*index.Tx, blob.Sum) (bool, error), move func(sum blob.Sum, to string) (int64, error), count *int64) error {
	if len(sums) == 0 {
		return nil
	}
	sweep := func(dir string) func(*index.Tx) error {
		return func(tx *index.Tx) error {
			for _, sum := range sums {
				isDead, err := dead(tx, sum)
				if err != nil {
					return err
				}
				if !isDead {
					continue
				}
				to := ""
				if dir != "" {
					to = filepath.Join(dir, hex.EncodeToString(sum[:]))
				}
				n, err := move(sum, to)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return err
				}
				*count++
				c.out.Bytes += n
			}
			return nil
		}
	}
	if c.dryRun {
		return c.guarded(ctx, c.view, sweep(""))
	}
	return c.moved(func(dir string) error { return c.guarded(ctx, c.exclude, sweep(dir)) })
}

// sweepBlobs removes the blobs and corrections that no record, lease or import
// needs.
func (c *collection) sweepBlobs(ctx context.Context) error {
	if err := c.guarded(ctx, c.view, c.currentBlobs); err != nil {
		return err
	}
	deadBlob := func(tx *index.Tx, sum blob.Sum) (bool, error) {
		err := c.currentBlobs(tx)
		return !c.blobs[sum] && !c.holds.blobs[sum], err
	}
	deadCorrection := func(tx *index.Tx, sum blob.Sum) (bool, error) {
		err := c.currentBlobs(tx)
		return !c.corrections[sum] && !c.holds.blobs[sum], err
	}
	return errors.Join(
		c.sweepNamed(ctx, c.s.blobs.WalkBlobs, deadBlob, c.s.blobs.MoveBlob),
		c.sweepNamed(ctx, c.s.blobs.WalkCorrections, deadCorrection, c.s.blobs.MoveCorrection))
}

// sweepNamed removes the dead ones of the files that walk lists. Whether one may be
// dead is first asked without a transaction that others wait for.
func (c *collection) sweepNamed(ctx context.Context, walk func(func(blob.Sum, int64) error) error, dead func(*index.Tx, blob.Sum) (bool, error), move func(blob.Sum, string) (int64, error)) error {
	var all []blob.Sum
	if err := walk(func(sum blob.Sum, _ int64) error { all = append(all, sum); return nil }); err != nil {
		return err
	}
	var found []blob.Sum
	err := c.view(ctx, func(tx *index.Tx) error {
		found = found[:0]
		for _, sum := range all {
			isDead, err := dead(tx, sum)
			if err != nil {
				return err
			}
			if isDead {
				found = append(found, sum)
			}
		}
		return nil
	})
	for err == nil && len(found) > 0 {
		n := min(len(found), sweepBatch)
		if err = c.view(ctx, c.currentBlobs); err == nil { // so that it need not be done while others wait
			err = c.sweepFiles(ctx, found[:n], dead, move, &c.out.Blobs)
		}
		found = found[n:]
	}
	return err
}
