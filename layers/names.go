package layers

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// Tag gives more names to an image; a name that another image holds moves. All
// names are given or, after an error, none. An image of an additional store becomes
// one of this store, whose layers stay where they are.
func (s *Store) Tag(ctx context.Context, nameOrID string, names ...string) error {
	if err := s.writable(); err != nil {
		return err
	}
	normal, err := normalizeAll(names)
	if err != nil {
		return err
	}
	if nameOrID, err = s.adopt(ctx, nameOrID); err != nil {
		return err
	}
	return s.index.Update(ctx, "tag", func(tx *index.Tx) error {
		img, found, err := resolve(tx, nameOrID)
		if err != nil {
			return err
		}
		manifest, err := manifestOf(tx, img, found)
		if err != nil {
			return err
		}
		for _, name := range normal {
			if err := checkDigestName(name, img); err != nil {
				return err
			}
			if err := setName(tx, name, img.ID, manifest); err != nil {
				return err
			}
		}
		return nil
	})
}

// manifestOf returns the manifest that a name stands for, or the image's first.
func manifestOf(tx *index.Tx, img index.Image, name string) (ocispec.Descriptor, error) {
	if name != "" {
		n, err := tx.Name(name)
		return n.Manifest, err
	}
	if len(img.Manifests) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("%w: image %s has no manifest", ErrDamaged, img.ID)
	}
	return img.Manifests[0].Descriptor, nil
}

// checkDigestName refuses repository@digest when the digest is not one of the
// image's manifests: such a name would promise something else.
func checkDigestName(name string, img index.Image) error {
	_, _, d := SplitName(name)
	if d == "" {
		return nil
	}
	for _, m := range img.Manifests {
		if m.Descriptor.Digest == d || slices.ContainsFunc(m.Indexes, func(x ocispec.Descriptor) bool { return x.Digest == d }) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not the digest of a manifest of image %s", ErrInvalidName, d, img.ID)
}

// Untag removes names from an image. The image stays, also without any name. All
// names are removed or, after an error, none. It returns the normalized names.
func (s *Store) Untag(ctx context.Context, names ...string) ([]string, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	var removed []string
	err := s.index.Update(ctx, "untag", func(tx *index.Tx) error {
		removed = removed[:0]
		for _, name := range names {
			_, found, err := resolve(tx, name)
			if err != nil {
				return err
			}
			if found == "" {
				return fmt.Errorf("%w: %q is an ID; say which name to remove", ErrInvalidName, name)
			}
			if err := tx.DeleteName(found); err != nil {
				return err
			}
			removed = append(removed, found)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return removed, nil
}
