package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxImages and maxLayers limit what a manifest.json lists.
const (
	maxImages = 4096
	maxLayers = 4096
)

// A dockerItem is one image in manifest.json.
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// A dockerImage is an image that is described by manifest.json alone.
type dockerImage struct {
	config     ocispec.Descriptor
	configName string   // member
	layers     []string // members, bottom first
	diffIDs    []digest.Digest

	mu   sync.Mutex
	raw  []byte // the manifest, once it is known
	desc ocispec.Descriptor
}

// dockerItems reads manifest.json. An error that wraps fs.ErrNotExist means there
// is none.
func (a *Archive) dockerItems() ([]dockerItem, error) {
	raw, err := a.document("manifest.json")
	if err != nil {
		return nil, err
	}
	var items []dockerItem
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", a.files.member("manifest.json"), ErrDamaged, err)
	}
	if len(items) > maxImages {
		return nil, fmt.Errorf("%s: %w: %d images, more than %d", a.files.member("manifest.json"), ErrTooLarge, len(items), maxImages)
	}
	return items, nil
}

// readDocker adds the images of manifest.json, whose items may have been read
// before. An image that the OCI part of the archive has too only gets its names.
func (a *Archive) readDocker(items []dockerItem) error {
	if a.format == FormatDockerArchive {
		var err error
		if items, err = a.dockerItems(); err != nil {
			return err
		}
		if len(items) == 0 {
			return a.errorf("%w: manifest.json lists none", ErrNoImage)
		}
	}
	b := dockerBuilder{a: a, ids: make(map[string]digest.Digest), images: make(map[digest.Digest]int)}
	for i, img := range slices.Backward(a.images) {
		b.images[img.ID] = i
	}
	for _, item := range items {
		if err := b.add(item); err != nil {
			return err
		}
	}
	return nil
}

// A dockerBuilder makes images of the items of manifest.json.
type dockerBuilder struct {
	a      *Archive
	ids    map[string]digest.Digest // of the configs read so far, by member
	images map[digest.Digest]int    // place in Archive.images by ID
	names  int
}

// add makes an image of an item, or gives its names to the image that has the same
// config.
func (b *dockerBuilder) add(item dockerItem) error {
	var raw []byte
	id, ok := b.ids[item.Config]
	if !ok {
		var err error
		if raw, err = b.a.dockerConfig(item.Config); err != nil {
			return err
		}
		id = digest.FromBytes(raw)
		b.ids[item.Config] = id
	}
	i, ok := b.images[id]
	if !ok {
		img, err := b.a.dockerImage(item, raw)
		if err != nil {
			return err
		}
		i = len(b.a.images)
		b.a.images = append(b.a.images, img)
		b.images[id] = i
	}
	manifest := b.a.files.member("manifest.json")
	if b.names += len(item.RepoTags); b.names > maxDescriptors {
		return fmt.Errorf("%s: %w: more than %d names", manifest, ErrTooLarge, maxDescriptors)
	}
	for _, tag := range item.RepoTags {
		named, err := normalize(tag)
		if err != nil {
			return fmt.Errorf("%s: %w: name %q: %w", manifest, ErrDamaged, clip(tag), err)
		}
		b.a.images[i].addName(named.String(), nil)
	}
	return nil
}

// dockerConfig reads a config. Its name is a digest with docker and most others;
// then it must be the right one.
func (a *Archive) dockerConfig(name string) ([]byte, error) {
	key, ok := cleanName(name)
	if !ok {
		return nil, fmt.Errorf("%s: %w: the config is named %q", a.files.member("manifest.json"), ErrDamaged, clip(name))
	}
	raw, err := a.document(key)
	if err != nil {
		return nil, err
	}
	hex := strings.TrimSuffix(key, ".json")
	hex = strings.TrimPrefix(strings.TrimPrefix(hex, "blobs/sha256/"), "sha256:")
	got := digest.FromBytes(raw)
	if want := digest.NewDigestFromEncoded(digest.SHA256, hex); want.Validate() == nil && got != want {
		return nil, fmt.Errorf("%s: %w: it has the digest %s; the archive is corrupt or was tampered with", a.files.member(key), ErrVerification, got)
	}
	return raw, nil
}

// dockerImage makes an image of an item and its config.
func (a *Archive) dockerImage(item dockerItem, raw []byte) (Image, error) {
	key, _ := cleanName(item.Config) // dockerConfig has checked it
	var c struct {
		ocispec.Platform
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return Image{}, fmt.Errorf("%s: %w: %w", a.files.member(key), ErrDamaged, err)
	}
	if len(c.RootFS.DiffIDs) != len(item.Layers) || len(item.Layers) > maxLayers {
		return Image{}, fmt.Errorf("%s: %w: %d layers, but the config %s has %d; at most %d are possible",
			a.files.member("manifest.json"), ErrDamaged, len(item.Layers), clip(key), len(c.RootFS.DiffIDs), maxLayers)
	}
	d := &dockerImage{
		configName: key, diffIDs: c.RootFS.DiffIDs,
		config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(raw), Size: int64(len(raw))},
	}
	for i, name := range item.Layers {
		if _, err := blobName(d.diffIDs[i]); err != nil {
			return Image{}, fmt.Errorf("%s: %w: %w", a.files.member(key), ErrDamaged, err)
		}
		layer, ok := cleanName(name)
		if !ok {
			return Image{}, fmt.Errorf("%s: %w: a layer is named %q", a.files.member("manifest.json"), ErrDamaged, clip(name))
		}
		f, err := a.files.open(layer) // so that a missing one is noticed now
		if err != nil {
			return Image{}, err
		}
		f.Close()
		d.layers = append(d.layers, layer)
	}
	img := Image{ID: d.config.Digest, Source: &Source{a: a, dock: d}}
	if c.OS != "" || c.Architecture != "" {
		img.Platform = &c.Platform
	}
	return img, nil
}

// manifest makes the image's manifest up: the layers are its uncompressed tars,
// which is what their DiffIDs are digests of. Compressed ones are measured first.
func (d *dockerImage) manifest(ctx context.Context, a *Archive) ([]byte, ocispec.Descriptor, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.raw != nil {
		return d.raw, d.desc, nil
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    d.config,
		Layers:    []ocispec.Descriptor{},
	}
	for i, name := range d.layers {
		// A layer that occurs twice is one blob, be it stored twice.
		first := slices.Index(d.diffIDs, d.diffIDs[i])
		if first < i {
			m.Layers = append(m.Layers, m.Layers[first])
			continue
		}
		size, err := a.unpackedSize(ctx, name)
		if err != nil {
			return nil, ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d.diffIDs[i], Size: size})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	d.raw = raw
	d.desc = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return d.raw, d.desc, nil
}

// blob returns the member that holds a blob of the made-up manifest, and whether it
// may be compressed there.
func (d *dockerImage) blob(sum digest.Digest) (name string, unpack bool, err error) {
	if sum == d.config.Digest {
		return d.configName, false, nil
	}
	if i := slices.Index(d.diffIDs, sum); i >= 0 {
		return d.layers[i], true, nil
	}
	return "", false, fmt.Errorf("blob %s is %w in the image", sum, errMissing)
}
