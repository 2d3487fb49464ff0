package index

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Name is a normalized reference and what it points to.
type Name struct {
	Name     string             `json:"name"`     // for example docker.io/library/debian:12
	Image    digest.Digest      `json:"image"`    // ID of the image
	Manifest ocispec.Descriptor `json:"manifest"` // the manifest that this name stands for
	Slot     uint32             `json:"slot"`     // view slot; a new one whenever the name gets another image
	Created  time.Time          `json:"created"`  // when the name got this image
}

// An Image is the record of one image.
type Image struct {
	ID        digest.Digest      `json:"id"` // digest of the config
	Slot      uint32             `json:"slot"`
	Config    ocispec.Descriptor `json:"config"`
	Manifests []Manifest         `json:"manifests"` // every manifest it came in with, the oldest first
	Layers    []digest.Digest    `json:"layers"`    // DiffIDs, bottom first
	Platform  ocispec.Platform   `json:"platform"`
	Created   *time.Time         `json:"created,omitempty"`  // as the config says
	Loaded    time.Time          `json:"loaded"`             // when the record was made
	Artifact  string             `json:"artifact,omitempty"` // what kind of artifact this is, "" for an image; an artifact's ID is the digest of its manifest
	Metadata  string             `json:"metadata,omitempty"`
	// TopLayer is the ID of the layer record that the image was created from; empty
	// for an image that came in with its own layers.
	TopLayer string            `json:"top_layer,omitempty"`
	Flags    map[string]string `json:"flags,omitempty"`
}

// A Manifest is one manifest of an image together with the layer blobs that it
// names, in the order of [Image.Layers].
type Manifest struct {
	Descriptor ocispec.Descriptor   `json:"descriptor"`
	Layers     []ocispec.Descriptor `json:"layers"`
	// Indexes are the indexes (manifest lists) that the manifest was found through.
	Indexes []ocispec.Descriptor `json:"indexes,omitempty"`
}

// A LayerRecord is a named place on top of a stack of layers: what somebody created
// to put a layer on, or to make an image from.
type LayerRecord struct {
	ID     string   `json:"id"`               // 64 hexadecimal digits
	Parent string   `json:"parent,omitempty"` // ID of the record or stack below
	Names  []string `json:"names,omitempty"`
	// DiffID is the layer that was applied; empty while nothing was.
	DiffID digest.Digest `json:"diffid,omitempty"`
	// Blob is the form in which it was applied.
	Blob *ocispec.Descriptor `json:"blob,omitempty"`
	// Layers is the whole stack, bottom first, DiffID included.
	Layers   []digest.Digest   `json:"layers"`
	Created  time.Time         `json:"created"`
	Metadata string            `json:"metadata,omitempty"`
	Flags    map[string]string `json:"flags,omitempty"`
}

// A Data describes an item of big data; its content is a blob of the store.
type Data struct {
	Digest digest.Digest
	Size   int64
	Stored time.Time
}

// A Layer is the record of one layer.
type Layer struct {
	DiffID  digest.Digest        `json:"diffid"`
	Slot    uint32               `json:"slot"`
	Size    int64                `json:"size"`  // bytes of the uncompressed tar
	Blobs   []ocispec.Descriptor `json:"blobs"` // the compressed forms that it came in
	Created time.Time            `json:"created"`

	Entries   int64 `json:"entries"`    // names in the tree, whiteouts included
	Files     int64 `json:"files"`      // regular files, hard links counted once
	Whiteouts int64 `json:"whiteouts"`  // deleted names and opaque directories
	Bytes     int64 `json:"bytes"`      // sum of the logical sizes of the regular files
	Bodies    int64 `json:"bodies"`     // distinct file contents
	BodyBytes int64 `json:"body_bytes"` // their bytes
	MetaBytes int64 `json:"meta_bytes"` // bytes of the tree and the split metadata

	// Additional is the root of the additional store in which the layer lies; empty
	// for a layer of this store.
	Additional string `json:"additional,omitempty"`
}

// A Body says where the content of a file lies.
type Body struct {
	Pack   uint64 // 0: an object file of its own
	Offset int64  // in the pack
	Size   int64
}
