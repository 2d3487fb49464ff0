package index

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Kind is a kind of item that big data can belong to.
type Kind byte

// The kinds of items.
const (
	KindImage     Kind = 'i'
	KindLayer     Kind = 'l'
	KindContainer Kind = 'c'
)

// An Owner is an item that has big data: its kind and its ID of 64 hexadecimal
// digits.
type Owner struct {
	Kind Kind
	ID   string
}

// MaxDataKey is the length of the longest key of an item of big data.
const MaxDataKey = 32000

// prefix is what the keys of all data of an owner begin with.
func (o Owner) prefix() []byte { return append([]byte{byte(o.Kind)}, o.ID...) }

// Data returns what is stored under the key, or ErrNotFound.
func (tx *Tx) Data(o Owner, key []byte) (Data, error) {
	b := tx.bucket(bucketData)
	if b == nil {
		return Data{}, ErrNotFound
	}
	full := append(o.prefix(), key...)
	raw := b.Get(full)
	if raw == nil {
		return Data{}, ErrNotFound
	}
	return decodeData(full, raw)
}

// PutData adds or replaces an item of big data.
func (tx *Tx) PutData(o Owner, key []byte, d Data) error {
	if len(key) > MaxDataKey {
		return fmt.Errorf("index: a key of %d bytes is longer than %d", len(key), MaxDataKey)
	}
	sum := sumOf(d.Digest)
	raw := binary.BigEndian.AppendUint64(sum[:], uint64(d.Size))
	raw = binary.BigEndian.AppendUint64(raw, uint64(d.Stored.UnixNano()))
	full := append(o.prefix(), key...)
	if err := tx.bucket(bucketData).Put(full, raw); err != nil {
		return fmt.Errorf("index: data: %w", err)
	}
	tx.note(bucketData, full, raw)
	return nil
}

// DeleteData removes an item of big data, or returns ErrNotFound.
func (tx *Tx) DeleteData(o Owner, key []byte) error {
	return tx.remove(bucketData, string(append(o.prefix(), key...)))
}

// DeleteAllData removes all big data of an owner.
func (tx *Tx) DeleteAllData(o Owner) error {
	var keys [][]byte
	err := tx.EachData(o, func(key []byte, _ Data) error {
		keys = append(keys, append(o.prefix(), key...))
		return nil
	})
	for _, key := range keys {
		if err == nil {
			err = tx.remove(bucketData, string(key))
		}
	}
	return err
}

// EachData calls fn for all big data of an owner in the byte order of the keys.
func (tx *Tx) EachData(o Owner, fn func(key []byte, d Data) error) error {
	prefix := o.prefix()
	return tx.eachData(prefix, func(full []byte, d Data) error { return fn(full[len(prefix):], d) })
}

// EachOwnedData calls fn for the big data of all items.
func (tx *Tx) EachOwnedData(fn func(o Owner, key []byte, d Data) error) error {
	return tx.eachData(nil, func(full []byte, d Data) error {
		if len(full) < 65 {
			return fmt.Errorf("%w: data key of %d bytes", ErrDamaged, len(full))
		}
		return fn(Owner{Kind(full[0]), string(full[1:65])}, full[65:], d)
	})
}

func (tx *Tx) eachData(prefix []byte, fn func(full []byte, d Data) error) error {
	b := tx.bucket(bucketData)
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for k, raw := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, raw = c.Next() {
		d, err := decodeData(k, raw)
		if err != nil {
			return err
		}
		if err := fn(bytes.Clone(k), d); err != nil {
			return err
		}
	}
	return nil
}

func decodeData(key, raw []byte) (Data, error) {
	if len(raw) != 32+8+8 {
		return Data{}, fmt.Errorf("%w: data %q has a record of %d bytes", ErrDamaged, key, len(raw))
	}
	return Data{
		Digest: digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(raw[:32])),
		Size:   int64(binary.BigEndian.Uint64(raw[32:])),
		Stored: time.Unix(0, int64(binary.BigEndian.Uint64(raw[40:]))).UTC(),
	}, nil
}
