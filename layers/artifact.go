package layers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
)

// An artifact is something else than an image in an image's manifest: a chart, a
// signature, a model. It has no root file system, so it is kept as the blobs that it
// came as, listed, and given out again; a mount does not show it. Many have the same
// empty config, so its ID is the digest of its manifest.

// isArtifact tells artifacts from images: the config is none of an image, or no layer is
// a tar.
func isArtifact(m ocispec.Manifest) bool {
	switch m.Config.MediaType {
	case "", ocispec.MediaTypeImageConfig, MediaTypeDockerConfig:
	default:
		return true
	}
	return len(m.Layers) > 0 && !slices.ContainsFunc(m.Layers, func(d ocispec.Descriptor) bool {
		return d.MediaType == "" || strings.Contains(d.MediaType, ".tar")
	})
}

// artifactType says what kind of artifact it is.
func artifactType(m ocispec.Manifest) string {
	if m.ArtifactType != "" {
		return m.ArtifactType
	}
	return m.Config.MediaType
}

// blobsSize is what an artifact counts as its size.
func blobsSize(img index.Image) (sum int64) {
	if len(img.Manifests) > 0 {
		for _, l := range img.Manifests[0].Layers {
			sum += l.Size
		}
	}
	return sum
}

// checkNotArtifact refuses what needs a root file system.
func checkNotArtifact(img index.Image) error {
	if !img.IsArtifact() {
		return nil
	}
	return fmt.Errorf("%w: %s is an artifact (%s), which has no root file system", ErrInvalidImage, img.ID, img.Artifact)
}

// importArtifact brings the blobs of an artifact into the store, not yet named by
// anything.
func (s *Store) importArtifact(ctx context.Context, src Source, in *incoming, lease *Lease, o *LoadOptions) (err error) {
	todo := s.missingBlobs(in)
	var sum int64
	for _, i := range todo {
		sum += in.manifest.Layers[i.place].Size
	}
	if o.MaxBytes > 0 && sum > o.MaxBytes {
		return fmt.Errorf("%w: the blobs have %d bytes, more than %d; allow more if the artifact can be trusted", ErrTooLarge, sum, o.MaxBytes)
	}
	if len(todo) == 0 {
		return nil
	}
	if a, ok := src.(Announced); ok {
		a.Announce(in.blobs(todo))
	}
	im, err := s.newImport(lease, o.MaxBytes, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.close(err)) }()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLayers)
	for _, t := range todo {
		g.Go(func() error {
			desc := in.manifest.Layers[t.place]
			if err := im.copyBlob(gctx, src, desc, progress(o.Progress, in, t.place)); err != nil {
				return fmt.Errorf("blob %s: %w", desc.Digest, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := im.ingest.Commit(im.register); err != nil {
		return err
	}
	in.kept, err = im.publishBlobs()
	return err
}

// missingBlobs returns the places of the blobs that the store has not, each once.
func (s *Store) missingBlobs(in *incoming) []task {
	var todo []task
	seen := map[digest.Digest]bool{in.manifest.Config.Digest: true, in.desc.Digest: true}
	for i, l := range in.manifest.Layers {
		if seen[l.Digest] {
			continue
		}
		seen[l.Digest] = true
		if size, err := s.blobs.BlobSize(sumOf(l.Digest)); err != nil || size != l.Size {
			todo = append(todo, task{place: i})
		}
	}
	return todo
}

// copyBlob stores a blob after verifying it.
func (im *importer) copyBlob(ctx context.Context, src Source, desc ocispec.Descriptor, p *progressor) error {
	if len(desc.URLs) > 0 && desc.Size == 0 {
		return fmt.Errorf("%w: its content is at a foreign address", ErrInvalidLayer)
	}
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	v := newVerifier(&meter{ctx: ctx, r: rc, p: p}, desc, true)
	fetched := ""
	if f, ok := rc.(Fetched); ok {
		fetched = f.Partial(ctx).name()
	}
	var kept *blob.Staged
	if fetched == "" {
		if kept, err = im.stageBlob(); err != nil {
			return err
		}
		v.copy = kept
	}
	if err := v.finish(); err != nil {
		return errors.Join(readError(ctx, err), im.discard(kept))
	}
	if fetched != "" {
		if kept, err = im.s.blobs.StageFile(fetched); err != nil {
			return err
		}
	}
	p.done(false)
	return im.finishBlob(kept, desc.Digest)
}

// openArtifactBlob opens a blob of an artifact, here or in an additional store.
func (s *Store) openArtifactBlob(ctx context.Context, desc ocispec.Descriptor) (*LayerBlob, error) {
	f, err := s.blobs.OpenBlob(sumOf(desc.Digest))
	for _, st := range s.lowers() {
		if !errors.Is(err, blob.ErrNotFound) {
			break
		}
		f, err = st.base().blobs.OpenBlob(sumOf(desc.Digest))
	}
	if err != nil {
		return nil, missingBlob(err)
	}
	return &LayerBlob{ctx: ctx, digest: desc.Digest, size: desc.Size, r: f, hash: sha256.New(), file: f, close: f.Close}, nil
}
