package index

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Head is the fixed beginning of a record: what a list of all records needs.
// Reading the heads of ten thousand records takes a few milliseconds, decoding
// their texts a hundred times as long.
type Head struct {
	Slot  uint32
	Time  time.Time // Name.Created, Image.Loaded, Layer.Created
	Image Sum       // of a name: the ID of its image; otherwise zero
	Bytes int64     // of a layer: Layer.Bytes; otherwise zero
}

// headLen is the length of an encoded head: slot, time in nanoseconds since 1970,
// image, bytes; big endian.
const headLen = 4 + 8 + 32 + 8

func (h Head) encode() []byte {
	raw := make([]byte, 0, headLen)
	raw = binary.BigEndian.AppendUint32(raw, h.Slot)
	raw = binary.BigEndian.AppendUint64(raw, uint64(h.Time.UnixNano()))
	raw = append(raw, h.Image[:]...)
	return binary.BigEndian.AppendUint64(raw, uint64(h.Bytes))
}

func decodeHead(raw []byte) Head {
	return Head{
		Slot:  binary.BigEndian.Uint32(raw),
		Time:  time.Unix(0, int64(binary.BigEndian.Uint64(raw[4:]))).UTC(),
		Image: Sum(raw[12:44]),
		Bytes: int64(binary.BigEndian.Uint64(raw[44:])),
	}
}

func (n Name) head() Head {
	h := Head{Slot: n.Slot, Time: n.Created}
	// The digest was checked when the image got its ID; a wrong one gives zeros.
	_, _ = hex.Decode(h.Image[:], []byte(n.Image.Encoded()))
	return h
}

func (img Image) head() Head { return Head{Slot: img.Slot, Time: img.Loaded} }

func (l Layer) head() Head { return Head{Slot: l.Slot, Time: l.Created, Bytes: l.Bytes} }

// A Raw is a record that has not been decoded but for its head.
type Raw struct {
	Head
	Key  string // the name, or the hexadecimal digits of the digest
	text []byte
}

// Digest returns the digest that the key of an image or a layer stands for.
func (r Raw) Digest() digest.Digest { return digest.NewDigestFromEncoded(digest.SHA256, r.Key) }

// DecodeName returns the record, which must be one of EachRawName.
func (r Raw) DecodeName() (n Name, err error) { return n, r.decode(bucketNames, &n) }

// DecodeImage returns the record, which must be one of EachRawImage.
func (r Raw) DecodeImage() (img Image, err error) { return img, r.decode(bucketImages, &img) }

// DecodeLayer returns the record, which must be one of EachRawLayer.
func (r Raw) DecodeLayer() (l Layer, err error) { return l, r.decode(bucketLayers, &l) }

func (r Raw) decode(bucket []byte, v any) error {
	if err := json.Unmarshal(r.text, v); err != nil {
		return fmt.Errorf("%w: record %s/%s: %w", ErrDamaged, bucket, r.Key, err)
	}
	return nil
}

// EachRawName calls fn for every name in byte order. The records stay valid after
// the transaction.
func (tx *Tx) EachRawName(fn func(Raw) error) error { return tx.eachRaw(bucketNames, fn) }

// EachRawImage calls fn for every image in the order of their IDs. The records
// stay valid after the transaction.
func (tx *Tx) EachRawImage(fn func(Raw) error) error { return tx.eachRaw(bucketImages, fn) }

// EachRawLayer calls fn for every layer in the order of their DiffIDs. The records
// stay valid after the transaction.
func (tx *Tx) EachRawLayer(fn func(Raw) error) error { return tx.eachRaw(bucketLayers, fn) }

func (tx *Tx) eachRaw(bucket []byte, fn func(Raw) error) error {
	b := tx.bucket(bucket)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, raw []byte) error {
		if len(raw) < headLen {
			return fmt.Errorf("%w: record %s/%s of %d bytes", ErrDamaged, bucket, k, len(raw))
		}
		return fn(Raw{Head: decodeHead(raw), Key: string(k), text: append([]byte(nil), raw[headLen:]...)})
	})
}
