package layers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// mergeImages adds the images of an additional store that are not among those found
// so far, and to those that are the names that nobody has yet.
func mergeImages(have, more []Image) []Image {
	places := map[digest.Digest]int{}
	names := map[string]bool{}
	for i, img := range have {
		places[img.ID] = i
		for _, n := range img.Names {
			names[n.Name] = true
		}
	}
	for _, img := range more {
		img.Names = slices.DeleteFunc(slices.Clone(img.Names), func(n index.Name) bool { return names[n.Name] })
		i, known := places[img.ID]
		if !known {
			have = append(have, img)
			continue
		}
		have[i].Names = append(have[i].Names, img.Names...)
		slices.SortFunc(have[i].Names, func(a, b index.Name) int { return cmp.Compare(a.Name, b.Name) })
	}
	return have
}

// mergeLayers adds the layers of an additional store that are not among those found
// so far, and to those that are the images that stand on them.
func mergeLayers(have, more []LayerInfo) []LayerInfo {
	places := map[digest.Digest]int{}
	for i, l := range have {
		places[l.DiffID] = i
	}
	for _, l := range more {
		i, known := places[l.DiffID]
		if !known {
			have = append(have, l)
			continue
		}
		for _, id := range l.Images {
			if !slices.Contains(have[i].Images, id) {
				have[i].Images = append(have[i].Images, id)
			}
		}
	}
	slices.SortFunc(have, func(a, b LayerInfo) int { return cmp.Compare(a.DiffID, b.DiffID) })
	return have
}

// merge adds what an additional store has and c has not. What is added gets a slot
// from the book.
func (c *Catalogue) merge(more *Catalogue, book *slotBook) {
	layers, images, names := map[DiffID]int{}, map[digest.Digest]int{}, map[string]bool{}
	for i := range c.Layers {
		layers[c.Layers[i].DiffID] = i
	}
	for i := range c.Images {
		images[c.Images[i].ID] = i
	}
	for i := range c.Names {
		names[c.Names[i].Name] = true
	}
	layerAt, imageAt := make([]int, len(more.Layers)), make([]int, len(more.Images))
	for i, l := range more.Layers {
		at, known := layers[l.DiffID]
		if !known {
			at, l.Slot = len(c.Layers), book.layer(l.DiffID)
			c.Layers = append(c.Layers, l)
		}
		layerAt[i] = at
	}
	for i, img := range more.Images {
		at, known := images[img.ID]
		if !known {
			at, img.Slot, img.Layers = len(c.Images), book.view(string(img.ID)), slices.Clone(img.Layers)
			for j, l := range img.Layers {
				img.Layers[j] = layerAt[l]
			}
			c.Images = append(c.Images, img)
		}
		imageAt[i] = at
	}
	for _, n := range more.Names {
		if !names[n.Name] {
			n.Image = imageAt[n.Image]
			n.Slot = book.view(n.Name + " " + string(c.Images[n.Image].ID))
			c.Names = append(c.Names, n)
		}
	}
}

// sort restores the orders that the fields promise.
func (c *Catalogue) sort() {
	layerAt := order(len(c.Layers), func(i, j int) int { return cmp.Compare(c.Layers[i].DiffID, c.Layers[j].DiffID) })
	imageAt := order(len(c.Images), func(i, j int) int { return cmp.Compare(c.Images[i].ID, c.Images[j].ID) })
	for i := range c.Images {
		for j, l := range c.Images[i].Layers {
			c.Images[i].Layers[j] = layerAt[l]
		}
	}
	for i := range c.Names {
		c.Names[i].Image = imageAt[c.Names[i].Image]
	}
	slices.SortFunc(c.Layers, func(a, b CatalogueLayer) int { return cmp.Compare(a.DiffID, b.DiffID) })
	slices.SortFunc(c.Images, func(a, b CatalogueImage) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(c.Names, func(a, b CatalogueName) int { return cmp.Compare(a.Name, b.Name) })
}

// order returns where each of n things goes when they are sorted.
func order(n int, compare func(i, j int) int) []int {
	sorted := make([]int, n)
	for i := range sorted {
		sorted[i] = i
	}
	slices.SortFunc(sorted, compare)
	at := make([]int, n)
	for place, i := range sorted {
		at[i] = place
	}
	return at
}

// addLowers merges the additional stores into the picture. One that cannot be read is
// left out.
func (s *Store) addLowers(ctx context.Context, c *Catalogue) {
	if len(s.additional) == 0 {
		return
	}
	for _, a := range s.additional {
		st, err := a.use()
		if err == nil {
			var more *Catalogue
			if more, err = readCatalogue(ctx, st); err == nil {
				c.merge(more, &s.slots)
				c.Problems = append(c.Problems, st.notes()...)
			}
		}
		if err != nil {
			c.Problems = append(c.Problems, err.Error())
		}
	}
	c.sort()
	c.Generation = s.combine(ctx, c.Generation)
}

// combine makes a generation of the own one and those of the additional stores: it
// changes whenever one of them changes, comes or goes. The numbers of different
// pictures differ, but do not grow.
func (s *Store) combine(ctx context.Context, own uint64) uint64 {
	if len(s.additional) == 0 {
		return own
	}
	h := fnv.New64a()
	fmt.Fprint(h, own)
	for _, a := range s.additional {
		var n uint64
		st, err := a.use()
		if err == nil {
			err = st.view(ctx, func(tx *index.Tx) error {
				n = tx.Generation()
				return nil
			})
		}
		a.mu.Lock()
		fmt.Fprint(h, " ", n, err == nil, a.mark)
		a.mu.Unlock()
	}
	return h.Sum64()
}

// A slotBook gives slots to what is in additional stores, above those that the index
// gives. A slot is computed from the name of what gets it, so that inode numbers
// are the same in every mount; only when two collide it depends on who came first. A
// slot is never given to something else while the book lives.
type slotBook struct {
	mu    sync.Mutex
	given map[string]uint32
	taken map[string]bool // by kind and slot
}

func (b *slotBook) layer(d DiffID) uint32   { return b.slot("layer", string(d)) }
func (b *slotBook) view(name string) uint32 { return b.slot("view", name) }

func (b *slotBook) slot(kind, name string) uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.given == nil {
		b.given, b.taken = map[string]uint32{}, map[string]bool{}
	}
	key := kind + " " + name
	if slot, ok := b.given[key]; ok {
		return slot
	}
	sum := sha256.Sum256([]byte(key))
	n := binary.BigEndian.Uint32(sum[:])
	for {
		slot := index.MaxSlot + 1 + n%index.MaxSlot
		place := fmt.Sprint(kind, slot)
		if !b.taken[place] {
			b.taken[place], b.given[strings.Clone(key)] = true, slot
			return slot
		}
		n++
	}
}
