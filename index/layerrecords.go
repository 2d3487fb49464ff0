package index

import (
	"errors"
	"fmt"
)

func (r LayerRecord) head() Head {
	h := Head{Time: r.Created}
	for _, d := range r.Layers {
		h.Layers = append(h.Layers, sumOf(d))
	}
	return h
}

// LayerRecord returns the layer record with the ID, or ErrNotFound.
func (tx *Tx) LayerRecord(id string) (LayerRecord, error) {
	var r LayerRecord
	return r, tx.get(bucketLayerRecords, id, &r)
}

// LayerRecordNamed returns the layer record that has the name, or ErrNotFound.
func (tx *Tx) LayerRecordNamed(name string) (LayerRecord, error) {
	b := tx.bucket(bucketLayerNames)
	if b == nil || name == "" {
		return LayerRecord{}, ErrNotFound
	}
	id := b.Get([]byte(name))
	if id == nil {
		return LayerRecord{}, ErrNotFound
	}
	return tx.LayerRecord(string(id))
}

// PutLayerRecord adds or replaces a layer record. The names that it has are its
// own afterwards; that nobody else has one of them is the caller's to see to.
func (tx *Tx) PutLayerRecord(r LayerRecord) error {
	names := tx.bucket(bucketLayerNames)
	old, err := tx.LayerRecord(r.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	for _, name := range old.Names {
		if err := names.Delete([]byte(name)); err != nil {
			return fmt.Errorf("index: layer name %q: %w", name, err)
		}
	}
	for _, name := range r.Names {
		if err := names.Put([]byte(name), []byte(r.ID)); err != nil {
			return fmt.Errorf("index: layer name %q: %w", name, err)
		}
	}
	return tx.put(bucketLayerRecords, r.ID, r.head(), r)
}

// DeleteLayerRecord removes a layer record and its names, or returns ErrNotFound.
func (tx *Tx) DeleteLayerRecord(id string) error {
	r, err := tx.LayerRecord(id)
	if err != nil {
		return err
	}
	for _, name := range r.Names {
		if err := tx.bucket(bucketLayerNames).Delete([]byte(name)); err != nil {
			return fmt.Errorf("index: layer name %q: %w", name, err)
		}
	}
	return tx.remove(bucketLayerRecords, id)
}

// EachLayerRecord calls fn for every layer record in the order of their IDs.
func (tx *Tx) EachLayerRecord(fn func(LayerRecord) error) error {
	return each(tx, bucketLayerRecords, fn)
}
