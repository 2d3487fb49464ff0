package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// An OCIImage is an image as an OCI layout can show it.
type OCIImage struct {
	// Manifest describes the manifest, Raw is its text. They are as the image came,
	// unless layers are gone.
	Manifest ocispec.Descriptor
	Raw      []byte
	Config   ocispec.Descriptor
	// Layers are what the manifest names; OpenLayerBlob opens them.
	Layers []ocispec.Descriptor
	// Changed says that layers were not kept as they came. The manifest names their
	// uncompressed tars instead, and has another digest.
	Changed bool
}

// OCIImage returns the image of a manifest, whose stack is given bottom first.
func (s *Store) OCIImage(ctx context.Context, manifest digest.Digest, stack []DiffID) (*OCIImage, error) {
	raw, err := s.Blob(manifest)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(raw, ocispec.Descriptor{})
	if err != nil {
		return nil, err
	}
	if len(m.Layers) != len(stack) {
		return nil, fmt.Errorf("%w: manifest %s has %d layers, its image has %d", ErrDamaged, manifest, len(m.Layers), len(stack))
	}
	out := &OCIImage{Raw: raw, Config: m.Config, Layers: m.Layers}
	has, err := s.hasForms(ctx, m.Layers)
	if err != nil {
		return nil, err
	}
	for i, d := range stack {
		if m.Layers[i].Digest == digest.Digest(d) || has[m.Layers[i].Digest] {
			continue
		}
		if out.Layers[i], err = s.plainForm(ctx, m.Layers[i], d); err != nil {
			return nil, err
		}
		out.Changed = true
	}
	if out.Changed {
		if out.Raw, err = withLayers(raw, out.Layers); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", manifest, err)
		}
	}
	mediaType := m.MediaType
	if mediaType == "" {
		mediaType = ocispec.MediaTypeImageManifest
	}
	out.Manifest = ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(out.Raw), Size: int64(len(out.Raw))}
	return out, nil
}

// hasForms returns which blobs this store or an additional one can give.
func (s *Store) hasForms(ctx context.Context, blobs []ocispec.Descriptor) (map[digest.Digest]bool, error) {
	has := map[digest.Digest]bool{}
	for _, st := range append([]lower{s}, s.lowers()...) {
		err := st.view(ctx, func(tx *index.Tx) error {
			for _, b := range blobs {
				f, err := tx.Form(sumOf(b.Digest))
				if err != nil && !errors.Is(err, index.ErrNotFound) {
					return err
				}
				has[b.Digest] = has[b.Digest] || err == nil && f.How != index.FormGone
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return has, nil
}

// plainForm describes the uncompressed tar of a layer in place of a blob that cannot
// be had.
func (s *Store) plainForm(ctx context.Context, blob ocispec.Descriptor, d DiffID) (ocispec.Descriptor, error) {
	l, err := s.Layer(ctx, string(d))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	plain := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.Digest(d), Size: l.Size}
	if strings.HasPrefix(blob.MediaType, "application/vnd.docker.") {
		plain.MediaType = MediaTypeDockerLayer
	}
	return plain, nil
}

// withLayers puts other layers into a manifest; all other fields keep their value.
func withLayers(raw []byte, layers []ocispec.Descriptor) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	list, err := json.Marshal(layers)
	if err != nil {
		return nil, err
	}
	fields["layers"] = list
	return json.Marshal(fields)
}
