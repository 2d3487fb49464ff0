package layers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/spool"
)

// A DiskUsage says where the space of the store goes. Sizes are those of the
// contents of files, each counted once, and of what layerfs writes about a layer. What
// lies in additional stores takes no space in this one, and is listed apart.
type DiskUsage struct {
	Total  int64        `json:"total"`
	Images []ImageUsage `json:"images"` // the largest unique size first
	// Roots are the lowest layers of all stacks, with what lies on them.
	Roots []*LayerUsage `json:"roots"`
	// Additional are the additional stores, in the order of the search.
	Additional []AdditionalUsage `json:"additional,omitempty"`
}

// An ImageUsage is the space that an image takes.
type ImageUsage struct {
	ImageRef
	Total  int64 `json:"total"`  // the sum of its layers
	Shared int64 `json:"shared"` // the rest: with other images, or between its own layers
	Unique int64 `json:"unique"` // what removing this image alone would free
}

// A LayerUsage is a layer on top of the stack that leads to it. A layer that lies
// on several stacks is there several times.
type LayerUsage struct {
	Layer DiffID `json:"layer"`
	// Store is the root of the additional store that the layer lies in: images of this
	// one stand on it, but it takes no space here.
	Store  string `json:"store,omitempty"`
	Total  int64  `json:"total"`
	Shared int64  `json:"shared"` // contents that other layers hold too
	Unique int64  `json:"unique"`
	// Stack is the sum of Total from the bottom up to here; what the layers have in
	// common is counted in each.
	Stack    int64         `json:"stack"`
	Images   []ImageRef    `json:"images,omitempty"` // whose topmost layer this is
	Children []*LayerUsage `json:"children,omitempty"`
}

// several marks a content that more than one layer, or image, has.
const several = -1

// owner is who has a content: an index, or several.
type owner struct {
	size         int64
	layer, image int32
}

// A surveyor adds up the space of a store.
type surveyor struct {
	s      *Store
	layers []LayerUsage // in the order of DiffIDs
	place  map[index.Sum]int32
	owners [][]int32 // images of each layer
	images []ImageUsage
	stacks [][]index.Sum
	bodies *spool.Map[owner]
}

// DiskUsage reads the trees of all layers of the store itself and adds up what is
// whose.
func (s *Store) DiskUsage(ctx context.Context) (_ *DiskUsage, err error) {
	v := &surveyor{s: s, bodies: spool.NewMap[owner](s.spoolDir())}
	defer v.bodies.Close()
	if err := s.index.View(ctx, v.records); err != nil {
		return nil, err
	}
	for i := range v.layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := v.survey(int32(i)); err != nil {
			return nil, fmt.Errorf("layer %s: %w", v.layers[i].Layer, err)
		}
	}
	out := &DiskUsage{}
	v.bodies.Each(func(_ spool.Key, o *owner) bool {
		out.Total += o.size
		if o.layer != several {
			v.layers[o.layer].Unique += o.size
		}
		if o.image != several {
			v.images[o.image].Unique += o.size
		}
		return true
	})
	for i := range v.layers {
		l := &v.layers[i]
		l.Shared = l.Total - l.Unique
		for _, img := range v.owners[i] {
			v.images[img].Total += l.Total
		}
	}
	for i := range v.images {
		v.images[i].Shared = v.images[i].Total - v.images[i].Unique
	}
	out.Roots = v.forest()
	out.Images = v.images
	if out.Additional, err = s.additionalUsage(ctx); err != nil {
		return nil, err
	}
	slices.SortStableFunc(out.Images, func(a, b ImageUsage) int { return cmp.Compare(b.Unique, a.Unique) })
	return out, nil
}

// records reads which layers and images there are.
func (v *surveyor) records(tx *index.Tx) error {
	v.layers, v.images, v.stacks, v.place = nil, nil, nil, map[index.Sum]int32{}
	err := tx.EachRawLayer(func(l index.Raw) error {
		rec, err := l.DecodeLayer()
		v.place[sumOf(l.Digest())] = int32(len(v.layers))
		v.layers = append(v.layers, LayerUsage{Layer: DiffID(l.Digest()), Store: rec.Additional})
		return err
	})
	if err != nil {
		return err
	}
	v.owners = make([][]int32, len(v.layers))
	refs, err := imageRefs(tx)
	if err != nil {
		return err
	}
	return tx.EachRawImage(func(img index.Raw) error {
		n := int32(len(v.images))
		v.images = append(v.images, ImageUsage{ImageRef: refs[img.Digest()]})
		v.stacks = append(v.stacks, img.Layers)
		for _, sum := range img.Layers {
			l, ok := v.place[sum]
			if !ok {
				return fmt.Errorf("%w: image %s: layer %x is not in the index; run `layerfs check`", ErrDamaged, img.Digest(), sum)
			}
			if o := v.owners[l]; len(o) == 0 || o[len(o)-1] != n {
				v.owners[l] = append(o, n)
			}
		}
		return nil
	})
}

// survey adds the contents of one layer.
func (v *surveyor) survey(i int32) (err error) {
	u := &v.layers[i]
	if u.Store != "" {
		return nil
	}
	l, err := v.s.OpenLayer(u.Layer)
	if errors.Is(err, ErrLayerUnknown) {
		return nil // removed since the records were read
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	image := int32(several)
	if o := v.owners[i]; len(o) == 1 {
		image = o[0]
	}
	meta := diskUsage(v.s.layerDir(u.Layer))
	u.Total, u.Unique = meta, meta
	if image != several {
		v.images[image].Unique += meta
	}
	return l.tree.EachBody(func(b tree.Body) error {
		u.Total += b.Size
		return v.body(b, i, image)
	})
}

// body notes that a layer has a content.
func (v *surveyor) body(b tree.Body, layer, image int32) error {
	o, known := v.bodies.Get(b.Sum)
	if !known {
		return v.bodies.Put(b.Sum, owner{size: b.Size, layer: layer, image: image})
	}
	if o.image != image {
		o.image = several
	}
	o.layer = several
	return v.bodies.Put(b.Sum, o)
}

// forest puts the layers into trees, one branch for each stack.
func (v *surveyor) forest() []*LayerUsage {
	root := &LayerUsage{}
	used := make([]bool, len(v.layers))
	for i, stack := range v.stacks {
		at := root
		for _, sum := range stack {
			used[v.place[sum]] = true
			at = v.child(at, v.place[sum])
		}
		if at != root {
			at.Images = append(at.Images, v.images[i].ImageRef)
		}
	}
	for i := range v.layers {
		if !used[i] {
			v.child(root, int32(i))
		}
	}
	sortLayers(root.Children)
	return root.Children
}

// child returns the layer on top of at, added if need be.
func (v *surveyor) child(at *LayerUsage, layer int32) *LayerUsage {
	for _, c := range at.Children {
		if c.Layer == v.layers[layer].Layer {
			return c
		}
	}
	c := v.layers[layer] // a copy: it may lie on several stacks
	c.Stack = at.Stack + c.Total
	at.Children = append(at.Children, &c)
	return &c
}

// sortLayers orders a tree by what its branches take, the largest first.
func sortLayers(list []*LayerUsage) {
	slices.SortStableFunc(list, func(a, b *LayerUsage) int { return cmp.Compare(b.Total, a.Total) })
	for _, l := range list {
		sortLayers(l.Children)
	}
}
