package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/layers/union"
)

// publish makes the staged layers permanent, in this order: bodies on disk, bodies
// in the index, trees and split metadata on disk, their directories renamed into
// place. It returns the records that make the layers visible once they are in the
// index.
func (im *importer) publish(ctx context.Context, in *incoming, staged []*stagedLayer) ([]index.Layer, error) {
	register := im.register
	if im.healing != nil {
		register = im.healing.register
	}
	if err := im.ingest.Commit(register); err != nil {
		return nil, err
	}
	var records []index.Layer
	var files []string
	for i, l := range staged {
		if l == nil || l.bodiesOnly {
			continue
		}
		rec, err := im.finish(ctx, l, in.diffIDs[:i], staged)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.diffID, err)
		}
		records = append(records, rec)
		files = append(files, filepath.Join(l.dir, "tree"), filepath.Join(l.dir, "split.zst"), l.dir)
	}
	if err := im.s.disk.SyncMany(im.temp.path, slices.Values(files)); err != nil {
		return nil, err
	}
	for _, l := range staged {
		if l != nil && !l.bodiesOnly {
			if err := im.replace(l); err != nil {
				return nil, fmt.Errorf("layer %s: %w", l.diffID, err)
			}
		}
	}
	return records, im.s.disk.SyncDir(filepath.Join(im.s.root, "layers"))
}

// register records bodies that have just reached the disk, in transactions so short
// that readers never wait long: how many bodies fit into one depends on how far they
// are scattered over the index and on the disk.
func (im *importer) register(placed []blob.Placed) ([]bool, error) {
	kept := make([]bool, 0, len(placed))
	for len(placed) > 0 {
		n := min(len(placed), max(im.chunk, registerMin))
		start := time.Now()
		k, err := im.registerChunk(placed[:n])
		if err != nil {
			return nil, err
		}
		kept = append(kept, k...)
		placed = placed[n:]
		switch took := time.Since(start); {
		case took > registerTime:
			im.chunk = n / 2
		case took < registerTime/2:
			im.chunk = 2 * n
		}
	}
	return kept, nil
}

const (
	registerMin  = 256
	registerTime = 8 * time.Millisecond
)

func (im *importer) registerChunk(placed []blob.Placed) ([]bool, error) {
	kept := make([]bool, len(placed))
	err := im.s.index.Update(context.Background(), "load", func(tx *index.Tx) error {
		for i, p := range placed {
			b := index.Body{Pack: uint64(p.Place.Pack), Offset: p.Place.Offset, Size: p.Size}
			added, err := tx.AddBody(p.Sum, b)
			if err != nil {
				return err
			}
			kept[i] = added
			if !added { // an object that another import has put in the same place
				old, _, err := tx.Body(p.Sum)
				if err != nil {
					return err
				}
				kept[i] = old == b
			}
		}
		return nil
	})
	return kept, err
}

// places tells a tree where its bodies lie.
func (s *Store) places(ctx context.Context) func([]tree.Sum) ([]tree.Place, error) {
	return func(sums []tree.Sum) ([]tree.Place, error) {
		out := make([]tree.Place, len(sums))
		err := s.index.View(ctx, func(tx *index.Tx) error {
			for i, sum := range sums {
				b, ok, err := tx.Body(sum)
				if err != nil {
					return err
				}
				if !ok {
					return fmt.Errorf("%w: body %x is not in the index", ErrDamaged, sum)
				}
				out[i] = tree.Place{Pack: b.Pack, Offset: b.Offset}
			}
			return nil
		})
		return out, err
	}
}

// finish writes the tree of a layer beside its split metadata and closes both.
func (im *importer) finish(ctx context.Context, l *stagedLayer, below []DiffID, staged []*stagedLayer) (rec index.Layer, err error) {
	if err := im.resolveLinks(l, below, staged); err != nil {
		return rec, err
	}
	f, err := im.s.disk.Create(filepath.Join(l.dir, "tree"), 0o600)
	if err != nil {
		return rec, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	stats, err := l.builder.Finish(f, im.s.places(ctx))
	if err != nil {
		return rec, err
	}
	split, err := l.split.OS().Stat()
	if err != nil {
		return rec, err
	}
	info, err := f.OS().Stat()
	if err != nil {
		return rec, err
	}
	err = l.split.Close()
	l.split = nil
	return l.record(stats, split.Size()+info.Size()), err
}

// resolveLinks finds the targets of hard links to files of the layers below. The
// layer's own diff view shows copies of them, as a copy-up would have made; a
// target that is not there makes the layer invalid.
func (im *importer) resolveLinks(l *stagedLayer, below []DiffID, staged []*stagedLayer) error {
	var stack *stackOfTrees
	defer func() { stack.release() }()
	err := l.builder.LowerLinks(func(i int, path, target string) (err error) {
		if stack == nil {
			if stack, err = im.openTrees(below, staged); err != nil {
				return err
			}
		}
		n, ok, err := stack.Follow(target)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: entry %q is a hard link to %q, which is neither in this layer nor in those below it", ErrInvalidLayer, tree.Clip(path), tree.Clip(target))
		}
		if n.Kind == tree.KindDirectory {
			return fmt.Errorf("%w: entry %q is a hard link to the directory %q", ErrInvalidLayer, tree.Clip(path), tree.Clip(target))
		}
		stack.use(im.s, n)
		return l.builder.ResolveLower(i, stack.trees[n.Layer], n.Ino)
	})
	if err != nil || stack == nil {
		return err
	}
	return im.copyLent(stack.lent)
}

// openTrees opens the trees of a stack: those staged in this import, and those in
// this or another store.
func (im *importer) openTrees(below []DiffID, staged []*stagedLayer) (*stackOfTrees, error) {
	st := &stackOfTrees{}
	for _, d := range below {
		if err := im.openTree(st, d, staged); err != nil {
			st.release()
			return nil, fmt.Errorf("layer %s below: %w", d, err)
		}
	}
	st.Stack = union.New(st.trees)
	return st, nil
}

func (im *importer) openTree(st *stackOfTrees, d DiffID, staged []*stagedLayer) error {
	for _, l := range staged {
		if l != nil && !l.bodiesOnly && l.diffID == d {
			t, err := tree.Open(filepath.Join(l.dir, "tree"))
			if err == nil {
				st.trees, st.layers = append(st.trees, t), append(st.layers, nil)
			}
			return err
		}
	}
	l, err := im.s.OpenLayer(d)
	if err == nil {
		st.trees, st.layers = append(st.trees, l.Tree()), append(st.layers, l)
	}
	return err
}

// place renames a finished layer to its final name. A directory that is there
// already was left by a killed process or has just been put by another importer;
// it is as good as ours, but only ours is known to be whole, so ours replaces it.
func (im *importer) place(l *stagedLayer) error {
	final := im.s.layerDir(l.diffID)
	for try := 0; ; try++ {
		err := im.s.disk.Rename(l.dir, final)
		if !errors.Is(err, fs.ErrExist) || try == placeAttempts {
			return err
		}
		// Somebody reads the one that is there: then it is whole, and collection must
		// be able to see him.
		free, err := lockTree(final)
		if err != nil {
			return nil
		}
		free()
		old := fmt.Sprintf("%s.old%d", l.dir, try)
		if err := im.s.disk.Rename(final, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// placeAttempts is how often place makes room: once, and again for every other
// importer of the same layer that comes between.
const placeAttempts = 100
