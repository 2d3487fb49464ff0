package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/spool"
	"github.com/layerfs/layerfs/tarsplit"
)

// indexLost returns ErrDamaged when there are layers but neither an index nor a
// journal: an import makes the index before it puts its layers in place. Taken for
// an empty store, it would be one after the next collection.
func (s *Store) indexLost() error {
	info, err := os.Lstat(s.index.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() > 0 || s.index.HasJournal() {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "layers"))
	if err != nil || len(entries) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s is missing or empty, but there are %d layers; run `layerfs check --repair`", ErrDamaged, s.index.Path(), len(entries))
}

// rebuildIndex makes a new index: the records from the journal, the bodies from the
// trees. Where the journal is not whole, layers that lie on the disk and images whose
// manifest, config and layers are all there get records too.
func (s *Store) rebuildIndex(ctx context.Context) (*index.Rebuilt, error) {
	aside, err := s.aside("index.db")
	if err != nil {
		return nil, err
	}
	b := &rebuilder{s: s, ctx: ctx, bodies: spool.NewArray[blob.Placed](s.spoolDir())}
	defer b.bodies.Close()
	return s.index.DB.Rebuild(ctx, aside, b.run)
}

type rebuilder struct {
	s      *Store
	ctx    context.Context
	bodies *spool.Array[blob.Placed]
	found  []index.Layer // that lie on the disk
}

func (b *rebuilder) run(what *index.Rebuilt, update func(func(*index.Tx) error) error) error {
	if err := b.scanLayers(); err != nil {
		return err
	}
	if !what.Whole {
		if err := update(b.addLayers); err != nil {
			return err
		}
		if err := b.addImages(update); err != nil {
			return err
		}
	}
	return b.addBodies(update)
}

// scanLayers reads the trees of all layers.
func (b *rebuilder) scanLayers() error {
	entries, err := os.ReadDir(filepath.Join(b.s.root, "layers"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if d.Validate() != nil {
			continue
		}
		if err := b.scanLayer(DiffID(d)); err != nil {
			return err
		}
	}
	return nil
}

// scanLayer passes over a damaged tree: the repair of the layer comes later.
func (b *rebuilder) scanLayer(d DiffID) error {
	path := filepath.Join(b.s.layerDir(d), "tree")
	t, err := tree.Open(path)
	if err != nil {
		return nil
	}
	defer t.Close()
	if t.Verify() != nil {
		return nil
	}
	b.found = append(b.found, b.layerRecord(d, t))
	return t.EachBody(func(body tree.Body) error {
		_, err := b.bodies.Append(blob.Placed{Sum: body.Sum, Size: body.Size, Place: place(body)})
		return err
	})
}

// layerRecord describes a layer by its files.
func (b *rebuilder) layerRecord(d DiffID, t *tree.Tree) index.Layer {
	l := &stagedLayer{diffID: d}
	meta := t.Size()
	if f, err := os.Open(filepath.Join(b.s.layerDir(d), "split.zst")); err == nil {
		defer f.Close()
		if info, err := f.Stat(); err == nil {
			meta += info.Size()
			if tar, err := tarsplit.Open(f, info.Size(), nil); err == nil {
				l.size = tar.Size()
			}
		}
	}
	return l.record(t.Stats(), meta)
}

// addLayers adds records of layers that have none.
func (b *rebuilder) addLayers(tx *index.Tx) error {
	for _, l := range b.found {
		_, err := tx.Layer(l.DiffID)
		if err == nil {
			continue
		}
		if !errors.Is(err, index.ErrNotFound) {
			return err
		}
		if l.Slot, err = tx.NextLayerSlot(); err != nil {
			return err
		}
		if err := tx.PutLayer(l); err != nil {
			return err
		}
	}
	return nil
}

// addImages adds records of images that have none and are whole. They have no names.
func (b *rebuilder) addImages(update func(func(*index.Tx) error) error) error {
	return b.s.blobs.WalkBlobs(func(sum blob.Sum, size int64) error {
		if size > maxDocument {
			return nil
		}
		raw, err := b.s.blobs.Blob(sum)
		if err != nil || !bytes.Contains(raw, []byte(`"layers"`)) {
			return nil // damaged, or no manifest
		}
		in, ok := b.imageOf(raw, sum)
		if !ok {
			return nil
		}
		return update(func(tx *index.Tx) error {
			for _, d := range in.diffIDs {
				if _, err := tx.Layer(digest.Digest(d)); err != nil {
					return nil // a layer is lost, or the image was removed
				}
			}
			if err := putLayers(tx, in); err != nil {
				return err
			}
			_, err := tx.Image(in.id)
			if errors.Is(err, index.ErrNotFound) {
				return putImage(tx, in)
			}
			return err
		})
	})
}

// imageOf returns the image that a blob is the manifest of.
func (b *rebuilder) imageOf(raw []byte, sum blob.Sum) (*incoming, bool) {
	desc := ocispec.Descriptor{Digest: digestOf(sum), Size: int64(len(raw))}
	m, err := parseManifest(raw, desc)
	if err != nil {
		return nil, false
	}
	cfg, err := b.s.blobs.Blob(sumOf(m.Config.Digest))
	if err != nil {
		return nil, false
	}
	c, ids, err := parseConfig(cfg, m)
	if err != nil {
		return nil, false
	}
	desc.MediaType = m.MediaType
	in := &incoming{
		id: m.Config.Digest, desc: desc, rawManifest: raw, rawConfig: cfg,
		manifest: m, config: c, diffIDs: ids, kept: map[digest.Digest]int64{},
	}
	for _, l := range m.Layers {
		if size, err := b.s.blobs.BlobSize(sumOf(l.Digest)); err == nil && size == l.Size {
			in.kept[l.Digest] = size
		}
	}
	return in, true
}

// addBodies adds the places of all bodies in the order of their digests.
func (b *rebuilder) addBodies(update func(func(*index.Tx) error) error) error {
	list := b.bodies.Slice()
	slices.SortFunc(list, func(x, y blob.Placed) int { return bytes.Compare(x.Sum[:], y.Sum[:]) })
	for chunk := range slices.Chunk(list, sweepChunk) {
		err := update(func(tx *index.Tx) error {
			for _, p := range chunk {
				if _, err := tx.AddBody(p.Sum, index.Body{Pack: uint64(p.Place.Pack), Offset: p.Place.Offset, Size: p.Size}); err != nil {
					return err
				}
			}
			return b.ctx.Err()
		})
		if err != nil {
			return fmt.Errorf("bodies: %w", err)
		}
	}
	return nil
}
