package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// Describe fetches the manifest and the config of an instance and nothing else, asks the
// signature policy, and returns both documents as they came. Without an error the
// instance can be pulled.
func (r *Remote) Describe(ctx context.Context, in Instance) (manifest, config []byte, err error) {
	if err := r.Allowed(ctx, in); err != nil {
		return nil, nil, err
	}
	src := r.Open(ctx, in, nil)
	defer src.Close(false)
	manifest, _, err = src.Manifest(ctx)
	if err != nil {
		return nil, nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, nil, fmt.Errorf("%w: manifest %s: %w", layers.ErrInvalidImage, in.Descriptor.Digest, err)
	}
	if m.Config.Digest.Validate() != nil {
		return nil, nil, fmt.Errorf("%w: manifest %s names no config", layers.ErrInvalidImage, in.Descriptor.Digest)
	}
	config, err = r.e.getSmallBlob(ctx, m.Config)
	if err != nil {
		return nil, nil, fmt.Errorf("config: %w", err)
	}
	if got := digest.FromBytes(config); got != m.Config.Digest {
		return nil, nil, fmt.Errorf("%w: config %s has the digest %s", layers.ErrVerification, m.Config.Digest, got)
	}
	return manifest, config, nil
}
