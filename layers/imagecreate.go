package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// CreateImageOptions describe an image to create; nil means the defaults.
type CreateImageOptions struct {
	ID       string    // 64 hexadecimal digits; empty: the digest of the config, or if that is taken a generated one
	Names    []string  // that no image has
	Created  time.Time // zero: now
	Metadata string    // free to use
	Flags    map[string]string
	// Config is the JSON text of the image's config; its rootfs must be the layers. Empty:
	// one is made.
	Config []byte
}

// CreateImage makes an image of a layer record or a ChainID; without one the image has
// no layers. It returns ErrDuplicateID and ErrDuplicateName, with nothing changed, and
// ErrLayerUnknown.
func (s *Store) CreateImage(ctx context.Context, layer string, o *CreateImageOptions) (*Image, error) {
	if o == nil {
		o = &CreateImageOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	names, err := normalizeAll(o.Names)
	if err == nil && o.ID != "" {
		err = checkID(o.ID)
	}
	if err = errors.Join(err, checkMetadata(o.Metadata), checkFlags(o.Flags)); err != nil {
		return nil, err
	}
	var id digest.Digest
	err = s.leased(ctx, "image create", func(lease *Lease) error {
		in, top, err := s.describeLayer(ctx, layer, o)
		if err != nil {
			return err
		}
		if err := errors.Join(lease.holdIncoming(in), s.index.Settle(ctx)); err != nil {
			return err
		}
		for _, raw := range [][]byte{in.rawConfig, in.rawManifest} {
			if _, err := s.blobs.PutBlob(raw); err != nil {
				return err
			}
		}
		return s.index.Update(ctx, "image create", func(tx *index.Tx) (err error) {
			id, err = o.put(tx, in, top, names)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return s.Image(ctx, string(id))
}

// describeLayer makes the documents of an image of a layer; top is the ID of the
// record, if it has one.
func (s *Store) describeLayer(ctx context.Context, layer string, o *CreateImageOptions) (in *incoming, top string, err error) {
	var stack []digest.Digest
	var blobs []ocispec.Descriptor
	err = s.index.View(ctx, func(tx *index.Tx) error {
		stack, blobs = nil, []ocispec.Descriptor{}
		if layer == "" {
			return nil
		}
		ns, err := readNodes(tx)
		if err != nil {
			return err
		}
		n, _, err := ns.find(layer)
		if err != nil {
			return err
		}
		if n.record {
			top = n.id
		}
		stack = digests(n.layers)
		for _, d := range stack {
			l, err := tx.Layer(d)
			if err != nil {
				return fmt.Errorf("%w: layer %s: %w", ErrDamaged, d, err)
			}
			form, err := s.outgoingForm(tx, l)
			if err != nil {
				return err
			}
			blobs = append(blobs, form)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	raw := o.Config
	if len(raw) == 0 {
		if raw, err = o.config(stack); err != nil {
			return nil, "", err
		}
	}
	in, err = documents(raw, blobs)
	if err != nil {
		return nil, "", err
	}
	for i, d := range in.diffIDs {
		if len(in.diffIDs) != len(stack) || d.digest() != stack[i] {
			return nil, "", fmt.Errorf("%w: the layers in the config are not those of %s", ErrInvalidImage, layer)
		}
	}
	return in, top, nil
}

// outgoingForm describes what a new image has a layer as: a compressed form that the
// store can give, the one that came first, or else the tar.
func (s *Store) outgoingForm(tx *index.Tx, l index.Layer) (ocispec.Descriptor, error) {
	for _, b := range l.Blobs {
		switch b.MediaType {
		case ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd:
		case MediaTypeDockerLayerGzip: // the same bytes; the manifest is one of OCI
			b.MediaType = ocispec.MediaTypeImageLayerGzip
		case MediaTypeDockerLayerZstd:
			b.MediaType = ocispec.MediaTypeImageLayerZstd
		default:
			continue
		}
		lacks, err := s.lacksForm(tx, b.Digest, DiffID(l.DiffID))
		if err != nil {
			return b, err
		}
		if !lacks {
			return b, nil
		}
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID, Size: l.Size}, nil
}

func (o *CreateImageOptions) date() time.Time {
	if o.Created.IsZero() {
		return now()
	}
	return o.Created.UTC().Round(0)
}

func (o *CreateImageOptions) config(stack []digest.Digest) ([]byte, error) {
	created := o.date()
	if stack == nil {
		stack = []digest.Digest{}
	}
	return json.Marshal(ocispec.Image{
		Created: &created, Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: stack},
		History: []ocispec.History{{Created: &created, CreatedBy: "layerfs image create"}},
	})
}

// documents makes a manifest for a config and layer blobs.
func documents(rawConfig []byte, blobs []ocispec.Descriptor) (*incoming, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(rawConfig), Size: int64(len(rawConfig))},
		Layers: blobs,
	}
	rawManifest, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	c, ids, err := parseConfig(rawConfig, m)
	if err != nil {
		return nil, err
	}
	return &incoming{
		id: m.Config.Digest, rawConfig: rawConfig, rawManifest: rawManifest, manifest: m, diffIDs: ids, config: c,
		desc: ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(rawManifest), Size: int64(len(rawManifest))},
	}, nil
}

// put makes the image visible, and returns its ID.
func (o *CreateImageOptions) put(tx *index.Tx, in *incoming, top string, names []string) (digest.Digest, error) {
	ns, err := readNodes(tx)
	if err != nil {
		return "", err
	}
	id := o.ID
	if id == "" {
		if id = in.id.Encoded(); freeID(tx, ns, id) != nil {
			id = newID()
		}
	}
	if err := freeID(tx, ns, id); err != nil {
		return "", err
	}
	for _, name := range names {
		if old, err := tx.Name(name); err == nil {
			return "", fmt.Errorf("%w: image %.12s is called %s; remove the name first, or use `layerfs tag` to move it", ErrDuplicateName, old.Image.Encoded(), name)
		}
	}
	if top != "" && ns.nodes[top] == nil {
		return "", unknownLayer(index.ErrNotFound, top) // removed a moment ago
	}
	for _, d := range in.diffIDs {
		if _, err := tx.Layer(d.digest()); err != nil {
			return "", unknownLayer(err, string(d))
		}
	}
	in.id = digest.NewDigestFromEncoded(digest.SHA256, id)
	img, err := newImage(tx, in)
	if err != nil {
		return "", err
	}
	created := o.date()
	if img.Created == nil || !o.Created.IsZero() {
		img.Created = &created
	}
	img.Metadata, img.Flags, img.TopLayer = o.Metadata, o.Flags, top
	img.Manifests = []index.Manifest{{Descriptor: in.desc, Layers: in.manifest.Layers}}
	if img.Layers == nil {
		img.Layers = []digest.Digest{}
	}
	if err := tx.PutImage(img); err != nil {
		return "", err
	}
	for _, name := range names {
		if err := setName(tx, name, img.ID, in.desc); err != nil {
			return "", err
		}
	}
	return img.ID, nil
}

// ImagesByTopLayer returns the images that stand on a layer record or a ChainID.
func (s *Store) ImagesByTopLayer(ctx context.Context, layer string) ([]Image, error) {
	n, err := s.LayerNode(ctx, layer)
	if err != nil {
		return nil, err
	}
	all, err := s.Images(ctx)
	var out []Image
	for _, img := range all {
		for _, id := range n.Images {
			if img.ID == id {
				out = append(out, img)
			}
		}
	}
	return out, err
}

// ContainersByLayer returns the containers that stand on a layer record or a ChainID.
func (s *Store) ContainersByLayer(ctx context.Context, layer string) ([]Container, error) {
	n, err := s.LayerNode(ctx, layer)
	if err != nil || len(n.Containers) == 0 {
		return nil, err
	}
	return s.Containers(ctx, &ContainerFilter{IDs: n.Containers})
}
