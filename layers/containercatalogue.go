package layers

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// A CatalogueContainer is a container in a Catalogue.
type CatalogueContainer struct {
	ID      string
	Slot    uint32
	Names   []string      // in byte order
	Image   digest.Digest // empty: made from nothing
	Layers  []int         // indexes in Catalogue.Layers, bottom first
	Created time.Time
	record  index.Raw
}

// Container returns the record.
func (c *CatalogueContainer) Container() (*Container, error) {
	rec, err := c.record.DecodeContainer()
	return &Container{rec}, err
}

// Labels returns the text of labels.json.
func (c *CatalogueContainer) Labels() ([]byte, error) {
	rec, err := c.Container()
	if err != nil {
		return nil, err
	}
	if rec.Labels == nil {
		rec.Labels = map[string]string{}
	}
	text, err := json.MarshalIndent(rec.Labels, "", "  ")
	return append(text, '\n'), err
}

// addContainers adds the containers whose layers are there; another one cannot be
// shown, and must not keep the rest from being shown.
func (c *Catalogue) addContainers(tx *index.Tx, places map[index.Sum]int) error {
	byID := map[string]int{}
	err := tx.EachRawContainer(func(raw index.Raw) error {
		out := CatalogueContainer{ID: raw.Key, Slot: raw.Slot, Created: raw.Time, record: raw}
		if raw.Image != (index.Sum{}) {
			out.Image = descriptor(raw.Image, 0).Digest
		}
		for _, sum := range raw.Layers {
			place, ok := places[sum]
			if !ok {
				return nil
			}
			out.Layers = append(out.Layers, place)
		}
		byID[out.ID] = len(c.Containers)
		c.Containers = append(c.Containers, out)
		return nil
	})
	if err != nil {
		return err
	}
	return tx.EachContainerName(func(name, id string) error {
		if i, ok := byID[id]; ok {
			c.Containers[i].Names = append(c.Containers[i].Names, name)
		}
		return nil
	})
}
