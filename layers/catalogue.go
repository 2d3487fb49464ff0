package layers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// A Catalogue is a picture of the store at one moment, for those who show all of
// it. It never changes.
type Catalogue struct {
	// Generation grows whenever names, images or layers change.
	Generation uint64
	Images     []CatalogueImage // in the order of their IDs
	Names      []CatalogueName  // in byte order
	Layers     []CatalogueLayer // in the order of their DiffIDs
}

// A CatalogueName is a name in a Catalogue.
type CatalogueName struct {
	Name     string // normalized
	Slot     uint32
	Image    int // index in Catalogue.Images
	Manifest ocispec.Descriptor
	Created  time.Time
}

// A CatalogueImage is an image in a Catalogue.
type CatalogueImage struct {
	ID       digest.Digest
	Slot     uint32
	Loaded   time.Time
	Layers   []int // indexes in Catalogue.Layers, bottom first
	Config   ocispec.Descriptor
	Manifest ocispec.Descriptor // the first that it came in with
}

// A CatalogueLayer is a layer in a Catalogue.
type CatalogueLayer struct {
	DiffID  DiffID
	Slot    uint32
	Size    int64 // bytes of the uncompressed tar
	Created time.Time
	Info    []byte // the text of info.json
}

// Catalogue returns the newest picture of the store.
func (s *Store) Catalogue(ctx context.Context) (*Catalogue, error) {
	var c *Catalogue
	err := s.index.View(ctx, func(tx *index.Tx) (err error) {
		c = &Catalogue{Generation: tx.Generation()}
		if err := c.addLayers(tx); err != nil {
			return err
		}
		if err := c.addImages(tx); err != nil {
			return err
		}
		return c.addNames(tx)
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Catalogue) addLayers(tx *index.Tx) error {
	return tx.EachLayer(func(l index.Layer) error {
		info, err := json.MarshalIndent(l, "", "  ")
		if err != nil {
			return err
		}
		c.Layers = append(c.Layers, CatalogueLayer{
			DiffID: DiffID(l.DiffID), Slot: l.Slot, Size: l.Size, Created: l.Created, Info: append(info, '\n'),
		})
		return nil
	})
}

func (c *Catalogue) addImages(tx *index.Tx) error {
	return tx.EachImage(func(img index.Image) error {
		if len(img.Manifests) == 0 {
			return fmt.Errorf("%w: image %s has no manifest", ErrDamaged, img.ID)
		}
		out := CatalogueImage{
			ID: img.ID, Slot: img.Slot, Loaded: img.Loaded, Config: img.Config, Manifest: img.Manifests[0].Descriptor,
		}
		for _, d := range img.Layers {
			i, ok := slices.BinarySearchFunc(c.Layers, d, func(l CatalogueLayer, d digest.Digest) int {
				return compareStrings(string(l.DiffID), string(d))
			})
			if !ok {
				return fmt.Errorf("%w: image %s: layer %s is missing", ErrDamaged, img.ID, d)
			}
			out.Layers = append(out.Layers, i)
		}
		c.Images = append(c.Images, out)
		return nil
	})
}

func (c *Catalogue) addNames(tx *index.Tx) error {
	return tx.EachName(func(n index.Name) error {
		i, ok := slices.BinarySearchFunc(c.Images, n.Image, func(img CatalogueImage, d digest.Digest) int {
			return compareStrings(string(img.ID), string(d))
		})
		if !ok {
			return fmt.Errorf("%w: name %s: image %s is missing", ErrDamaged, n.Name, n.Image)
		}
		c.Names = append(c.Names, CatalogueName{Name: n.Name, Slot: n.Slot, Image: i, Manifest: n.Manifest, Created: n.Created})
		return nil
	})
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
