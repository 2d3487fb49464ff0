package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/platform"
	"github.com/layerfs/layerfs/layers"
)

const (
	// maxDepth limits how deep indexes nest.
	maxDepth = 8
	// maxInstances limits how many descriptors the indexes of one name hold.
	maxInstances = 2000
)

// An Instance is one manifest that a name stands for.
type Instance struct {
	Descriptor ocispec.Descriptor
	// Indexes are the documents that led to it, the outermost first.
	Indexes [][]byte
	// Attestation is set for what buildkit puts beside the images of an index. Select
	// never returns it.
	Attestation bool

	raw []byte // when it is known already
}

// Instances lists the images that the name stands for, those of nested indexes
// and attestations included. Schema 1 is refused.
func (r *Remote) Instances(ctx context.Context) ([]Instance, error) {
	l := lister{r: r, left: maxInstances}
	if err := l.visit(ctx, &manifest{r.Raw, r.Descriptor}, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	return l.out, nil
}

type lister struct {
	r    *Remote
	left int
	out  []Instance
}

func (l *lister) visit(ctx context.Context, m *manifest, above [][]byte) error {
	if isSchema1(m.desc.MediaType) {
		return fmt.Errorf("%w: docker schema 1 manifests are not supported; convert the image with `skopeo copy --format v2s2`", layers.ErrInvalidImage)
	}
	if !isIndex(m.desc.MediaType) {
		l.out = append(l.out, Instance{Descriptor: m.desc, Indexes: above, raw: m.raw})
		return nil
	}
	if len(above) >= maxDepth {
		return fmt.Errorf("%w: its indexes nest deeper than %d", ErrTooLarge, maxDepth)
	}
	descs, err := parseIndex(m)
	if err != nil {
		return err
	}
	above = append(slices.Clone(above), m.raw)
	for _, d := range descs {
		if l.left--; l.left < 0 {
			return fmt.Errorf("%w: its indexes hold more than %d manifests", ErrTooLarge, maxInstances)
		}
		if !isIndex(d.MediaType) {
			l.out = append(l.out, Instance{Descriptor: d, Indexes: above, Attestation: platform.IsAttestation(d)})
			continue
		}
		inner, err := l.r.e.getManifest(ctx, d.Digest.String())
		if err != nil {
			return err
		}
		if err := l.visit(ctx, inner, above); err != nil {
			return err
		}
	}
	return nil
}

func parseIndex(m *manifest) ([]ocispec.Descriptor, error) {
	var index ocispec.Index
	var other struct {
		Config *json.RawMessage `json:"config"`
		Layers *json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(m.raw, &index); err != nil {
		return nil, fmt.Errorf("%w: index %s: %w", layers.ErrInvalidImage, m.desc.Digest, err)
	}
	if json.Unmarshal(m.raw, &other) == nil && (other.Config != nil || other.Layers != nil) {
		return nil, fmt.Errorf("%w: index %s is a manifest and an index at once", layers.ErrInvalidImage, m.desc.Digest)
	}
	for _, d := range index.Manifests {
		if d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 {
			return nil, fmt.Errorf("%w: index %s: digest %q: want one of sha256", layers.ErrInvalidImage, m.desc.Digest, string(d.Digest))
		}
	}
	return index.Manifests, nil
}

// Select returns the instance for a platform; nil means this machine's, as a
// preference: an image that exists for one platform only is taken whatever that is.
// It returns ErrNoPlatform, and says what there is, when none fits.
func Select(list []Instance, wanted *ocispec.Platform) (Instance, error) {
	want := platform.Host()
	if wanted != nil {
		want = *wanted
	}
	list = slices.DeleteFunc(slices.Clone(list), func(in Instance) bool { return in.Attestation })
	best := -1
	for i, in := range list {
		if s := platform.Score(want, in.Descriptor.Platform); s > 0 &&
			(best < 0 || s > platform.Score(want, list[best].Descriptor.Platform)) {
			best = i
		}
	}
	if best < 0 && wanted == nil && len(list) == 1 {
		best = 0
	}
	if best < 0 {
		return Instance{}, fmt.Errorf("%w %s: there is %s", ErrNoPlatform, platform.Text(&want), available(list))
	}
	return list[best], nil
}

func available(list []Instance) string {
	var names []string
	for _, in := range list {
		if s := platform.Text(in.Descriptor.Platform); !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return strings.Join(names, ", ")
}
