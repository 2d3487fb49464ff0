package index

import (
	"encoding/binary"
	"fmt"
)

// A Form is one compressed form of a layer, named by the digest of its bytes: a
// layer blob as some image came with it.
type Form struct {
	Layer  Sum     // DiffID of what it unpacks to
	Number uint32  // its place in Layer.Blobs, which never changes
	Size   int64   // bytes of the blob
	How    FormHow // how the bytes can be had
	Stored int64   // bytes of the file that this takes
	Tried  uint8   // the newest search that found no correction for it
}

// A FormHow says how the bytes of a form can be had.
type FormHow uint8

// The ways to have a form.
const (
	FormGone      FormHow = iota // not at all: only its digest and size are known
	FormKept                     // the blob itself is in the store
	FormCorrected                // by compressing the layer anew, helped by a small file
)

// String returns "gone", "kept" or "corrected".
func (h FormHow) String() string {
	switch h {
	case FormGone:
		return "gone"
	case FormKept:
		return "kept"
	case FormCorrected:
		return "corrected"
	}
	return fmt.Sprintf("FormHow(%d)", uint8(h))
}

// formLen is the length of an encoded form: layer, number, size, how, stored, tried.
const formLen = 32 + 4 + 8 + 1 + 8 + 1

// Form returns the form with the digest, or ErrNotFound.
func (tx *Tx) Form(sum Sum) (Form, error) {
	b := tx.bucket(bucketForms)
	if b == nil {
		return Form{}, ErrNotFound
	}
	raw := b.Get(sum[:])
	if raw == nil {
		return Form{}, ErrNotFound
	}
	return decodeForm(sum[:], raw)
}

// PutForm adds or replaces a form.
func (tx *Tx) PutForm(sum Sum, f Form) error {
	raw := append(make([]byte, 0, formLen), f.Layer[:]...)
	raw = binary.BigEndian.AppendUint32(raw, f.Number)
	raw = binary.BigEndian.AppendUint64(raw, uint64(f.Size))
	raw = append(raw, byte(f.How))
	raw = append(binary.BigEndian.AppendUint64(raw, uint64(f.Stored)), f.Tried)
	if err := tx.bucket(bucketForms).Put(sum[:], raw); err != nil {
		return fmt.Errorf("index: form %x: %w", sum, err)
	}
	tx.note(bucketForms, sum[:], raw)
	return nil
}

// DeleteForm removes a form; an absent one is no error.
func (tx *Tx) DeleteForm(sum Sum) error {
	tx.note(bucketForms, sum[:], nil)
	return tx.bucket(bucketForms).Delete(sum[:])
}

// EachForm calls fn for every form in the order of their digests.
func (tx *Tx) EachForm(fn func(Sum, Form) error) error {
	b := tx.bucket(bucketForms)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, raw []byte) error {
		f, err := decodeForm(k, raw)
		if err != nil {
			return err
		}
		return fn(Sum(k), f)
	})
}

func decodeForm(key, raw []byte) (Form, error) {
	if len(key) != len(Sum{}) || len(raw) != formLen {
		return Form{}, fmt.Errorf("%w: form %x has a record of %d bytes", ErrDamaged, key, len(raw))
	}
	return Form{
		Layer:  Sum(raw),
		Number: binary.BigEndian.Uint32(raw[32:]),
		Size:   int64(binary.BigEndian.Uint64(raw[36:])),
		How:    FormHow(raw[44]),
		Stored: int64(binary.BigEndian.Uint64(raw[45:])),
		Tried:  raw[53],
	}, nil
}

// deleteForms removes the forms of a layer.
func (tx *Tx) deleteForms(l Layer) error {
	for _, d := range l.Blobs {
		sum := sumOf(d.Digest)
		if f, err := tx.Form(sum); err == nil && f.Layer == sumOf(l.DiffID) {
			if err := tx.DeleteForm(sum); err != nil {
				return err
			}
		}
	}
	return nil
}
