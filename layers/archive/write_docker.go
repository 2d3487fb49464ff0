package archive

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A dockerOutItem is an image in a manifest.json that is written.
type dockerOutItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// writeDocker writes what podman, skopeo and every docker since 1.10 read: each
// layer once as <DiffID>.tar, configs as <ID>.json, then manifest.json and
// repositories.
func writeDocker(ctx context.Context, s sink, images []SaveImage) error {
	written := make(map[string]bool)
	var items []*dockerOutItem
	byConfig := make(map[string]*dockerOutItem)
	repositories := make(map[string]map[string]string)
	for i := range images {
		img := &images[i]
		if img.ArtifactType != "" {
			return fmt.Errorf("%s: %w: it is an artifact (%s), which a docker-archive cannot hold; use an OCI format", img.Desc.Digest, ErrUnsupported, img.ArtifactType)
		}
		config := digest.FromBytes(img.Config).Encoded() + ".json"
		item := byConfig[config]
		if item == nil {
			item = &dockerOutItem{Config: config, Layers: []string{}}
			byConfig[config] = item
			items = append(items, item)
			if err := dockerLayers(ctx, s, img, item, written); err != nil {
				return err
			}
			if err := putDocument(s, config, img.Config); err != nil {
				return err
			}
		}
		for _, name := range img.Names {
			repo, tag, ok := splitTag(name)
			if !ok {
				continue
			}
			item.RepoTags = append(item.RepoTags, name)
			if len(img.Layers) == 0 {
				continue // repositories names a layer
			}
			if repositories[repo] == nil {
				repositories[repo] = make(map[string]string)
			}
			repositories[repo][tag] = img.Layers[len(img.Layers)-1].DiffID.Encoded()
		}
	}
	if err := putJSON(s, "manifest.json", items); err != nil {
		return err
	}
	return putJSON(s, "repositories", repositories)
}

// dockerLayers writes the layers of an image that are not written yet.
func dockerLayers(ctx context.Context, s sink, img *SaveImage, item *dockerOutItem, written map[string]bool) error {
	for j := range img.Layers {
		l := &img.Layers[j]
		if _, err := blobName(l.DiffID); err != nil {
			return fmt.Errorf("layer: %w", err)
		}
		name := l.DiffID.Encoded() + ".tar"
		item.Layers = append(item.Layers, name)
		if written[name] {
			continue
		}
		if err := putLayer(ctx, s, name, l); err != nil {
			return err
		}
		written[name] = true
	}
	return nil
}

// splitTag splits a name into repository and tag; ok is false for one with a
// digest.
func splitTag(name string) (repo, tag string, ok bool) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 || strings.Contains(name, "@") || strings.Contains(name[i:], "/") {
		return "", "", false
	}
	return name[:i], name[i+1:], true
}
