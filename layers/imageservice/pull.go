package imageservice

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// A Prepared image is one that could be pulled: its manifest and config were fetched,
// and the signature policy lets it in. No layer was.
type Prepared struct {
	// Name is the normalized reference that a registry has.
	Name string
	// Digest is that of the manifest, ID that of the config.
	Digest, ID digest.Digest
	// Manifest and Config are the documents as they came.
	Manifest, Config []byte

	remote   *registry.Remote
	instance registry.Instance
}

// Prepare fetches the manifest and the config of what a name stands for, on this
// machine's platform or, when it is not nil, on another. An error says why it cannot be
// pulled.
func (s *Service) Prepare(ctx context.Context, name string, platform *ocispec.Platform) (*Prepared, error) {
	names, err := s.client.Resolve(name)
	if err != nil {
		return nil, err
	}
	remote, err := s.client.FindAny(ctx, names)
	if err != nil {
		return nil, err
	}
	list, err := remote.Instances(ctx)
	if err != nil {
		return nil, err
	}
	in, err := registry.Select(list, platform)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", remote.Name, err)
	}
	manifest, config, err := remote.Describe(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", remote.Name, err)
	}
	id, err := configDigest(manifest)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", remote.Name, err)
	}
	return &Prepared{
		Name: remote.Name, Digest: in.Descriptor.Digest, ID: id, Manifest: manifest, Config: config,
		remote: remote, instance: in,
	}, nil
}

func configDigest(manifest []byte) (digest.Digest, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return "", fmt.Errorf("%w: manifest: %w", layers.ErrInvalidImage, err)
	}
	return m.Config.Digest, nil
}

// CanPull returns nil when a pull of the name would be allowed and possible.
func (s *Service) CanPull(ctx context.Context, name string) error {
	_, err := s.Prepare(ctx, name, nil)
	return err
}

// Pull brings a prepared image into the store. It is recorded under its tag, or under its
// digest when that was asked for; before all of it is there nothing is visible.
func (s *Service) Pull(ctx context.Context, p *Prepared, progress func(layers.Progress)) (*Image, error) {
	img, err := p.remote.Pull(ctx, s.st, p.instance, &layers.LoadOptions{Names: []string{p.Name}, Progress: progress})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return s.Status(ctx, img.ID.Encoded())
}

// Untag takes a name from an image, and removes the image when that was its last one.
// It returns layers.ErrInvalidName for an ID.
func (s *Service) Untag(ctx context.Context, name string) error {
	_, found, err := s.find(ctx, name)
	if err != nil {
		return err
	}
	if found == "" {
		return fmt.Errorf("%w: %q is an ID; say which name to take away", layers.ErrInvalidName, name)
	}
	_, err = s.st.Remove(ctx, found, nil)
	return err
}

// Remove removes an image with all its names.
func (s *Service) Remove(ctx context.Context, nameOrID string) error {
	img, _, err := s.find(ctx, nameOrID)
	if err != nil {
		return err
	}
	_, err = s.st.Remove(ctx, img.ID.Encoded(), &layers.RemoveOptions{Force: true})
	return err
}
