package layers

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/compress"
)

// ImportOptions describe the image that Import makes; nil means the defaults.
type ImportOptions struct {
	Names    []string
	Message  string            // the comment in the history
	Platform *ocispec.Platform // nil: linux on this machine's architecture
	Created  time.Time         // zero: now
	MaxBytes int64             // as LoadOptions.MaxBytes
}

// Import makes an image with one layer out of the tar of a root file system, in
// any compression that Load understands, and returns it.
func (s *Store) Import(ctx context.Context, r io.Reader, o *ImportOptions) (_ *Image, err error) {
	if o == nil {
		o = &ImportOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	names, err := normalizeAll(o.Names)
	if err != nil {
		return nil, err
	}
	lease, err := s.NewLease(ctx, "import")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	in, err := s.importRootfs(ctx, r, lease, o)
	if err != nil {
		return nil, err
	}
	if err := s.publishImage(ctx, in, names); err != nil {
		return nil, err
	}
	return s.Image(ctx, string(in.id))
}

// importRootfs reads the tar, makes the config and the manifest that fit it, and
// puts the layer in place unless the store has it.
func (s *Store) importRootfs(ctx context.Context, r io.Reader, lease *Lease, o *ImportOptions) (in *incoming, err error) {
	im, err := s.newImport(lease, o.MaxBytes, false)
	if err != nil {
		return nil, err
	}
	failed := errors.New("not published")
	defer func() { err = errors.Join(err, im.close(failed)) }()
	tar, _, err := compress.Detect(&meter{ctx: ctx, r: r, p: &progressor{}})
	if err != nil {
		return nil, err
	}
	tar = compress.Pipe(tar)
	l := &stagedLayer{}
	defer l.close()
	err = im.split(l, tar)
	if cerr := tar.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, readError(ctx, corrupt(err))
	}
	if in, err = describe(l, o); err != nil {
		return nil, err
	}
	if err := lease.holdIncoming(in); err != nil {
		return nil, err
	}
	known, err := s.hasLayer(ctx, l.diffID)
	if err != nil || known {
		return in, err
	}
	in.layers, err = im.publish(ctx, in, []*stagedLayer{l})
	if err == nil {
		failed = nil
	}
	return in, err
}

func (s *Store) hasLayer(ctx context.Context, d DiffID) (bool, error) {
	err := s.index.View(ctx, func(tx *index.Tx) error {
		_, err := tx.Layer(digest.Digest(d))
		return err
	})
	if errors.Is(err, index.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// describe makes the documents of a one-layer image.
func describe(l *stagedLayer, o *ImportOptions) (*incoming, error) {
	created := o.Created
	if created.IsZero() {
		created = time.Now()
	}
	created = created.UTC().Round(0)
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if o.Platform != nil {
		platform = *o.Platform
	}
	img := ocispec.Image{
		Created: &created, Platform: platform,
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.Digest(l.diffID)}},
		History: []ocispec.History{{Created: &created, CreatedBy: "layerfs import", Comment: o.Message}},
	}
	rawConfig, err := json.Marshal(img)
	if err != nil {
		return nil, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(rawConfig), Size: int64(len(rawConfig))},
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.Digest(l.diffID), Size: l.size}},
	}
	rawManifest, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &incoming{
		id: m.Config.Digest, rawConfig: rawConfig, rawManifest: rawManifest, manifest: m, diffIDs: []DiffID{l.diffID},
		desc:   ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(rawManifest), Size: int64(len(rawManifest))},
		config: config{Platform: platform, Created: &created},
	}, nil
}
