package registry

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker/reference"

	"github.com/layerfs/layerfs/internal/platform"
	"github.com/layerfs/layerfs/layers"
)

// PushIndex sends an index of a store with all that it names, and returns its digest. An
// image of it that the store does not have must be in the repository already; otherwise
// the error wraps layers.ErrImageUnknown.
func (c *Client) PushIndex(ctx context.Context, st *layers.Store, index ocispec.Descriptor, named reference.Named, o *PushOptions) (digest.Digest, error) {
	e, err := c.target(ctx, named)
	if err != nil {
		return "", err
	}
	if e.hasManifest(ctx, refOf(named), index.Digest) {
		return index.Digest, nil
	}
	images, err := st.Images(ctx)
	if err != nil {
		return "", err
	}
	p := indexPusher{c: c, e: e, st: st, named: named, o: o, images: map[digest.Digest]*layers.Outgoing{}}
	for i := range images {
		for _, m := range images[i].Manifests {
			p.images[m.Descriptor.Digest] = st.OutgoingManifest(&images[i], m)
		}
	}
	return index.Digest, p.push(ctx, index, refOf(named), 0)
}

type indexPusher struct {
	c      *Client
	e      *endpoint
	st     *layers.Store
	named  reference.Named
	o      *PushOptions
	images map[digest.Digest]*layers.Outgoing // by manifest
}

// push sends what an index names, and then the index.
func (p *indexPusher) push(ctx context.Context, index ocispec.Descriptor, ref string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: the indexes nest deeper than %d", ErrTooLarge, maxDepth)
	}
	raw, err := p.st.Blob(index.Digest)
	if err != nil {
		return err
	}
	descs, err := parseIndex(&manifest{raw: raw, desc: index})
	if err != nil {
		return err
	}
	for _, d := range descs {
		switch out := p.images[d.Digest]; {
		case isIndex(d.MediaType):
			err = p.push(ctx, d, d.Digest.String(), depth+1)
		case out != nil:
			o := PushOptions{ByDigest: true}
			if p.o != nil {
				o.Repositories = p.o.Repositories
			}
			_, err = p.c.Push(ctx, out, reference.TrimNamed(p.named), &o)
		case !p.e.hasManifest(ctx, d.Digest.String(), d.Digest):
			err = fmt.Errorf("%w: index %s has one for %s (%s), which is not in the store; pull it with --all-platforms",
				layers.ErrImageUnknown, index.Digest, platform.Text(d.Platform), d.Digest)
		}
		if err != nil {
			return err
		}
	}
	return p.e.putManifest(ctx, ref, raw, index)
}
