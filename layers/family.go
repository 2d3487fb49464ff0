package layers

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// A Family says which images stand on which: the parent of an image is the one with
// the longest stack that its own stack begins with and goes beyond. Of several with
// the same stack it is the one that was loaded first.
type Family struct {
	Parents  map[digest.Digest]digest.Digest   // of those that have one
	Children map[digest.Digest][]digest.Digest // in the order of their IDs
	Heads    []digest.Digest                   // images that are nobody's parent, in the order of their IDs
}

// Family computes the family of all images of the store from the heads of their
// records.
func (s *Store) Family(ctx context.Context) (*Family, error) {
	var images []index.Raw
	err := s.view(ctx, func(tx *index.Tx) error {
		images = images[:0]
		return tx.EachRawImage(func(raw index.Raw) error {
			images = append(images, raw)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	tops := map[string]index.Raw{} // by stack
	for _, img := range images {
		key := stackKey(img.Layers)
		if old, ok := tops[key]; !ok || img.Time.Before(old.Time) {
			tops[key] = img
		}
	}
	f := &Family{Parents: map[digest.Digest]digest.Digest{}, Children: map[digest.Digest][]digest.Digest{}}
	for _, img := range images {
		for n := len(img.Layers) - 1; n > 0; n-- {
			if p, ok := tops[stackKey(img.Layers[:n])]; ok {
				f.Parents[img.Digest()] = p.Digest()
				f.Children[p.Digest()] = append(f.Children[p.Digest()], img.Digest())
				break
			}
		}
	}
	for _, img := range images {
		if len(f.Children[img.Digest()]) == 0 {
			f.Heads = append(f.Heads, img.Digest())
		}
	}
	return f, nil
}

func stackKey(stack []index.Sum) string {
	key := make([]byte, 0, 32*len(stack))
	for _, sum := range stack {
		key = append(key, sum[:]...)
	}
	return string(key)
}

// Ancestors returns the line of parents of an image, the nearest first.
func (f *Family) Ancestors(id digest.Digest) []digest.Digest {
	var line []digest.Digest
	for p, ok := f.Parents[id]; ok && !slices.Contains(line, p); p, ok = f.Parents[p] {
		line = append(line, p)
	}
	return line
}
