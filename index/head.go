package index

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Head is the binary beginning of a record: what a picture of the whole store
// needs. Reading the heads of ten thousand records takes a few milliseconds,
// decoding their texts a hundred times as long. What a kind of record does not have
// is zero.
type Head struct {
	Slot         uint32
	Time         time.Time // Name.Created, Image.Loaded, Layer.Created, Container.Created
	Bytes        int64     // of a layer: Layer.Bytes; of an image: -1 for an artifact
	Size         int64     // of a layer: Layer.Size; of an image: the size of its config
	Image        Sum       // of a name, of a container: the ID of its image; of an image: the digest of its config
	Manifest     Sum       // of a name: its manifest; of an image: the first manifest
	ManifestSize int64
	Layers       []Sum // of an image, a container, a layer record: the DiffIDs, bottom first
}

// Figures are the sums of a layer that stand in the head of its record, where a name
// has its image.
type Figures struct{ Entries, Files, BodyBytes, MetaBytes int64 }

// Figures returns the figures of a layer, which must be one of EachRawLayer. A
// record from the time before they were in the head is decoded.
func (r Raw) Figures() (Figures, error) {
	f := Figures{
		Entries:   int64(binary.BigEndian.Uint64(r.Image[0:])),
		Files:     int64(binary.BigEndian.Uint64(r.Image[8:])),
		BodyBytes: int64(binary.BigEndian.Uint64(r.Image[16:])),
		MetaBytes: int64(binary.BigEndian.Uint64(r.Image[24:])),
	}
	if f.MetaBytes != 0 { // a layer without metadata does not exist
		return f, nil
	}
	l, err := r.DecodeLayer()
	return Figures{l.Entries, l.Files, l.BodyBytes, l.MetaBytes}, err
}

// ConfigSum returns the digest of the config of an image, which must be one of
// EachRawImage.
func (r Raw) ConfigSum() Sum {
	if r.Image == (Sum{}) { // from the time when it always was the ID
		return sumOf(r.Digest())
	}
	return r.Image
}

// headLen is the length of an encoded head without its layers: slot, time in
// nanoseconds since 1970, bytes, size, image, manifest, manifest size, number of
// layers; big endian.
const headLen = 4 + 8 + 8 + 8 + 32 + 32 + 8 + 4

func (h Head) encode() []byte {
	raw := make([]byte, 0, headLen+32*len(h.Layers))
	raw = binary.BigEndian.AppendUint32(raw, h.Slot)
	raw = binary.BigEndian.AppendUint64(raw, uint64(h.Time.UnixNano()))
	raw = binary.BigEndian.AppendUint64(raw, uint64(h.Bytes))
	raw = binary.BigEndian.AppendUint64(raw, uint64(h.Size))
	raw = append(raw, h.Image[:]...)
	raw = append(raw, h.Manifest[:]...)
	raw = binary.BigEndian.AppendUint64(raw, uint64(h.ManifestSize))
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(h.Layers)))
	for _, sum := range h.Layers {
		raw = append(raw, sum[:]...)
	}
	return raw
}

// splitHead returns the head of a record and the text that follows it. The layers
// of the head are a copy.
func splitHead(bucket, key, raw []byte) (h Head, text []byte, err error) {
	if len(raw) < headLen {
		return h, nil, fmt.Errorf("%w: record %s/%s of %d bytes", ErrDamaged, bucket, key, len(raw))
	}
	h = Head{
		Slot:         binary.BigEndian.Uint32(raw),
		Time:         time.Unix(0, int64(binary.BigEndian.Uint64(raw[4:]))).UTC(),
		Bytes:        int64(binary.BigEndian.Uint64(raw[12:])),
		Size:         int64(binary.BigEndian.Uint64(raw[20:])),
		Image:        Sum(raw[28:60]),
		Manifest:     Sum(raw[60:92]),
		ManifestSize: int64(binary.BigEndian.Uint64(raw[92:])),
	}
	n := int64(binary.BigEndian.Uint32(raw[100:]))
	raw = raw[headLen:]
	if n*32 > int64(len(raw)) {
		return h, nil, fmt.Errorf("%w: record %s/%s with %d layers in %d bytes", ErrDamaged, bucket, key, n, len(raw))
	}
	if n > 0 {
		h.Layers = make([]Sum, n)
	}
	for i := range h.Layers {
		h.Layers[i] = Sum(raw[32*i:])
	}
	return h, raw[32*n:], nil
}

// sumOf returns the bytes of a digest, zeros for what is none: only digests that
// were checked get into records.
func sumOf(d digest.Digest) (sum Sum) {
	_, _ = hex.Decode(sum[:], []byte(d.Encoded()))
	return sum
}

func (n Name) head() Head {
	return Head{
		Slot: n.Slot, Time: n.Created, Image: sumOf(n.Image),
		Manifest: sumOf(n.Manifest.Digest), ManifestSize: n.Manifest.Size,
	}
}

// artifactBytes in the head of an image says that it is an artifact.
const artifactBytes = -1

// IsArtifact says whether the record is of an artifact, which has no layers.
func (img Image) IsArtifact() bool { return img.Artifact != "" }

// IsArtifact says whether the record, which must be one of images, is of an artifact.
func (r Raw) IsArtifact() bool { return r.Bytes == artifactBytes }

func (img Image) head() Head {
	h := Head{Slot: img.Slot, Time: img.Loaded, Size: img.Config.Size, Image: sumOf(img.Config.Digest)}
	if img.IsArtifact() {
		h.Bytes = artifactBytes
	}
	if len(img.Manifests) > 0 {
		h.Manifest, h.ManifestSize = sumOf(img.Manifests[0].Descriptor.Digest), img.Manifests[0].Descriptor.Size
	}
	for _, d := range img.Layers {
		h.Layers = append(h.Layers, sumOf(d))
	}
	return h
}

func (l Layer) head() Head {
	h := Head{Slot: l.Slot, Time: l.Created, Bytes: l.Bytes, Size: l.Size}
	for i, n := range []int64{l.Entries, l.Files, l.BodyBytes, l.MetaBytes} {
		binary.BigEndian.PutUint64(h.Image[8*i:], uint64(n))
	}
	return h
}

// A Raw is a record of which only the head has been decoded.
type Raw struct {
	Head
	Key  string // the name, or the hexadecimal digits of the digest
	text []byte
}

// Digest returns the digest that the key of an image or a layer stands for.
// It is not checked, as digest.NewDigestFromEncoded would not either, and costs a
// tenth of that.
func (r Raw) Digest() digest.Digest { return digest.Digest("sha256:" + r.Key) }

// DecodeName returns the record, which must be one of EachRawName.
func (r Raw) DecodeName() (n Name, err error) { return n, r.decode(bucketNames, &n) }

// DecodeImage returns the record, which must be one of EachRawImage.
func (r Raw) DecodeImage() (img Image, err error) { return img, r.decode(bucketImages, &img) }

// DecodeLayer returns the record, which must be one of EachRawLayer.
func (r Raw) DecodeLayer() (l Layer, err error) { return l, r.decode(bucketLayers, &l) }

// LayerText is the undecoded part of a layer's record.
type LayerText struct {
	key  string
	text []byte
}

// LayerText returns the part of the record, which must be one of EachRawLayer, that
// its head does not have; it is small to keep.
func (r Raw) LayerText() LayerText { return LayerText{r.Key, r.text} }

// Decode returns the record.
func (t LayerText) Decode() (Layer, error) { return Raw{Key: t.key, text: t.text}.DecodeLayer() }

func (r Raw) decode(bucket []byte, v any) error {
	if err := json.Unmarshal(r.text, v); err != nil {
		return fmt.Errorf("%w: record %s/%s: %w", ErrDamaged, bucket, r.Key, err)
	}
	if c, ok := v.(interface{ check() error }); ok {
		if err := c.check(); err != nil {
			return fmt.Errorf("record %s/%s: %w", bucket, r.Key, err)
		}
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

// EachNameHead is like EachRawName, but the records cannot be decoded: their texts,
// the larger part of them, are not copied.
func (tx *Tx) EachNameHead(fn func(Raw) error) error { return tx.eachHead(bucketNames, fn) }

// EachImageHead is like EachRawImage, but the records cannot be decoded.
func (tx *Tx) EachImageHead(fn func(Raw) error) error { return tx.eachHead(bucketImages, fn) }

// A HeadKind says of which records the heads are wanted.
type HeadKind string

// The kinds of records that have heads.
const (
	HeadNames        HeadKind = "names"
	HeadImages       HeadKind = "images"
	HeadLayerRecords HeadKind = "layer.records"
	HeadContainers   HeadKind = "containers"
)

// EachHead calls fn for the head of every record of a kind in the order of their keys.
// The key is valid only during the call. It is the quickest way to look at all records.
func (tx *Tx) EachHead(kind HeadKind, fn func(key []byte, h Head) error) error {
	b := tx.bucket([]byte(kind))
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, raw []byte) error {
		h, _, err := splitHead([]byte(kind), k, raw)
		if err != nil {
			return err
		}
		return fn(k, h)
	})
}

// textChunk is how much room for the texts of records is made at once.
const textChunk = 256 << 10

// eachRaw calls fn with copies. The texts share large pieces of memory: one
// allocation for each of ten thousand records would be felt.
func (tx *Tx) eachRaw(bucket []byte, fn func(Raw) error) error {
	var room []byte
	return tx.eachSplit(bucket, func(r Raw) error {
		if len(r.text) > cap(room)-len(room) {
			room = make([]byte, 0, max(textChunk, len(r.text)))
		}
		at := len(room)
		room = append(room, r.text...)
		r.text = room[at:len(room):len(room)]
		return fn(r)
	})
}

func (tx *Tx) eachHead(bucket []byte, fn func(Raw) error) error {
	return tx.eachSplit(bucket, func(r Raw) error {
		r.text = nil
		return fn(r)
	})
}

// eachSplit calls fn with records whose texts are those of the file.
func (tx *Tx) eachSplit(bucket []byte, fn func(Raw) error) error {
	b := tx.bucket(bucket)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, raw []byte) error {
		h, text, err := splitHead(bucket, k, raw)
		if err != nil {
			return err
		}
		return fn(Raw{Head: h, Key: string(k), text: text})
	})
}
