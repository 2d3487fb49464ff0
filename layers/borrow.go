package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/layers/union"
)

// This file is about borrowed layers: layers of additional stores that images of
// this store stand on. This store has a record of them, so that everything that
// reads records knows them, but no content.

// borrowable returns the records of those of the layers that an additional store
// has, ready to be put into this one but for the slot.
func (s *Store) borrowable(ctx context.Context, ids []DiffID) (map[DiffID]index.Layer, error) {
	found := map[DiffID]index.Layer{}
	for _, st := range s.lowers() {
		err := st.view(ctx, func(tx *index.Tx) error {
			for _, d := range ids {
				if _, ok := found[d]; ok {
					continue
				}
				l, err := tx.Layer(digest.Digest(d))
				switch {
				case errors.Is(err, index.ErrNotFound):
				case err != nil:
					return err
				case l.Additional == "": // what it has borrowed itself lies elsewhere
					l.Additional, l.Slot, l.Blobs = st.Root(), 0, slices.Clone(l.Blobs)
					found[d] = l
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("additional store %s: %w", st.Root(), err)
		}
	}
	return found, nil
}

// putBorrowed adds the records of the borrowed layers of a stack.
func putBorrowed(tx *index.Tx, stack []DiffID, borrowed map[DiffID]index.Layer) error {
	for _, d := range stack {
		l, ok := borrowed[d]
		if !ok {
			continue
		}
		old, err := tx.Layer(l.DiffID)
		switch {
		case errors.Is(err, index.ErrNotFound):
			if l.Slot, err = tx.NextLayerSlot(); err != nil {
				return err
			}
		case err != nil:
			return err
		case old.Additional == "" || old.Additional == l.Additional:
			continue
		default: // it has been found in another store
			l.Slot, l.Created = old.Slot, old.Created
		}
		if err := tx.PutLayer(l); err != nil {
			return err
		}
	}
	return nil
}

// adopt makes an image of an additional store an image of this one, without a name:
// its documents are copied, its layers are borrowed. It returns how the image is
// called here: by its ID, or as it was when this store has it already, or nobody.
func (s *Store) adopt(ctx context.Context, nameOrID string) (string, error) {
	if len(s.additional) == 0 {
		return nameOrID, nil
	}
	var img index.Image
	st, err := s.index.find(ctx, func(tx *index.Tx) (err error) {
		img, _, err = resolve(tx, nameOrID)
		return err
	})
	if st == nil || err != nil {
		return nameOrID, nil // the caller finds out the same, or finds it
	}
	return string(img.ID), s.adoptFrom(ctx, st, img)
}

func (s *Store) adoptFrom(ctx context.Context, st lower, img index.Image) (err error) {
	lease, err := s.NewLease(ctx, "adopt")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	docs := []digest.Digest{img.Config.Digest}
	for _, m := range img.Manifests {
		docs = append(docs, m.Descriptor.Digest)
	}
	if err := errors.Join(lease.holdBlobs(docs...), lease.holdLayers(diffIDs(img.Layers)), s.index.Settle(ctx)); err != nil {
		return err
	}
	for _, d := range docs {
		raw, err := st.Blob(d)
		if err != nil {
			return err
		}
		if _, err := s.blobs.PutBlob(raw); err != nil {
			return err
		}
	}
	stack := (&Image{Image: img}).DiffIDs()
	borrowed, err := s.borrowable(ctx, stack)
	if err != nil {
		return err
	}
	return s.index.Update(ctx, "adopt", func(tx *index.Tx) error { return putAdopted(tx, img, stack, borrowed) })
}

func putAdopted(tx *index.Tx, img index.Image, stack []DiffID, borrowed map[DiffID]index.Layer) (err error) {
	if err := putBorrowed(tx, stack, borrowed); err != nil {
		return err
	}
	for _, d := range img.Layers {
		if _, err := tx.Layer(d); err != nil {
			return fmt.Errorf("image %s: layer %s is in no store: %w", img.ID, d, ErrDamaged)
		}
	}
	if _, err := tx.Image(img.ID); err == nil {
		return nil // another process was faster
	}
	if img.Slot, err = tx.NextViewSlot(); err != nil {
		return err
	}
	return tx.PutImage(img)
}

// openLower opens a layer in the first additional store that has it.
func (s *Store) openLower(d DiffID) (*Layer, error) {
	for _, st := range s.lowers() {
		l, err := st.OpenLayer(d)
		if !errors.Is(err, ErrLayerUnknown) {
			return l, err
		}
	}
	return nil, s.lentBy(d)
}

// lentBy is the error for a layer that no store has: if it was borrowed, it says
// from whom.
func (s *Store) lentBy(d DiffID) error {
	unknown := fmt.Errorf("%w: %s", ErrLayerUnknown, d)
	var rec index.Layer
	err := s.view(context.Background(), func(tx *index.Tx) (err error) {
		rec, err = tx.Layer(digest.Digest(d))
		return err
	})
	if err != nil || rec.Additional == "" {
		return s.explainGone(unknown)
	}
	return fmt.Errorf("%w: layer %s lies in %s; mount or restore that store, name it with --additional-store, or load the image again",
		ErrStoreGone, d, rec.Additional)
}

// A stackOfTrees is the union of trees that were opened for it, those of staged
// layers and those of layers in a store.
type stackOfTrees struct {
	*union.Stack
	trees  []*tree.Tree
	layers []*Layer   // nil for a staged one
	lent   []lentBody // that hard links lead to
}

// A lentBody is the content of a file of a layer of an additional store.
type lentBody struct {
	layer *Layer
	ino   tree.Ino
}

// use notes that a new layer shares the file of a node.
func (st *stackOfTrees) use(s *Store, n union.Node) {
	if l := st.layers[n.Layer]; l != nil && l.s != s && n.Kind == tree.KindRegular {
		st.lent = append(st.lent, lentBody{l, n.Ino})
	}
}

// copyLent copies bodies out of additional stores, because a layer of this store
// now has them itself.
func (im *importer) copyLent(bodies []lentBody) error {
	if len(bodies) == 0 {
		return nil
	}
	ingest, err := im.s.blobs.NewIngest(im.temp.path, im.knownBodies)
	if err != nil {
		return err
	}
	if err := im.lease.holdPack(ingest.PackID()); err != nil {
		return errors.Join(err, ingest.Abort())
	}
	if err := im.lease.holdPack(ingest.PackID()); err != nil {
		return errors.Join(err, ingest.Abort())
	}
	w := ingest.Writer()
	for _, b := range bodies {
		if err = b.copyTo(w); err != nil {
			break
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, ingest.Abort())
	}
	return ingest.Commit(im.register)
}

func (b lentBody) copyTo(w *blob.BodyWriter) error {
	stored, ok, err := b.layer.tree.Body(b.ino)
	if err != nil || !ok {
		return treeError(err)
	}
	r, err := layerBodies{b.layer}.Body(stored.Sum, stored.Size)
	if err != nil {
		return err
	}
	_, err = w.Put(io.NewSectionReader(r, 0, stored.Size), stored.Size)
	return err
}

func (st *stackOfTrees) release() {
	if st == nil {
		return
	}
	for i, t := range st.trees { // they were only read
		if l := st.layers[i]; l != nil {
			_ = l.Close()
		} else {
			_ = t.Close()
		}
	}
}
