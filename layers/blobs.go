package layers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
)

// A LayerBlob is an open layer blob: the exact bytes that an image came with. Who
// reads it up to io.EOF has the right bytes; a wrong one is ErrDamaged in its place.
type LayerBlob struct {
	ctx    context.Context
	digest digest.Digest
	size   int64
	r      io.Reader
	hash   hash.Hash
	n      int64
	file   *os.File     // nil unless the blob itself is kept
	close  func() error // nil: nothing
}

// OpenLayerBlob opens the layer blob that a manifest names: kept as it came, or made
// anew while it is read. It returns ErrLayerUnknown when no layer came as this blob,
// and ErrBlobGone when one did but its bytes cannot be had. The caller closes it.
//
// Only the digest of desc counts, and its size when it is not 0.
func (s *Store) OpenLayerBlob(ctx context.Context, desc ocispec.Descriptor) (*LayerBlob, error) {
	if _, err := parseDigest(string(desc.Digest)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLayerUnknown, err)
	}
	for try := 0; ; try++ {
		b, err := s.openLayerBlob(ctx, desc.Digest)
		if errors.Is(err, ErrLayerUnknown) || errors.Is(err, ErrBlobGone) {
			b, err = s.openLowerBlob(ctx, desc.Digest, err)
		}
		if errors.Is(err, blob.ErrNotFound) && try < openAttempts {
			continue // it has just been replaced by a way to make it
		}
		if err != nil {
			return nil, missingBlob(err)
		}
		if desc.Size != 0 && desc.Size != b.size {
			return nil, errors.Join(fmt.Errorf("%w: blob %s has %d bytes, but its descriptor says %d", ErrVerification, desc.Digest, b.size, desc.Size), b.Close())
		}
		return b, nil
	}
}

// openAttempts is how often the record of a blob is read again when its file is not
// where the record says.
const openAttempts = 3

func missingBlob(err error) error {
	if errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("%w: %w; load its image again", ErrDamaged, err)
	}
	return err
}

func (s *Store) openLayerBlob(ctx context.Context, d digest.Digest) (*LayerBlob, error) {
	var f index.Form
	plain := false
	err := s.index.View(ctx, func(tx *index.Tx) (err error) {
		f, err = tx.Form(sumOf(d))
		if errors.Is(err, index.ErrNotFound) {
			_, err = tx.Layer(d)
			plain = err == nil
		}
		return err
	})
	switch {
	case errors.Is(err, index.ErrNotFound):
		return nil, fmt.Errorf("%w: blob %s", ErrLayerUnknown, d)
	case err != nil:
		return nil, err
	case plain:
		return s.openPlain(ctx, d)
	}
	return s.openForm(ctx, d, f)
}

// openForm opens a compressed form.
func (s *Store) openForm(ctx context.Context, d digest.Digest, f index.Form) (*LayerBlob, error) {
	switch f.How {
	case index.FormKept:
		file, err := s.blobs.OpenBlob(sumOf(d))
		if err != nil {
			return nil, err
		}
		return &LayerBlob{ctx: ctx, digest: d, size: f.Size, r: file, hash: sha256.New(), file: file, close: file.Close}, nil
	case index.FormCorrected:
		file, err := s.blobs.OpenCorrection(sumOf(d))
		if err != nil {
			return nil, err
		}
		return s.regenerate(ctx, d, f, file)
	case index.FormGone:
		return nil, fmt.Errorf("%w: %s", ErrBlobGone, d)
	}
	return nil, fmt.Errorf("%w: blob %s can be had in a way (%v) that this layerfs does not know; use a newer layerfs", ErrNewer, d, f.How)
}

// openPlain opens the tar of a layer, which is the blob that it came as.
func (s *Store) openPlain(ctx context.Context, d digest.Digest) (*LayerBlob, error) {
	l, err := s.OpenLayer(DiffID(d))
	if err != nil {
		return nil, err
	}
	tar, err := l.Tar()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	r := io.NewSectionReader(tar, 0, tar.Size())
	return &LayerBlob{ctx: ctx, digest: d, size: tar.Size(), r: r, hash: sha256.New(), close: l.Close}, nil
}

// Digest returns the digest of the blob.
func (b *LayerBlob) Digest() digest.Digest { return b.digest }

// Size returns the size of the blob.
func (b *LayerBlob) Size() int64 { return b.size }

// File returns the file of the store that holds the blob and nothing else, nil when
// there is none. What is read from it is not verified. It is closed with the blob.
func (b *LayerBlob) File() *os.File { return b.file }

// Read implements io.Reader. It ends with the error of the context that the blob was
// opened with.
func (b *LayerBlob) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	b.hash.Write(p[:n])
	b.n += int64(n)
	switch {
	case b.n > b.size, err == io.EOF && b.n != b.size:
		return 0, fmt.Errorf("%w: blob %s has not the %d bytes that it should have; load its image again", ErrDamaged, b.digest, b.size)
	case err == io.EOF:
		if got := digest.NewDigest(digest.SHA256, b.hash); got != b.digest {
			return 0, fmt.Errorf("%w: blob %s comes out with the digest %s; load its image again", ErrDamaged, b.digest, got)
		}
	case err != nil:
		return n, fmt.Errorf("blob %s: %w", b.digest, err)
	}
	return n, err
}

// copyPiece is how much is copied and hashed in one go.
const copyPiece = 1 << 20

// WriteTo implements io.WriterTo: it writes what has not been read, on one core, and
// hashes it on another; the kernel copies when w is a file too. What was written is
// right only when it returns no error.
func (b *LayerBlob) WriteTo(w io.Writer) (int64, error) {
	if b.file == nil || b.n != 0 {
		return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{b}, make([]byte, copyPiece))
	}
	hashed := make(chan error, 1)
	go func() { hashed <- b.hashFile() }()
	n, err := b.copyFile(w)
	if err == nil {
		err = <-hashed
	}
	return n, err
}

// WriteUnverified is WriteTo for who compares the digest of what was written himself,
// because that can be done at another time.
func (b *LayerBlob) WriteUnverified(w io.Writer) (int64, error) {
	if b.file == nil || b.n != 0 {
		return b.WriteTo(w)
	}
	return b.copyFile(w)
}

// copyFile writes the file that is the blob; between files the kernel copies.
func (b *LayerBlob) copyFile(w io.Writer) (n int64, err error) {
	for err == nil {
		if err = b.ctx.Err(); err != nil {
			return n, err
		}
		var k int64
		k, err = io.CopyN(w, b.file, 8*copyPiece)
		n += k
	}
	if err == io.EOF {
		err = nil
	}
	if err == nil && n != b.size {
		err = fmt.Errorf("%w: blob %s has not the %d bytes that it should have; load its image again", ErrDamaged, b.digest, b.size)
	}
	return n, err
}

// hashFile verifies the file that is the blob.
func (b *LayerBlob) hashFile() error {
	err := HashFile(b.ctx, b.hash, b.file, 0, b.size)
	switch {
	case b.ctx.Err() != nil:
		return b.ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: blob %s is shorter than it should be, or cannot be read: %w; load its image again", ErrDamaged, b.digest, err)
	}
	if got := digest.NewDigest(digest.SHA256, b.hash); got != b.digest {
		return fmt.Errorf("%w: blob %s comes out with the digest %s; load its image again", ErrDamaged, b.digest, got)
	}
	return nil
}

// Close releases the blob.
func (b *LayerBlob) Close() error {
	if b.close == nil {
		return nil
	}
	return b.close()
}

// A LayerForm is a compressed form that a layer came in.
type LayerForm struct {
	Digest digest.Digest `json:"digest"`
	Layer  DiffID        `json:"layer"`
	Size   int64         `json:"size"`
	How    string        `json:"how"`    // gone, kept, corrected
	Stored int64         `json:"stored"` // bytes that the store needs for it
}

// LayerForms returns all compressed forms in the order of their digests.
func (s *Store) LayerForms(ctx context.Context) ([]LayerForm, error) {
	var out []LayerForm
	err := s.index.View(ctx, func(tx *index.Tx) error {
		out = out[:0]
		return tx.EachForm(func(sum index.Sum, f index.Form) error {
			out = append(out, LayerForm{Digest: digestOf(sum), Layer: DiffID(digestOf(f.Layer)), Size: f.Size, How: f.How.String(), Stored: f.Stored})
			return nil
		})
	})
	return out, err
}

func digestOf(sum index.Sum) digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum[:]))
}
