package layers

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// putImage adds the image, or to a known one the manifest and the indexes that it
// came in with this time.
func putImage(tx *index.Tx, in *incoming) error {
	img, err := tx.Image(in.id)
	if errors.Is(err, index.ErrNotFound) {
		img, err = newImage(tx, in)
	}
	if err != nil {
		return err
	}
	i := slices.IndexFunc(img.Manifests, func(m index.Manifest) bool { return m.Descriptor.Digest == in.desc.Digest })
	changed := i < 0
	if changed {
		i = len(img.Manifests)
		img.Manifests = append(img.Manifests, index.Manifest{Descriptor: in.desc, Layers: in.manifest.Layers})
	}
	m := &img.Manifests[i]
	for _, raw := range in.rawIndexes {
		d := indexDescriptor(raw)
		if !slices.ContainsFunc(m.Indexes, func(old ocispec.Descriptor) bool { return old.Digest == d.Digest }) {
			m.Indexes = append(m.Indexes, d)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return tx.PutImage(img)
}

// indexDescriptor describes the document of an index.
func indexDescriptor(raw []byte) ocispec.Descriptor {
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(raw, &doc) != nil || doc.MediaType == "" {
		doc.MediaType = ocispec.MediaTypeImageIndex
	}
	return ocispec.Descriptor{MediaType: doc.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

func newImage(tx *index.Tx, in *incoming) (index.Image, error) {
	slot, err := tx.NextViewSlot()
	img := index.Image{
		ID: in.id, Slot: slot, Config: in.manifest.Config, Platform: in.config.Platform,
		Created: in.config.Created, Loaded: time.Now().UTC().Round(0), Artifact: in.artifact,
	}
	for _, d := range in.diffIDs {
		img.Layers = append(img.Layers, digest.Digest(d))
	}
	return img, err
}
