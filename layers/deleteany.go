package layers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// Delete removes an image, a layer record or a container without asking who needs it,
// and frees what nothing needs then. Containers of a removed image, and records on a
// removed record, keep their layers. It returns ErrNotAnID, and ErrLayerUsedByImage or
// the like for a ChainID: without a record of its own there is nothing to remove.
func (s *Store) Delete(ctx context.Context, nameOrID string) (*Removed, error) {
	it, err := s.Item(ctx, nameOrID)
	if err != nil {
		return &Removed{}, err
	}
	if it.Kind == ItemContainer {
		return s.deleteContainers(ctx, it.ID)
	}
	return s.remove(ctx, "delete", false, 1, func(tx *index.Tx, h *holds, _ int) (*Removed, error) {
		it, err := resolveItem(tx, nameOrID)
		if err != nil {
			return nil, err
		}
		if it.Kind == ItemLayer {
			ns, err := readNodes(tx)
			if err != nil {
				return nil, err
			}
			if n := ns.nodes[it.ID]; !n.record {
				return nil, ns.unused(n)
			}
			return dropRecord(tx, h, ns.records[it.ID])
		}
		img, err := tx.Image(it.digest())
		if err != nil {
			return nil, err
		}
		return dropImage(tx, h, img, it.Names)
	})
}

// deleteContainers removes containers whatever writes into them, and frees what
// only they needed.
func (s *Store) deleteContainers(ctx context.Context, ids ...string) (*Removed, error) {
	out := &Removed{}
	var failed []error
	for _, id := range ids {
		_, err := s.DeleteContainer(ctx, id, true)
		if errors.Is(err, ErrContainerUnknown) {
			continue // somebody was faster
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("container %.12s: %w", id, err))
			continue
		}
		out.Containers = append(out.Containers, id)
	}
	if len(out.Containers) > 0 {
		failed = append(failed, s.free(ctx, out, false))
	}
	return out, errors.Join(failed...)
}

// Wipe removes all images, layer records and containers, with their big data, and
// frees their space. What a lease holds stays on disk until it ends; what a mount has
// open until it is closed.
func (s *Store) Wipe(ctx context.Context) (*Removed, error) {
	if err := s.writable(); err != nil {
		return &Removed{}, err
	}
	containers, err := s.Containers(ctx, nil)
	if err != nil {
		return &Removed{}, err
	}
	var ids []string
	for _, c := range containers {
		ids = append(ids, c.ID)
	}
	sum, err := s.deleteContainers(ctx, ids...)
	failed := []error{err}
	images, records, before, err := s.everything(ctx)
	if err != nil {
		return sum, errors.Join(append(failed, err)...)
	}
	r, err := s.remove(ctx, "wipe", false, len(images)+len(records), func(tx *index.Tx, _ *holds, i int) (*Removed, error) {
		if i < len(images) {
			return wipeImage(tx, images[i])
		}
		return wipeRecord(tx, records[i-len(images)])
	})
	sum.add(r)
	sum.Freed, sum.InUse, sum.Deferred = sum.Freed+r.Freed, r.InUse, r.Deferred
	_, _, after, verr := s.everything(ctx)
	for d := range before {
		if !after[d] {
			sum.Layers = append(sum.Layers, d)
		}
	}
	slices.Sort(sum.Layers)
	return sum, errors.Join(append(failed, err, verr)...)
}

// wipeImage leaves the records of the layers to the collection that follows: nothing
// will need them.
func wipeImage(tx *index.Tx, id digest.Digest) (*Removed, error) {
	err := tx.DeleteImage(id)
	if errors.Is(err, index.ErrNotFound) {
		return &Removed{}, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := namesOf(tx, id)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := tx.DeleteName(name); err != nil {
			return nil, err
		}
	}
	return &Removed{Untagged: names, Deleted: []digest.Digest{id}}, tx.DeleteAllData(index.Owner{Kind: index.KindImage, ID: id.Encoded()})
}

func wipeRecord(tx *index.Tx, id string) (*Removed, error) {
	err := tx.DeleteLayerRecord(id)
	if errors.Is(err, index.ErrNotFound) {
		return &Removed{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &Removed{Records: []string{id}}, tx.DeleteAllData(index.Owner{Kind: index.KindLayer, ID: id})
}

// everything returns the IDs of all images, layer records and layers.
func (s *Store) everything(ctx context.Context) (images []digest.Digest, records []string, layers map[digest.Digest]bool, err error) {
	err = s.view(ctx, func(tx *index.Tx) error {
		images, records, layers = nil, nil, map[digest.Digest]bool{}
		return errors.Join(
			tx.EachRawImage(func(raw index.Raw) error { images = append(images, raw.Digest()); return nil }),
			tx.EachHead(index.HeadLayerRecords, func(key []byte, _ index.Head) error { records = append(records, string(key)); return nil }),
			tx.EachRawLayer(func(raw index.Raw) error { layers[raw.Digest()] = true; return nil }))
	})
	return images, records, layers, err
}

// Size returns the size of an item: of an image the sum of the sizes of the files in
// its layers, of a layer record or ChainID the size of its tar, of a container that of
// its image; -1 when it is not known, because nothing was applied or its layers are
// missing.
func (s *Store) Size(ctx context.Context, nameOrID string) (int64, error) {
	it, err := s.Item(ctx, nameOrID)
	if err != nil {
		return -1, err
	}
	switch it.Kind {
	case ItemImage:
		img, err := s.Image(ctx, it.ID)
		if errors.Is(err, ErrDamaged) {
			return -1, nil
		}
		if err != nil {
			return -1, err
		}
		return img.Size, nil
	case ItemLayer:
		n, err := s.LayerNode(ctx, it.ID)
		if err != nil {
			return -1, err
		}
		return n.Size, nil
	}
	c, err := s.Container(ctx, it.ID)
	if err != nil {
		return -1, err
	}
	size := int64(0)
	err = s.index.View(ctx, func(tx *index.Tx) error {
		for _, d := range c.Layers {
			l, err := tx.Layer(d)
			if errors.Is(err, index.ErrNotFound) {
				size = -1
				return nil
			}
			if err != nil {
				return err
			}
			size += l.Bytes
		}
		return nil
	})
	return size, err
}
