package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/compress"
	"github.com/layerfs/layerfs/internal/spool"
	"github.com/layerfs/layerfs/tarsplit"
)

// donors are the images that a repair was given. What they give is verified as in a
// load.
type donors struct {
	documents map[digest.Digest][]byte
	layers    map[DiffID][]donated
	blobs     map[digest.Digest]donated
}

// A donated layer blob.
type donated struct {
	src  Source
	desc ocispec.Descriptor
	diff DiffID
}

func (s *Store) openFrom(ctx context.Context, sources []Source) (*donors, error) {
	d := &donors{documents: map[digest.Digest][]byte{}, layers: map[DiffID][]donated{}, blobs: map[digest.Digest]donated{}}
	var failed error
	for _, src := range sources {
		in, err := s.readImage(ctx, src)
		if err != nil {
			failed = err // an index may list what is no image
			continue
		}
		d.documents[in.desc.Digest], d.documents[in.manifest.Config.Digest] = in.rawManifest, in.rawConfig
		for i, diff := range in.diffIDs {
			one := donated{src, in.manifest.Layers[i], diff}
			d.layers[diff] = append(d.layers[diff], one)
			d.blobs[one.desc.Digest] = one
		}
	}
	if len(d.documents) == 0 && failed != nil {
		return nil, fmt.Errorf("what is to be repaired from: %w", failed)
	}
	return d, ctx.Err()
}

// document puts a manifest or a config back.
func (d *donors) document(s *Store, id digest.Digest) error {
	raw, ok := d.documents[id]
	if !ok {
		return nil
	}
	_, err := s.blobs.PutBlob(raw)
	return err
}

// restoreForm puts a compressed layer back; false when no donor has it.
func (d *donors) restoreForm(ctx context.Context, s *Store, id digest.Digest) (bool, error) {
	one, ok := d.blobs[id]
	if !ok {
		return false, nil
	}
	lease, err := s.NewLease(ctx, "repair")
	if err != nil {
		return false, err
	}
	defer lease.Close()
	im, err := s.newImport(lease, 0, true)
	if err != nil {
		return false, err
	}
	defer func() { _ = im.close(errors.New("nothing but the blob")) }()
	if err := im.readBlob(ctx, one.src, one.desc, one.diff, &progressor{}); err != nil {
		return false, ctx.Err() // a donor that does not have it after all
	}
	sizes, err := im.publishBlobs()
	if err != nil {
		return false, err
	}
	return true, s.index.DB.Update(ctx, "repair", func(tx *index.Tx) error {
		f, err := tx.Form(sumOf(id))
		if err != nil {
			return err
		}
		f.How, f.Stored = index.FormKept, sizes[id]
		return tx.PutForm(sumOf(id), f)
	})
}

// open returns the tar of a donated layer.
func (one donated) open(ctx context.Context) (io.ReadCloser, error) {
	rc, err := one.src.Blob(ctx, one.desc)
	if err != nil {
		return nil, err
	}
	if one.desc.Digest == digest.Digest(one.diff) {
		return rc, nil
	}
	return inflated(rc)
}

// inflated returns the tar in a blob and closes both. That it is the right one is
// found out by its DiffID.
func inflated(rc io.ReadCloser) (io.ReadCloser, error) {
	tar, _, err := compress.Detect(rc)
	if err != nil {
		return nil, errors.Join(err, rc.Close())
	}
	return closeBoth{tar, rc}, nil
}

type closeBoth struct {
	io.ReadCloser
	below io.Closer
}

func (c closeBoth) Close() error { return errors.Join(c.ReadCloser.Close(), c.below.Close()) }

// A tarOpener opens the tar of a layer.
type tarOpener func() (io.ReadCloser, error)

// tars returns what may have the tar of a layer, what is nearest first.
func (r *repairer) tars(ctx context.Context, d DiffID, what damage) []tarOpener {
	var list []tarOpener
	if len(what.bodies) == 0 {
		list = append(list, func() (io.ReadCloser, error) { return r.s.tarFromSplit(ctx, d) })
	}
	list = append(list,
		func() (io.ReadCloser, error) { return r.s.tarFromForm(ctx, d) },
		func() (io.ReadCloser, error) { return r.s.tarFromLower(d) })
	for _, one := range r.from.layers[d] {
		list = append(list, func() (io.ReadCloser, error) { return one.open(ctx) })
	}
	return list
}

var errNoDonor = errors.New("does not have it")

// tarFromForm returns the tar that a kept compressed form unpacks to.
func (s *Store) tarFromForm(ctx context.Context, d DiffID) (io.ReadCloser, error) {
	var kept []digest.Digest
	err := s.view(ctx, func(tx *index.Tx) error {
		l, err := tx.Layer(digest.Digest(d))
		if err != nil {
			return err
		}
		for _, b := range l.Blobs {
			if f, err := tx.Form(sumOf(b.Digest)); err == nil && f.How == index.FormKept && f.Layer == sumOf(l.DiffID) {
				kept = append(kept, b.Digest)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, id := range kept {
		if s.blobs.VerifyBlob(sumOf(id)) != nil {
			continue
		}
		f, err := s.blobs.OpenBlob(sumOf(id))
		if err != nil {
			return nil, err
		}
		return inflated(f)
	}
	return nil, errNoDonor
}

// tarFromLower returns the tar as an additional store has it.
func (s *Store) tarFromLower(d DiffID) (io.ReadCloser, error) {
	for _, st := range s.lowers() {
		l, err := st.OpenLayer(d)
		if err != nil {
			continue
		}
		tar, err := l.Tar()
		if err != nil {
			l.Close()
			continue
		}
		return closeBoth{piped(tar), l}, nil
	}
	return nil, errNoDonor
}

// piped reads what w writes.
func piped(w io.WriterTo) io.ReadCloser {
	r, pw := io.Pipe()
	go func() {
		_, err := w.WriteTo(pw)
		pw.CloseWithError(err)
	}()
	return r
}

// tarFromSplit puts the tar together from the split metadata without the layer's
// tree: the index says where the bodies lie.
func (s *Store) tarFromSplit(ctx context.Context, d DiffID) (io.ReadCloser, error) {
	f, err := os.Open(filepath.Join(s.layerDir(d), "split.zst"))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	bodies := &indexedBodies{s: s, places: spool.NewMap[blob.Place](s.spoolDir())}
	tar, err := tarsplit.Open(f, info.Size(), bodies)
	if err == nil {
		err = bodies.find(ctx, tar)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), bodies.places.Close())
	}
	return closeBoth{closeBoth{piped(tar), f}, bodies.places}, nil
}

// indexedBodies finds bodies by the index.
type indexedBodies struct {
	s      *Store
	places *spool.Map[blob.Place]
}

// find looks all bodies of a tar up, many in one transaction.
func (b *indexedBodies) find(ctx context.Context, tar *tarsplit.Reader) error {
	var chunk []blob.Sum
	flush := func() error {
		defer func() { chunk = chunk[:0] }()
		return b.s.view(ctx, func(tx *index.Tx) error {
			for _, sum := range chunk {
				at, ok, err := tx.Body(sum)
				if err != nil {
					return err
				}
				if !ok {
					return fmt.Errorf("%w: body %x is not in the index", ErrDamaged, sum)
				}
				if err := b.places.Put(sum, blob.Place{Pack: blob.PackID(at.Pack), Offset: at.Offset}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := tar.EachBody(func(sum tarsplit.Sum, _ int64) error {
		if chunk = append(chunk, sum); len(chunk) < sweepChunk {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// Body implements tarsplit.Bodies.
func (b *indexedBodies) Body(sum tarsplit.Sum, size int64) (io.ReaderAt, error) {
	at, ok := b.places.Get(sum)
	if !ok {
		return nil, fmt.Errorf("%w: body %x is not in the index", ErrDamaged, sum)
	}
	return &placedReader{b.s.blobs, blob.Placed{Sum: sum, Size: size, Place: at}}, nil
}

type placedReader struct {
	s *blob.Store
	b blob.Placed
}

func (r *placedReader) ReadAt(p []byte, off int64) (int, error) {
	return r.s.BodyAt(r.b.Sum, r.b.Size, r.b.Place, p, off)
}

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}
