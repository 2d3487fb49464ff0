package layers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of docker's image manifest version 2, schema 2 and its relatives.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerSchema1      = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSchema1Sign  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	MediaTypeDockerConfig       = "application/vnd.docker.container.image.v1+json"
	MediaTypeDockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeDockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	MediaTypeDockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	MediaTypeDockerForeign      = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// maxDocument limits manifests and configs: registries refuse manifests above
// 4 MiB, and a config grows with the history only.
const maxDocument = 8 << 20

// maxObjects limits the JSON objects in a manifest: two bytes of text become a
// hundred in memory.
const maxObjects = 100_000

// maxLayers limits a stack. Kernels mount at most 500 overlay layers.
const maxLayers = 4096

// parseManifest reads an image manifest of OCI or docker schema 2.
func parseManifest(raw []byte, desc ocispec.Descriptor) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if len(raw) > maxDocument || bytes.Count(raw, []byte{'{'}) > maxObjects {
		return m, fmt.Errorf("%w: manifest of %d bytes with %d objects", ErrInvalidImage, len(raw), bytes.Count(raw, []byte{'{'}))
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%w: manifest is no JSON document: %w", ErrInvalidImage, err)
	}
	mediaType := m.MediaType
	if mediaType == "" {
		mediaType = desc.MediaType
	}
	switch mediaType {
	case "", ocispec.MediaTypeImageManifest, MediaTypeDockerManifest:
	case MediaTypeDockerSchema1, MediaTypeDockerSchema1Sign:
		return m, fmt.Errorf("%w: docker schema 1 manifests are not supported; convert the image with `skopeo copy --format v2s2`", ErrInvalidImage)
	default:
		return m, fmt.Errorf("%w: manifest has media type %q, which is no image manifest", ErrInvalidImage, mediaType)
	}
	if m.SchemaVersion != 2 {
		return m, fmt.Errorf("%w: manifest has schema version %d, want 2", ErrInvalidImage, m.SchemaVersion)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if _, err := parseDigest(string(d.Digest)); err != nil {
			return m, fmt.Errorf("%w: manifest: %w", ErrInvalidImage, err)
		}
		if d.Size < 0 {
			return m, fmt.Errorf("%w: manifest: %s has the size %d", ErrInvalidImage, d.Digest, d.Size)
		}
	}
	return m, nil
}

// A config is the part of an image config that the store itself needs.
type config struct {
	ocispec.Platform
	Created *time.Time `json:"created"`
	RootFS  struct {
		Type    string          `json:"type"`
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// parseConfig reads an image config and checks it against its manifest.
func parseConfig(raw []byte, m ocispec.Manifest) (config, []DiffID, error) {
	var c config
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, nil, fmt.Errorf("%w: config %s is no image config: %w", ErrInvalidImage, m.Config.Digest, err)
	}
	if c.RootFS.Type != "layers" && (c.RootFS.Type != "" || len(c.RootFS.DiffIDs) != len(m.Layers)) {
		return c, nil, fmt.Errorf("%w: config %s has no root file system (it may be an artifact, which is not an image)",
			ErrInvalidImage, m.Config.Digest)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return c, nil, fmt.Errorf("%w: manifest has %d layers, but config %s has %d",
			ErrInvalidImage, len(m.Layers), m.Config.Digest, len(c.RootFS.DiffIDs))
	}
	if len(m.Layers) > maxLayers {
		return c, nil, fmt.Errorf("%w: %d layers, more than %d", ErrInvalidImage, len(m.Layers), maxLayers)
	}
	ids := make([]DiffID, len(c.RootFS.DiffIDs))
	for i, d := range c.RootFS.DiffIDs {
		if _, err := parseDigest(string(d)); err != nil {
			return c, nil, fmt.Errorf("%w: config %s: %w", ErrInvalidImage, m.Config.Digest, err)
		}
		ids[i] = DiffID(d)
	}
	return c, ids, nil
}
