package registry

import (
	"context"
	"errors"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/policy"
)

// Pull loads an instance into the store. After an error the store is as it was, but
// for what was fetched of layers, with which the next pull goes on.
func (r *Remote) Pull(ctx context.Context, st *layers.Store, in Instance, o *layers.LoadOptions) (*layers.Image, error) {
	if o == nil {
		o = &layers.LoadOptions{}
	}
	lo := *o
	lo.Indexes = in.Indexes
	if err := r.Allowed(ctx, in); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		src := r.Open(ctx, in, st)
		img, err := st.Load(ctx, src, &lo)
		bad := useless(err)
		again := try == 0 && bad && src.Resumed()
		cerr := src.Close(err == nil || bad)
		if !again {
			return img, errors.Join(err, cerr)
		}
		// What was kept may have been damaged, by a power loss for example.
	}
}

// Allowed says whether the signature policy lets an instance in; it returns
// policy.ErrRejected when it does not.
func (r *Remote) Allowed(ctx context.Context, in Instance) error {
	return r.c.policy.Check(ctx, &policy.Image{
		Transport: "docker", Name: r.named, Scopes: policy.DockerScopes(r.named), Manifest: in.Descriptor.Digest,
		Signatures: func(ctx context.Context) ([][]byte, error) { return r.c.signatures(ctx, r.named, in.Descriptor.Digest) },
	})
}

// useless says whether an error is about the content, so that nobody need keep it.
func useless(err error) bool {
	return errors.Is(err, layers.ErrVerification) || errors.Is(err, layers.ErrInvalidLayer) || errors.Is(err, layers.ErrTooLarge)
}
