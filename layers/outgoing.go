package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// An Outgoing image is an image of the store with the bytes that it came with. It
// implements Source, so that an image can go wherever one can come from.
type Outgoing struct {
	s        *Store
	img      *Image
	manifest index.Manifest
}

// Outgoing returns the image as it came under a name, or for an empty or unknown name
// as it came first.
func (s *Store) Outgoing(img *Image, name string) *Outgoing {
	return &Outgoing{s: s, img: img, manifest: img.Manifest(name)}
}

// OutgoingManifest returns the image as it came with one of its manifests.
func (s *Store) OutgoingManifest(img *Image, m index.Manifest) *Outgoing {
	return &Outgoing{s: s, img: img, manifest: m}
}

// Manifest returns the manifest as it was received.
func (o *Outgoing) Manifest(context.Context) ([]byte, ocispec.Descriptor, error) {
	raw, err := o.s.Blob(o.manifest.Descriptor.Digest)
	return raw, o.manifest.Descriptor, err
}

// Blob opens the config or a layer blob. It returns ErrBlobGone when a layer came as
// this blob, but only its content was kept.
func (o *Outgoing) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if desc.Digest != o.img.Config.Digest && o.img.IsArtifact() {
		return o.s.openArtifactBlob(ctx, desc)
	}
	if desc.Digest != o.img.Config.Digest {
		return o.s.OpenLayerBlob(ctx, desc)
	}
	raw, err := o.s.Blob(desc.Digest)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}

// ArtifactBlob opens a blob of an artifact, which has no layers.
func (o *Outgoing) ArtifactBlob(ctx context.Context, desc ocispec.Descriptor) (*LayerBlob, error) {
	return o.s.openArtifactBlob(ctx, desc)
}

// Repositories returns, for each of the layer blobs, the repositories of which the
// store has an image with that blob; a registry may have it there.
func (s *Store) Repositories(ctx context.Context, blobs []digest.Digest) (map[digest.Digest][]string, error) {
	wanted := map[digest.Digest]bool{}
	for _, d := range blobs {
		wanted[d] = true
	}
	var out map[digest.Digest][]string
	err := s.index.View(ctx, func(tx *index.Tx) error {
		out = map[digest.Digest][]string{}
		names := map[digest.Digest][]index.Name{}
		err := tx.EachName(func(n index.Name) error {
			names[n.Image] = append(names[n.Image], n)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.EachImage(func(img index.Image) error {
			for _, n := range names[img.ID] {
				repository, _, _ := SplitName(n.Name)
				addRepository(out, wanted, img, n, repository)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("repositories: %w", err)
	}
	return out, nil
}

func addRepository(out map[digest.Digest][]string, wanted map[digest.Digest]bool, img index.Image, n index.Name, repository string) {
	for _, m := range img.Manifests {
		if m.Descriptor.Digest != n.Manifest.Digest {
			continue
		}
		for _, l := range m.Layers {
			known := out[l.Digest]
			if wanted[l.Digest] && (len(known) == 0 || known[len(known)-1] != repository) {
				out[l.Digest] = append(known, repository)
			}
		}
	}
}

// Missing returns how many layers of a manifest the store cannot give as they are
// there, and the sum of their sizes: what a pull of it would fetch.
func (s *Store) Missing(ctx context.Context, m ocispec.Manifest) (count int, size int64, err error) {
	err = s.index.View(ctx, func(tx *index.Tx) error {
		count, size = 0, 0
		seen := map[digest.Digest]bool{}
		for _, l := range m.Layers {
			if seen[l.Digest] {
				continue
			}
			seen[l.Digest] = true
			f, err := tx.Form(sumOf(l.Digest))
			if errors.Is(err, index.ErrNotFound) {
				_, err = tx.Layer(l.Digest)
			} else if err == nil && f.How == index.FormGone {
				err = index.ErrNotFound
			}
			switch {
			case errors.Is(err, index.ErrNotFound):
				count, size = count+1, size+l.Size
			case err != nil:
				return err
			}
		}
		return nil
	})
	return count, size, err
}
