package layers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/compress"
)

// ApplyOptions change how a tar is applied; nil means the defaults.
type ApplyOptions struct {
	MaxBytes int64 // as LoadOptions.MaxBytes
	// DropBlob does without the compressed form that the tar comes in.
	DropBlob bool
}

// ApplyLayer makes the tar that r has, in any compression that Load understands, the
// content of a layer record. Digests and sizes of the tar and of its compressed form
// are recorded; a form that images may have, which are gzip and zstd, is kept, so that
// images of the layer go out with it. After an error nothing is left of it.
//
// It returns ErrLayerUnknown; ErrApplied for a record that has its content already;
// ErrLayerHasChildren, ErrLayerUsedByImage or ErrLayerUsedByContainer for one that
// others stand on, which would change under them; ErrInvalidLayer and ErrVerification
// for what is no tar.
func (s *Store) ApplyLayer(ctx context.Context, id string, r io.Reader, o *ApplyOptions) (_ *LayerNode, err error) {
	if o == nil {
		o = &ApplyOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	var rec index.LayerRecord
	err = s.view(ctx, func(tx *index.Tx) (err error) {
		rec, err = emptyRecord(tx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.leased(ctx, "layer apply", func(lease *Lease) error {
		in, err := s.importLayer(ctx, rec.Layers, r, lease, o)
		if err != nil {
			return fmt.Errorf("layer %.12s: %w", rec.ID, err)
		}
		return s.index.Update(ctx, "layer apply", func(tx *index.Tx) error {
			rec, err := emptyRecord(tx, rec.ID) // as it is now
			if err != nil {
				return err
			}
			return fillRecord(tx, rec, in)
		})
	})
	if err != nil {
		return nil, err
	}
	return s.LayerNode(ctx, rec.ID)
}

// CreateLayerFrom is CreateLayer and ApplyLayer in one step: when the tar cannot be
// applied there is no record either.
func (s *Store) CreateLayerFrom(ctx context.Context, o *CreateLayerOptions, r io.Reader, a *ApplyOptions) (*LayerNode, error) {
	if o == nil {
		o = &CreateLayerOptions{}
	}
	if a == nil {
		a = &ApplyOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	rec, err := o.record()
	if err != nil {
		return nil, err
	}
	below := rec
	err = s.index.DB.Update(ctx, "layer create", func(tx *index.Tx) error {
		return errors.Join(addRecord(tx, &below, o.Parent), errDryRun) // tells at once what is wrong
	})
	if err = withoutDryRun(err); err != nil {
		return nil, s.explainReadOnly(ctx, err)
	}
	err = s.leased(ctx, "layer create", func(lease *Lease) error {
		in, err := s.importLayer(ctx, below.Layers, r, lease, a)
		if err != nil {
			return fmt.Errorf("layer %.12s: %w", rec.ID, err)
		}
		return s.index.Update(ctx, "layer create", func(tx *index.Tx) error {
			if err := addRecord(tx, &rec, o.Parent); err != nil {
				return err
			}
			return fillRecord(tx, rec, in)
		})
	})
	if err != nil {
		return nil, err
	}
	return s.LayerNode(ctx, rec.ID)
}

// withoutDryRun returns what else went wrong in a transaction that was taken back.
func withoutDryRun(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		if e != errDryRun {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}

// leased calls fn with a lease that ends with it.
func (s *Store) leased(ctx context.Context, purpose string, fn func(*Lease) error) error {
	lease, err := s.NewLease(ctx, purpose)
	if err != nil {
		return err
	}
	return errors.Join(fn(lease), lease.Close())
}

// emptyRecord returns a record that a tar can be applied to.
func emptyRecord(tx *index.Tx, id string) (rec index.LayerRecord, err error) {
	ns, err := readNodes(tx)
	if err != nil {
		return rec, err
	}
	n, _, err := ns.find(id)
	if err != nil {
		return rec, err
	}
	if n.diff {
		return rec, fmt.Errorf("%w: %.12s; create another on top of it", ErrApplied, n.id)
	}
	return ns.records[n.id], ns.unused(n)
}

// importLayer brings one layer in that stands on a stack, and puts it in place, not
// yet visible.
func (s *Store) importLayer(ctx context.Context, below []digest.Digest, r io.Reader, lease *Lease, o *ApplyOptions) (in *incoming, err error) {
	if err := errors.Join(lease.holdLayers(diffIDs(below)), s.index.Settle(ctx)); err != nil {
		return nil, err
	}
	im, err := s.newImport(lease, o.MaxBytes, !o.DropBlob)
	if err != nil {
		return nil, err
	}
	failed := errors.New("not published")
	defer func() { err = errors.Join(err, im.close(failed)) }()
	l := &stagedLayer{}
	defer l.close()
	desc, err := im.readStream(ctx, r, l)
	if err != nil {
		return nil, err
	}
	in = &incoming{diffIDs: append(diffIDs(below), l.diffID)}
	in.manifest.Layers = []ocispec.Descriptor{desc}
	if err := lease.holdLayers(in.diffIDs); err != nil {
		return nil, err
	}
	known, err := s.hasLayer(ctx, l.diffID)
	if err != nil {
		return in, err
	}
	if !known {
		staged := make([]*stagedLayer, len(in.diffIDs))
		staged[len(staged)-1] = l
		if in.layers, err = im.publish(ctx, in, staged); err != nil {
			return in, err
		}
		failed = nil
	}
	return in, im.keepForm(ctx, in)
}

// keepForm puts the blob that a single layer came as in place, unless the store can
// give it already.
func (im *importer) keepForm(ctx context.Context, in *incoming) error {
	if len(im.kept) == 0 {
		return nil
	}
	blob := im.kept[0].digest
	if err := im.lease.holdBlobs(blob); err != nil {
		return err
	}
	lacks := false
	err := im.s.view(ctx, func(tx *index.Tx) (err error) {
		lacks, err = im.s.lacksForm(tx, blob, in.diffIDs[len(in.diffIDs)-1])
		return err
	})
	if err != nil || !lacks {
		return err
	}
	in.kept, err = im.publishBlobs()
	return err
}

// readStream takes a tar apart that comes without a description, and describes the
// form it came in.
func (im *importer) readStream(ctx context.Context, r io.Reader, l *stagedLayer) (desc ocispec.Descriptor, err error) {
	raw := &hashedReader{r: &ctxReader{ctx, r}, hash: sha256.New()}
	if im.keep {
		if raw.copy, err = im.stageBlob(); err != nil {
			return desc, err
		}
	}
	kept := raw.copy
	defer func() {
		if err != nil {
			err = errors.Join(err, im.discard(kept))
		}
	}()
	tar, kind, err := compress.Detect(raw)
	if err != nil {
		return desc, readError(ctx, corrupt(err))
	}
	if kind != compress.KindGzip && kind != compress.KindZstd {
		if err := im.discard(kept); err != nil { // only its beginning was copied
			return desc, err
		}
		raw.copy, kept = nil, nil
	}
	tar = compress.Pipe(tar)
	err = im.split(l, tar)
	if cerr := tar.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		_, err = io.Copy(io.Discard, raw) // what follows belongs to the blob
	}
	if err != nil {
		return desc, readError(ctx, corrupt(err))
	}
	desc = ocispec.Descriptor{MediaType: mediaType(kind), Digest: digest.NewDigest(digest.SHA256, raw.hash), Size: raw.n}
	return desc, im.finishBlob(kept, desc.Digest)
}

func mediaType(kind compress.Kind) string {
	if kind == compress.KindNone {
		return ocispec.MediaTypeImageLayer
	}
	return ocispec.MediaTypeImageLayer + "+" + kind.String()
}

// A hashedReader counts and hashes what is read through it.
type hashedReader struct {
	r    io.Reader
	hash hash.Hash
	n    int64
	copy *blob.Staged // gets it too, if it is not nil
}

func (r *hashedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.hash.Write(p[:n])
	r.n += int64(n)
	if r.copy != nil {
		if _, werr := r.copy.Write(p[:n]); werr != nil {
			return 0, werr
		}
	}
	return n, err
}

// fillRecord makes the layer visible as the content of a record.
func fillRecord(tx *index.Tx, rec index.LayerRecord, in *incoming) error {
	d := in.diffIDs[len(in.diffIDs)-1]
	desc := in.manifest.Layers[0]
	top := *in
	top.diffIDs = []DiffID{d}
	if err := putLayers(tx, &top); err != nil {
		return err
	}
	for _, below := range rec.Layers {
		if _, err := tx.Layer(below); err != nil {
			return fmt.Errorf("%w: layer %.12s: layer %s below it is missing: %w", ErrDamaged, rec.ID, below, err)
		}
	}
	rec.DiffID, rec.Blob = d.digest(), &desc
	rec.Layers = append(rec.Layers, rec.DiffID)
	return tx.PutLayerRecord(rec)
}
