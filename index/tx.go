package index

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

var (
	bucketMeta   = []byte("meta")
	bucketNames  = []byte("names")
	bucketImages = []byte("images")
	bucketLayers = []byte("layers")
	bucketBodies = []byte("bodies")
	bucketForms  = []byte("forms")

	bucketLayerRecords = []byte("layer.records")
	bucketLayerNames   = []byte("layer.names")
	bucketData         = []byte("data")

	keyGeneration = []byte("generation")
	keySlotLayer  = []byte("slot.layer")
	keySlotView   = []byte("slot.view")
)

// MaxSlot is the largest slot number that the index gives: half of the 26 bits that
// inode numbers have room for. The other half is for what is not in this index.
const MaxSlot = 1<<25 - 1

// A Tx is a transaction on the index. It is valid only inside the function that it
// was given to.
type Tx struct {
	root    *bolt.Bucket // nil: the index does not exist yet and is read as empty
	visible bool         // a record was changed that is no body
	changes []change     // of records, for the journal

	// Of a transaction that is about to be committed.
	generation uint64
	slots      map[string]uint64
	bodies     BodyStats // what was added, less what was removed
}

func (tx *Tx) bucket(name []byte) *bolt.Bucket {
	if tx.root == nil {
		return nil
	}
	return tx.root.Bucket(name)
}

// get decodes the record under key into v; it returns ErrNotFound when there is none.
func (tx *Tx) get(bucket []byte, key string, v any) error {
	b := tx.bucket(bucket)
	if b == nil {
		return ErrNotFound
	}
	raw := b.Get([]byte(key))
	if raw == nil {
		return ErrNotFound
	}
	return decode(bucket, []byte(key), raw, v)
}

// decode decodes the JSON text of a record, which follows its head.
func decode(bucket, key, raw []byte, v any) error {
	_, text, err := splitHead(bucket, key, raw)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: record %s/%s: %w", ErrDamaged, bucket, key, err)
	}
	if c, ok := v.(interface{ check() error }); ok {
		if err := c.check(); err != nil {
			return fmt.Errorf("record %s/%s: %w", bucket, key, err)
		}
	}
	return nil
}

func (tx *Tx) put(bucket []byte, key string, h Head, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("index: record %s/%s: %w", bucket, key, err)
	}
	raw := append(h.encode(), text...)
	if err := tx.bucket(bucket).Put([]byte(key), raw); err != nil {
		return fmt.Errorf("index: record %s/%s: %w", bucket, key, err)
	}
	tx.note(bucket, []byte(key), raw)
	return nil
}

func (tx *Tx) remove(bucket []byte, key string) error {
	b := tx.bucket(bucket)
	if b.Get([]byte(key)) == nil {
		return ErrNotFound
	}
	tx.note(bucket, []byte(key), nil)
	return b.Delete([]byte(key))
}

// each decodes every record of a bucket in key order.
func each[T any](tx *Tx, bucket []byte, fn func(T) error) error {
	b := tx.bucket(bucket)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, raw []byte) error {
		var v T
		if err := decode(bucket, k, raw, &v); err != nil {
			return err
		}
		return fn(v)
	})
}

// Name returns the record of a normalized reference, or ErrNotFound.
func (tx *Tx) Name(name string) (Name, error) {
	var n Name
	return n, tx.get(bucketNames, name, &n)
}

// PutName adds or replaces a name.
func (tx *Tx) PutName(n Name) error { return tx.put(bucketNames, n.Name, n.head(), n) }

// DeleteName removes a name, or returns ErrNotFound.
func (tx *Tx) DeleteName(name string) error { return tx.remove(bucketNames, name) }

// EachName calls fn for every name in byte order.
func (tx *Tx) EachName(fn func(Name) error) error { return each(tx, bucketNames, fn) }

// Image returns the record of an image, or ErrNotFound.
func (tx *Tx) Image(id digest.Digest) (Image, error) {
	var img Image
	return img, tx.get(bucketImages, id.Encoded(), &img)
}

// PutImage adds or replaces an image.
func (tx *Tx) PutImage(img Image) error {
	return tx.put(bucketImages, img.ID.Encoded(), img.head(), img)
}

// DeleteImage removes the record of an image, or returns ErrNotFound. Its names
// are the caller's to remove.
func (tx *Tx) DeleteImage(id digest.Digest) error { return tx.remove(bucketImages, id.Encoded()) }

// EachImage calls fn for every image in the order of their IDs.
func (tx *Tx) EachImage(fn func(Image) error) error { return each(tx, bucketImages, fn) }

// ImagesByPrefix returns the images whose hexadecimal ID begins with prefix, at
// most limit of them.
func (tx *Tx) ImagesByPrefix(prefix string, limit int) ([]Image, error) {
	return byPrefix[Image](tx, bucketImages, prefix, limit)
}

// LayersByPrefix returns the layers whose hexadecimal DiffID begins with prefix,
// at most limit of them.
func (tx *Tx) LayersByPrefix(prefix string, limit int) ([]Layer, error) {
	return byPrefix[Layer](tx, bucketLayers, prefix, limit)
}

func byPrefix[T any](tx *Tx, bucket []byte, prefix string, limit int) ([]T, error) {
	b := tx.bucket(bucket)
	if b == nil {
		return nil, nil
	}
	var found []T
	c := b.Cursor()
	for k, raw := c.Seek([]byte(prefix)); k != nil && len(found) < limit; k, raw = c.Next() {
		if len(k) < len(prefix) || string(k[:len(prefix)]) != prefix {
			break
		}
		var v T
		if err := decode(bucket, k, raw, &v); err != nil {
			return nil, err
		}
		found = append(found, v)
	}
	return found, nil
}

// Layer returns the record of a layer, or ErrNotFound.
func (tx *Tx) Layer(diffID digest.Digest) (Layer, error) {
	var l Layer
	return l, tx.get(bucketLayers, diffID.Encoded(), &l)
}

// PutLayer adds or replaces a layer.
func (tx *Tx) PutLayer(l Layer) error { return tx.put(bucketLayers, l.DiffID.Encoded(), l.head(), l) }

// DeleteLayer removes the record of a layer and its forms, or returns ErrNotFound.
// The forms of a record that cannot be read stay, for the collector.
func (tx *Tx) DeleteLayer(diffID digest.Digest) error {
	if l, err := tx.Layer(diffID); err == nil {
		if err := tx.deleteForms(l); err != nil {
			return err
		}
	}
	return tx.remove(bucketLayers, diffID.Encoded())
}

// EachLayer calls fn for every layer in the order of their DiffIDs.
func (tx *Tx) EachLayer(fn func(Layer) error) error { return each(tx, bucketLayers, fn) }

// Generation counts the committed changes of everything but bodies.
func (tx *Tx) Generation() uint64 { return tx.counter(keyGeneration) }

func (tx *Tx) bumpGeneration() error {
	if !tx.visible {
		return nil
	}
	tx.generation, tx.slots = tx.Generation()+1, tx.lastSlots()
	return tx.setCounter(keyGeneration, tx.generation)
}

// NextLayerSlot gives a slot for a new layer.
func (tx *Tx) NextLayerSlot() (uint32, error) { return tx.nextSlot(keySlotLayer) }

// NextViewSlot gives a slot for a new image, or for a name that gets an image.
func (tx *Tx) NextViewSlot() (uint32, error) { return tx.nextSlot(keySlotView) }

func (tx *Tx) nextSlot(key []byte) (uint32, error) {
	n := tx.counter(key) + 1
	if n > MaxSlot {
		return 0, fmt.Errorf("index: all %d slots of this store have been given; copy its images into a new store", MaxSlot)
	}
	return uint32(n), tx.setCounter(key, n)
}

func (tx *Tx) counter(key []byte) uint64 {
	b := tx.bucket(bucketMeta)
	if b == nil {
		return 0
	}
	if v := b.Get(key); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (tx *Tx) setCounter(key []byte, n uint64) error {
	if err := tx.bucket(bucketMeta).Put(key, binary.BigEndian.AppendUint64(nil, n)); err != nil {
		return fmt.Errorf("index: %s: %w", key, err)
	}
	return nil
}
