package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// remote shows an image in a registry. Only its manifest and config are fetched.
func (o *inspectOptions) remote(ctx context.Context, item string) (*imageReport, error) {
	r, err := findRemote(ctx, o.registry, item)
	if err != nil {
		return nil, err
	}
	if o.raw && o.manifest { // of an index too
		_, err := o.out.Write(r.Raw)
		return nil, err
	}
	list, err := r.Instances(ctx)
	if err != nil {
		return nil, err
	}
	in, err := registry.Select(list, o.platform)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	manifest, config, err := r.Describe(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	if o.raw {
		_, err := o.out.Write(config)
		return nil, err
	}
	return reportRemote(r, in, list, manifest, config)
}

// reportRemote puts together what inspect shows; the size is that of the layers as they
// are transferred.
func reportRemote(r *registry.Remote, in registry.Instance, list []registry.Instance, manifest, config []byte) (*imageReport, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, fmt.Errorf("%w: manifest %s: %w", layers.ErrInvalidImage, in.Descriptor.Digest, err)
	}
	out, err := reportConfig(config)
	if err != nil {
		return nil, fmt.Errorf("%w: config %s: %w", layers.ErrInvalidImage, m.Config.Digest, err)
	}
	out.Id, out.Digest, out.ManifestType = m.Config.Digest.Encoded(), in.Descriptor.Digest, in.Descriptor.MediaType
	for _, l := range m.Layers {
		out.Size += l.Size
	}
	repository, tag, _ := layers.SplitName(r.Name)
	if tag != "" {
		out.RepoTags = append(out.RepoTags, r.Name)
	}
	seen := map[digest.Digest]bool{}
	for _, d := range []digest.Digest{r.Descriptor.Digest, in.Descriptor.Digest} {
		if !seen[d] {
			seen[d] = true
			out.RepoDigests = append(out.RepoDigests, repository+"@"+string(d))
		}
	}
	for _, other := range list {
		out.Manifests = append(out.Manifests, other.Descriptor.Digest)
	}
	return out, nil
}

// isRemote says whether inspect is asked about a registry.
func isRemote(item string) bool { return strings.HasPrefix(item, registryScheme) }
