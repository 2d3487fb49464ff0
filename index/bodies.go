package index

import (
	"encoding/binary"
	"fmt"
)

// Sum is the raw sha256 of a body.
type Sum = [32]byte

const bodyLen = 24

// Body returns where the body lies; ok is false when the store does not have it.
func (tx *Tx) Body(sum Sum) (b Body, ok bool, err error) {
	bucket := tx.bucket(bucketBodies)
	if bucket == nil {
		return Body{}, false, nil
	}
	raw := bucket.Get(sum[:])
	if raw == nil {
		return Body{}, false, nil
	}
	b, err = decodeBody(sum, raw)
	return b, err == nil, err
}

// AddBody records a body unless it is there already; it reports whether it was
// new. Callers add many bodies in the order of their sums: bbolt keeps a page in
// sorted order, and unsorted inserts cost a hundred times as much.
func (tx *Tx) AddBody(sum Sum, b Body) (added bool, err error) {
	bucket := tx.bucket(bucketBodies)
	if bucket.Get(sum[:]) != nil {
		return false, nil
	}
	bucket.FillPercent = 0.9
	if err := bucket.Put(sum[:], encodeBody(b)); err != nil {
		return false, fmt.Errorf("index: body %x: %w", sum, err)
	}
	tx.bodies.count(b, 1)
	return true, nil
}

// DeleteBody removes the record of a body; an absent one is no error.
func (tx *Tx) DeleteBody(sum Sum) error {
	b, ok, err := tx.Body(sum)
	if err != nil || !ok {
		return err
	}
	tx.bodies.count(b, -1)
	return tx.bucket(bucketBodies).Delete(sum[:])
}

// EachBody calls fn for every body in the order of their sums, beginning at the
// first sum not below from, until fn returns an error.
func (tx *Tx) EachBody(from Sum, fn func(Sum, Body) error) error {
	bucket := tx.bucket(bucketBodies)
	if bucket == nil {
		return nil
	}
	c := bucket.Cursor()
	for k, raw := c.Seek(from[:]); k != nil; k, raw = c.Next() {
		if len(k) != len(Sum{}) {
			return fmt.Errorf("%w: body key of %d bytes", ErrDamaged, len(k))
		}
		sum := Sum(k)
		b, err := decodeBody(sum, raw)
		if err != nil {
			return err
		}
		if err := fn(sum, b); err != nil {
			return err
		}
	}
	return nil
}

func encodeBody(b Body) []byte {
	raw := make([]byte, 0, bodyLen)
	raw = binary.BigEndian.AppendUint64(raw, b.Pack)
	raw = binary.BigEndian.AppendUint64(raw, uint64(b.Offset))
	return binary.BigEndian.AppendUint64(raw, uint64(b.Size))
}

func decodeBody(sum Sum, raw []byte) (Body, error) {
	if len(raw) != bodyLen {
		return Body{}, fmt.Errorf("%w: body %x has a record of %d bytes", ErrDamaged, sum, len(raw))
	}
	return Body{
		Pack:   binary.BigEndian.Uint64(raw),
		Offset: int64(binary.BigEndian.Uint64(raw[8:])),
		Size:   int64(binary.BigEndian.Uint64(raw[16:])),
	}, nil
}
