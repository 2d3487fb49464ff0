package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/compress"
	"github.com/layerfs/layerfs/layers/changes"
)

// CommitOptions describe the image that Commit makes; nil means the defaults.
type CommitOptions struct {
	Names   []string
	Message string    // the comment in the history
	Author  string    // empty: that of the image below
	Created time.Time // zero: now
	// Changes are instructions for the config as in a Dockerfile, such as "ENV A=b":
	// CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.
	Changes []string
}

// Committed is what Commit made.
type Committed struct {
	*Image
	// Layer is the layer with the changes of the container; empty when there were none.
	Layer DiffID `json:"layer,omitempty"`
	// Torn are files that were being written while they were read; see Written.
	Torn []string `json:"torn,omitempty"`
}

// Commit makes an image of a container: the layers below it and, when there are
// changes, one more. The container stays as it is, and on its old image. Of what
// somebody writes into it meanwhile, Diff says what is taken.
func (s *Store) Commit(ctx context.Context, nameOrID string, o *CommitOptions) (_ *Committed, err error) {
	if o == nil {
		o = &CommitOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	names, err := normalizeAll(o.Names)
	if err != nil {
		return nil, err
	}
	steps, err := parseConfigChanges(o.Changes)
	if err != nil {
		return nil, err
	}
	c, err := s.Container(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	lease, err := s.NewLease(ctx, "commit")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	cm := &commit{s: s, c: c, o: o, lease: lease, steps: steps, out: &Committed{}}
	in, err := cm.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name(), err)
	}
	if err := s.publishImage(ctx, in, names); err != nil {
		return nil, err
	}
	cm.out.Image, err = s.Image(ctx, string(in.id))
	return cm.out, err
}

// A commit is one call of Commit.
type commit struct {
	s     *Store
	c     *Container
	o     *CommitOptions
	lease *Lease
	steps []configChange
	out   *Committed
}

// run makes the layer, and the documents of an image that has it on top.
func (cm *commit) run(ctx context.Context) (in *incoming, err error) {
	im, err := cm.s.newImport(cm.lease, 0, false)
	if err != nil {
		return nil, err
	}
	failed := errors.New("not published")
	defer func() { err = errors.Join(err, im.close(failed)) }()
	l := &stagedLayer{}
	defer l.close()
	changed, err := cm.layer(ctx, im, l)
	if err != nil {
		return nil, err
	}
	if !changed {
		l.diffID = ""
	}
	if in, err = cm.describe(l); err != nil {
		return nil, err
	}
	if err := cm.lease.holdIncoming(in); err != nil {
		return nil, err
	}
	if !changed {
		return in, cm.s.index.Settle(ctx)
	}
	cm.out.Layer = l.diffID
	known, err := cm.s.hasLayer(ctx, l.diffID)
	if err != nil || known {
		return in, err
	}
	staged := make([]*stagedLayer, len(in.diffIDs))
	staged[len(staged)-1] = l
	in.layers, err = im.publish(ctx, in, staged)
	if err == nil {
		failed = nil
	}
	return in, err
}

// layer takes the tar of the container's changes apart while it is being written; it
// reports whether there are any.
func (cm *commit) layer(ctx context.Context, im *importer, l *stagedLayer) (changed bool, err error) {
	below := cm.c.DiffIDs()
	x, y := &namedTree{stack: below, container: cm.c}, &namedTree{stack: below}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(cm.s.withPair(x, y, func(x, y *changes.View) error {
			written, err := changes.WriteTar(ctx, w, x, y)
			if err == nil {
				changed, cm.out.Torn = written.Changes > 0, written.Torn
			}
			return err
		}))
	}()
	tar := compress.Pipe(r)
	err = im.split(l, tar)
	r.CloseWithError(io.ErrClosedPipe) // the walk must end also when the splitting has failed
	<-done
	return changed, errors.Join(err, tar.Close())
}

// describe makes the config and the manifest.
func (cm *commit) describe(l *stagedLayer) (*incoming, error) {
	base, err := cm.base()
	if err != nil {
		return nil, err
	}
	created := cm.o.Created
	if created.IsZero() {
		created = time.Now()
	}
	created = created.UTC().Round(0)
	ids, blobs := cm.c.DiffIDs(), base.layers
	if l.diffID != "" {
		ids = append(ids, l.diffID)
		blobs = append(blobs, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.Digest(l.diffID), Size: l.size})
	}
	rawConfig, platform, err := cm.config(base.config, ids, created, l.diffID == "")
	if err != nil {
		return nil, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(rawConfig), Size: int64(len(rawConfig))},
		Layers: blobs,
	}
	rawManifest, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &incoming{
		id: m.Config.Digest, rawConfig: rawConfig, rawManifest: rawManifest, manifest: m, diffIDs: ids,
		desc:   ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(rawManifest), Size: int64(len(rawManifest))},
		config: config{Platform: platform, Created: &created},
	}, nil
}

// A base is what the new image takes over from the image of the container.
type base struct {
	config map[string]json.RawMessage
	layers []ocispec.Descriptor // their blobs, in the media types of OCI
}

// base reads the image of the container. A container without one, or whose image
// was removed by force, has a bare config.
func (cm *commit) base() (*base, error) {
	var img index.Image
	err := index.ErrNotFound
	if cm.c.Image != "" {
		err = cm.s.index.View(context.Background(), func(tx *index.Tx) (err error) {
			img, err = tx.Image(cm.c.Image)
			return err
		})
	}
	if errors.Is(err, index.ErrNotFound) {
		return cm.bareBase()
	}
	if err != nil {
		return nil, err
	}
	raw, err := cm.s.Blob(img.ID)
	if err != nil {
		return nil, err
	}
	b := &base{}
	if err := json.Unmarshal(raw, &b.config); err != nil {
		return nil, fmt.Errorf("%w: config %s: %w", ErrInvalidImage, img.ID, err)
	}
	for _, d := range img.Manifests[0].Layers {
		b.layers = append(b.layers, ocispec.Descriptor{MediaType: ociLayerType(d.MediaType), Digest: d.Digest, Size: d.Size})
	}
	return b, nil
}

func (cm *commit) bareBase() (*base, error) {
	b := &base{config: map[string]json.RawMessage{
		"os": json.RawMessage(`"linux"`), "architecture": json.RawMessage(fmt.Sprintf("%q", runtime.GOARCH)),
	}}
	err := cm.s.index.View(context.Background(), func(tx *index.Tx) error {
		b.layers = nil
		for _, d := range cm.c.Layers {
			l, err := tx.Layer(d)
			if err != nil {
				return fmt.Errorf("layer %s: %w", d, err)
			}
			b.layers = append(b.layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: l.Size})
		}
		return nil
	})
	return b, err
}

// ociLayerType returns the media type that OCI has for a layer blob.
func ociLayerType(mediaType string) string {
	switch mediaType {
	case MediaTypeDockerLayer:
		return ocispec.MediaTypeImageLayer
	case MediaTypeDockerLayerGzip:
		return ocispec.MediaTypeImageLayerGzip
	}
	return mediaType
}
