package index

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// plausible refuses what cannot be a digest of ours: a damaged file must not get a
// value into the program that package digest panics on.
func plausible(digests ...digest.Digest) error {
	for _, d := range digests {
		if d == "" {
			continue // not everything has one
		}
		if len(d) != len("sha256:")+64 || !strings.HasPrefix(string(d), "sha256:") {
			return fmt.Errorf("%w: %q is no digest", ErrDamaged, d)
		}
	}
	return nil
}

func (n *Name) check() error {
	if n.Name == "" {
		return fmt.Errorf("%w: it has no name", ErrDamaged)
	}
	return plausible(n.Image, n.Manifest.Digest)
}

func (img *Image) check() error {
	if err := plausible(img.ID, img.Config.Digest); err != nil {
		return err
	}
	for _, m := range img.Manifests {
		if err := plausible(m.Descriptor.Digest); err != nil {
			return err
		}
		for _, l := range m.Layers {
			if err := plausible(l.Digest); err != nil {
				return err
			}
		}
	}
	return plausible(img.Layers...)
}

func (l *Layer) check() error {
	for _, b := range l.Blobs {
		if err := plausible(b.Digest); err != nil {
			return err
		}
	}
	return plausible(l.DiffID)
}

func (c *Container) check() error {
	return plausible(append(slices.Clone(c.Layers), c.Image)...)
}

func (r *LayerRecord) check() error {
	return plausible(append(slices.Clone(r.Layers), r.DiffID)...)
}
