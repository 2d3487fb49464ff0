package layers

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// An AdditionalUsage is what an additional store holds, as its records say: a content
// that several layers have is counted with each. Nothing of it is in DiskUsage.Total.
type AdditionalUsage struct {
	Root   string            `json:"root"`
	Total  int64             `json:"total"`  // the sum of the layers
	Images []AdditionalImage `json:"images"` // the largest first
	Layers []AdditionalLayer `json:"layers"` // the largest first
}

// An AdditionalImage is an image of an additional store.
type AdditionalImage struct {
	ImageRef
	Total int64 `json:"total"` // the sum of its layers
}

// An AdditionalLayer is a layer of an additional store.
type AdditionalLayer struct {
	Layer  DiffID     `json:"layer"`
	Total  int64      `json:"total"`
	Images []ImageRef `json:"images,omitempty"` // whose topmost layer this is
}

// additionalUsage reads what the additional stores hold from their indexes.
func (s *Store) additionalUsage(ctx context.Context) ([]AdditionalUsage, error) {
	var out []AdditionalUsage
	for _, st := range s.lowers() {
		u, err := readAdditionalUsage(ctx, st)
		if err != nil {
			return nil, fmt.Errorf("additional store %s: %w", st.Root(), err)
		}
		out = append(out, *u)
	}
	return out, nil
}

func readAdditionalUsage(ctx context.Context, st lower) (*AdditionalUsage, error) {
	refs, err := readStackRefs(ctx, st, st.Root())
	if err != nil {
		return nil, err
	}
	var sizes map[digest.Digest]int64
	err = st.view(ctx, func(tx *index.Tx) (err error) {
		sizes, err = layerSizes(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	u := &AdditionalUsage{Root: st.Root(), Images: []AdditionalImage{}, Layers: []AdditionalLayer{}}
	tops := map[digest.Digest][]ImageRef{}
	for _, r := range refs {
		img := AdditionalImage{ImageRef: r.ImageRef}
		for _, sum := range r.layers {
			img.Total += sizes[descriptor(sum, 0).Digest]
		}
		u.Images = append(u.Images, img)
		if n := len(r.layers); n > 0 {
			top := descriptor(r.layers[n-1], 0).Digest
			tops[top] = append(tops[top], r.ImageRef)
		}
	}
	for d, n := range sizes {
		u.Total += n
		u.Layers = append(u.Layers, AdditionalLayer{Layer: DiffID(d), Total: n, Images: tops[d]})
	}
	slices.SortStableFunc(u.Images, func(a, b AdditionalImage) int { return cmp.Compare(b.Total, a.Total) })
	slices.SortFunc(u.Layers, func(a, b AdditionalLayer) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Layer, b.Layer))
	})
	return u, nil
}
