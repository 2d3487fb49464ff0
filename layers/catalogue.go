package layers

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// A Catalogue is a picture of the store at one moment, for those who show all of
// it. It never changes.
type Catalogue struct {
	// Generation changes whenever names, images, layers or containers change; without
	// additional stores it grows.
	Generation uint64
	Images     []CatalogueImage     // in the order of their IDs
	Names      []CatalogueName      // in byte order
	Layers     []CatalogueLayer     // in the order of their DiffIDs
	Containers []CatalogueContainer // in the order of their IDs
	// Problems say which additional stores are missing in the picture, and why.
	Problems []string
}

// A CatalogueName is a name in a Catalogue.
type CatalogueName struct {
	Name     string // normalized
	Slot     uint32
	Image    int                // index in Catalogue.Images
	Manifest ocispec.Descriptor // without media type
	Created  time.Time
}

// A CatalogueImage is an image in a Catalogue.
type CatalogueImage struct {
	ID       digest.Digest
	Slot     uint32
	Loaded   time.Time
	Layers   []int              // indexes in Catalogue.Layers, bottom first
	Config   ocispec.Descriptor // without media type
	Manifest ocispec.Descriptor // the first that it came in with, without media type
}

// A CatalogueLayer is a layer in a Catalogue.
type CatalogueLayer struct {
	DiffID  DiffID
	Slot    uint32
	Size    int64 // bytes of the uncompressed tar
	Created time.Time
	record  index.LayerText
}

// Info returns the text of info.json: the record of the layer.
func (l *CatalogueLayer) Info() ([]byte, error) {
	rec, err := l.record.Decode()
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(rec, "", "  ")
	return append(text, '\n'), err
}

// Blobs returns the compressed forms that the layer came in.
func (l *CatalogueLayer) Blobs() ([]ocispec.Descriptor, error) {
	rec, err := l.record.Decode()
	return rec.Blobs, err
}

// Generation returns the generation that Catalogue would return now; finding it out
// costs much less.
func (s *Store) Generation(ctx context.Context) (uint64, error) {
	var n uint64
	err := s.view(ctx, func(tx *index.Tx) error {
		n = tx.Generation()
		return nil
	})
	return s.combine(ctx, n), err
}

// Catalogue returns the newest picture of the store and its additional stores. What
// several of them have is that of the first.
func (s *Store) Catalogue(ctx context.Context) (*Catalogue, error) {
	c, err := readCatalogue(ctx, s)
	if err == nil {
		s.addLowers(ctx, c)
	}
	return c, err
}

// readCatalogue reads the picture of one store.
func readCatalogue(ctx context.Context, st lower) (*Catalogue, error) {
	var c *Catalogue
	err := st.view(ctx, func(tx *index.Tx) (err error) {
		c = &Catalogue{Generation: tx.Generation()}
		if err := c.addLayers(tx); err != nil {
			return err
		}
		places := c.layerPlaces()
		artifacts, err := c.addImages(tx, places)
		if err != nil {
			return err
		}
		if err := c.addNames(tx, artifacts); err != nil {
			return err
		}
		return c.addContainers(tx, places)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Catalogue) addLayers(tx *index.Tx) error {
	return tx.EachRawLayer(func(l index.Raw) error {
		c.Layers = append(c.Layers, CatalogueLayer{DiffID: DiffID(l.Digest()), Slot: l.Slot, Size: l.Size, Created: l.Time, record: l.LayerText()})
		return nil
	})
}

// layerPlaces says where the layers are in c.Layers.
func (c *Catalogue) layerPlaces() map[index.Sum]int {
	places := make(map[index.Sum]int, len(c.Layers))
	for i := range c.Layers {
		places[sumOf(digest.Digest(c.Layers[i].DiffID))] = i
	}
	return places
}

// addImages adds the images and returns the IDs of the artifacts, which a picture does
// not have.
func (c *Catalogue) addImages(tx *index.Tx, places map[index.Sum]int) (artifacts map[index.Sum]bool, err error) {
	artifacts = map[index.Sum]bool{}
	err = tx.EachImageHead(func(img index.Raw) error {
		if img.IsArtifact() {
			artifacts[sumOf(img.Digest())] = true
			return nil
		}
		out := CatalogueImage{
			ID: img.Digest(), Slot: img.Slot, Loaded: img.Time, Layers: make([]int, len(img.Layers)),
			Config: descriptor(img.ConfigSum(), img.Size), Manifest: descriptor(img.Manifest, img.ManifestSize),
		}
		for i, sum := range img.Layers {
			place, ok := places[sum]
			if !ok {
				return fmt.Errorf("%w: image %s: layer %x is missing", ErrDamaged, out.ID, sum)
			}
			out.Layers[i] = place
		}
		c.Images = append(c.Images, out)
		return nil
	})
	return artifacts, err
}

func (c *Catalogue) addNames(tx *index.Tx, artifacts map[index.Sum]bool) error {
	places := make(map[index.Sum]int, len(c.Images))
	for i := range c.Images {
		places[sumOf(c.Images[i].ID)] = i
	}
	return tx.EachNameHead(func(n index.Raw) error {
		place, ok := places[n.Image]
		if artifacts[n.Image] {
			return nil
		}
		if !ok {
			return fmt.Errorf("%w: name %s: image %x is missing", ErrDamaged, n.Key, n.Image)
		}
		c.Names = append(c.Names, CatalogueName{
			Name: n.Key, Slot: n.Slot, Image: place, Created: n.Time, Manifest: descriptor(n.Manifest, n.ManifestSize),
		})
		return nil
	})
}

func descriptor(sum index.Sum, size int64) ocispec.Descriptor {
	const algorithm = "sha256:"
	var text [len(algorithm) + 2*len(sum)]byte
	hex.Encode(text[copy(text[:], algorithm):], sum[:])
	return ocispec.Descriptor{Digest: digest.Digest(text[:]), Size: size}
}
