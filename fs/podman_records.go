package fs

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// podmanImage is a record of images.json.
type podmanImage struct {
	ID          string                   `json:"id"`
	Digest      digest.Digest            `json:"digest,omitempty"`
	Names       []string                 `json:"names,omitempty"`
	Layer       string                   `json:"layer,omitempty"`
	Metadata    string                   `json:"metadata"`
	DataNames   []string                 `json:"big-data-names"`
	DataSizes   map[string]int64         `json:"big-data-sizes"`
	DataDigests map[string]digest.Digest `json:"big-data-digests"`
	Created     time.Time                `json:"created"`
}

func (img *podmanImage) addData(key string, d ocispec.Descriptor) {
	if img.DataSizes == nil {
		img.DataSizes, img.DataDigests = map[string]int64{}, map[string]digest.Digest{}
	}
	img.DataNames = append(img.DataNames, key)
	img.DataSizes[key], img.DataDigests[key] = d.Size, d.Digest
}

// podmanLayer is a record of layers.json.
type podmanLayer struct {
	ID               string        `json:"id"`
	Parent           string        `json:"parent,omitempty"`
	Created          time.Time     `json:"created"`
	CompressedDigest digest.Digest `json:"compressed-diff-digest,omitempty"`
	CompressedSize   int64         `json:"compressed-size,omitempty"`
	Compression      int           `json:"compression,omitempty"`
	DiffDigest       digest.Digest `json:"diff-digest"`
	DiffSize         int64         `json:"diff-size"`
}

// Compressions as containers/storage counts them.
const (
	podmanGzip = 2
	podmanZstd = 4
)

// newPodmanLayer makes the record of a layer that came as one of the blobs. The first blob whose compression is known
// counts.
func newPodmanLayer(id, parent string, in *layers.CatalogueLayer, blobs []ocispec.Descriptor) podmanLayer {
	l := podmanLayer{ID: id, Parent: parent, Created: in.Created, DiffDigest: digest.Digest(in.DiffID), DiffSize: in.Size}
	for _, b := range blobs {
		switch {
		case strings.HasSuffix(b.MediaType, "gzip"):
			l.Compression = podmanGzip
		case strings.HasSuffix(b.MediaType, "zstd"):
			l.Compression = podmanZstd
		default:
			continue
		}
		l.CompressedDigest, l.CompressedSize = b.Digest, b.Size
		break
	}
	return l
}

// podmanJSON is the text of a list of records, of which none is null.
func podmanJSON(records any) string {
	text, err := json.Marshal(records)
	if err != nil || string(text) == "null" {
		return "[]" // cannot fail: strings, numbers and times of this era
	}
	return string(text)
}
