package layers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
)

// This file keeps the compressed blobs of layers as they came, so that an image goes
// out with the digests that it came in with. A blob is written while it streams
// through the importer, which hashes and unpacks it anyway: what is kept has been
// verified to unpack to the DiffID of its layer.

// A keptBlob is a blob that an import has written and verified.
type keptBlob struct {
	digest digest.Digest
	staged *blob.Staged
}

func (im *importer) stageBlob() (*blob.Staged, error) {
	return im.s.blobs.StageBlob(filepath.Join(im.temp.path, fmt.Sprintf("blob-%d", im.blobs.Add(1))))
}

// discard gives up a blob, if there is one.
func (im *importer) discard(b *blob.Staged) error {
	if b == nil {
		return nil
	}
	return im.s.blobs.Discard(b)
}

// finishBlob notes a blob, if there is one, for publishBlobs.
func (im *importer) finishBlob(b *blob.Staged, d digest.Digest) error {
	if b == nil {
		return nil
	}
	if err := b.Finish(sumOf(d)); err != nil {
		return err
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	im.kept = append(im.kept, keptBlob{d, b})
	return nil
}

// publishBlobs puts the kept blobs in place and returns their sizes.
func (im *importer) publishBlobs() (map[digest.Digest]int64, error) {
	sizes := make(map[digest.Digest]int64, len(im.kept))
	var staged []*blob.Staged
	for _, k := range im.kept {
		sizes[k.digest] = k.staged.Size()
		staged = append(staged, k.staged)
	}
	return sizes, im.s.blobs.PublishBlobs(staged)
}

// readBlob keeps a compressed form of a layer that the store has, after verifying
// that it is one.
func (im *importer) readBlob(ctx context.Context, src Source, desc ocispec.Descriptor, d DiffID, p *progressor) error {
	err := im.unpack(ctx, src, desc, d, p, func(tar io.Reader) error {
		sum := sha256.New()
		if _, err := io.Copy(sum, &limited{r: tar, im: im}); err != nil {
			return err
		}
		if got := digest.NewDigest(digest.SHA256, sum); got != digest.Digest(d) {
			return fmt.Errorf("%w: the uncompressed layer has the digest %s, but the config says %s; the image is corrupt or was tampered with",
				ErrVerification, got, d)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("layer %s: %w", d, err)
	}
	return nil
}

// lacksForm reports whether the store cannot give the bytes of a compressed form of
// a layer that it has.
func (s *Store) lacksForm(tx *index.Tx, blob digest.Digest, d DiffID) (bool, error) {
	f, err := tx.Form(sumOf(blob))
	switch {
	case errors.Is(err, index.ErrNotFound):
		return true, nil
	case err != nil:
		return false, err
	case f.Layer != sumOf(digest.Digest(d)) || f.How == index.FormGone:
		return true, nil
	case f.How == index.FormKept:
		size, err := s.blobs.BlobSize(sumOf(blob))
		return err != nil || size != f.Size, nil // then loading it again repairs it
	case f.How == index.FormCorrected:
		return !s.blobs.HasCorrection(sumOf(blob)), nil
	}
	return false, nil
}

// putForm records the compressed form desc that the layer has come in.
func putForm(tx *index.Tx, in *incoming, l *index.Layer, desc ocispec.Descriptor) error {
	if desc.Digest == l.DiffID {
		return nil // not compressed: the layer itself
	}
	number := slices.IndexFunc(l.Blobs, func(b ocispec.Descriptor) bool { return b.Digest == desc.Digest })
	if number < 0 {
		number = len(l.Blobs)
		l.Blobs = append(l.Blobs, layerBlob(desc))
		if err := tx.PutLayer(*l); err != nil {
			return err
		}
	}
	if l.Additional != "" {
		return nil // the store that has the layer has its blob
	}
	sum, layer := sumOf(desc.Digest), sumOf(l.DiffID)
	f, err := tx.Form(sum)
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return err
	}
	size, kept := in.kept[desc.Digest]
	switch {
	case kept:
		return tx.PutForm(sum, index.Form{Layer: layer, Number: uint32(number), Size: size, How: index.FormKept, Stored: size})
	case err == nil && f.Layer == layer && (f.How != index.FormGone || !in.keep):
		return nil
	case in.keep: // somebody has removed it since we looked
		return fmt.Errorf("layer %s %w", l.DiffID, errLayerGone)
	case err == nil:
		return nil // another layer has it, and that was verified
	}
	return tx.PutForm(sum, index.Form{Layer: layer, Number: uint32(number), Size: desc.Size})
}

// currentForms marks the files that the compressed forms of layers need.
func (c *collection) currentForms(tx *index.Tx) error {
	return tx.EachForm(func(sum index.Sum, f index.Form) error {
		switch {
		case !c.needed(f.Layer):
		case f.How == index.FormKept:
			c.blobs[sum] = true
		case f.How == index.FormCorrected:
			c.corrections[sum] = true
		}
		return nil
	})
}

// sweepForms forgets forms without a layer.
func (c *collection) sweepForms(ctx context.Context) error {
	var orphans []index.Sum
	find := func(tx *index.Tx) error {
		orphans = orphans[:0]
		return tx.EachForm(func(sum index.Sum, f index.Form) error {
			_, err := tx.Layer(digestOf(f.Layer))
			if errors.Is(err, index.ErrNotFound) {
				orphans = append(orphans, sum)
				return nil
			}
			return err
		})
	}
	if err := c.view(ctx, find); err != nil || len(orphans) == 0 || c.dryRun {
		return err
	}
	return c.update(ctx, func(tx *index.Tx) error {
		if err := find(tx); err != nil {
			return err
		}
		for _, sum := range orphans {
			if err := tx.DeleteForm(sum); err != nil {
				return err
			}
		}
		return nil
	})
}
