package layers

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// BenchmarkCatalogue reads a store of 1,000 images with three layers of their own
// and five that they share.
func BenchmarkCatalogue(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "store"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.index.Update(context.Background(), "test", fillIndex); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := s.Catalogue(b.Context())
		if err != nil || len(c.Images) != 1000 {
			b.Fatal(len(c.Images), err)
		}
	}
}

func fillIndex(tx *index.Tx) error {
	blob := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("blob"), Size: 1}
	now := time.Unix(1e9, 0).UTC()
	for i := range 1000 {
		img := index.Image{ID: digest.FromString(fmt.Sprint(i)), Slot: uint32(2 * i), Loaded: now, Created: &now, Config: blob}
		m := index.Manifest{Descriptor: blob}
		for j := range 8 {
			key := fmt.Sprint("shared", j)
			if j >= 5 {
				key = fmt.Sprint(i, j)
			}
			d := digest.FromString(key)
			img.Layers = append(img.Layers, d)
			m.Layers = append(m.Layers, blob)
			if err := tx.PutLayer(index.Layer{DiffID: d, Slot: uint32(8*i + j), Size: 1 << 20, Blobs: []ocispec.Descriptor{blob}, Created: now}); err != nil {
				return err
			}
		}
		img.Manifests = []index.Manifest{m}
		if err := tx.PutImage(img); err != nil {
			return err
		}
		if err := tx.PutName(index.Name{Name: fmt.Sprintf("docker.io/library/x%d:1", i), Image: img.ID, Manifest: blob, Slot: uint32(2*i + 1), Created: now}); err != nil {
			return err
		}
	}
	return nil
}
