package layers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A verifier passes a blob on and checks, when all of it has been read, that it
// has the size and the digest of its descriptor.
type verifier struct {
	r    io.Reader
	desc ocispec.Descriptor
	hash hash.Hash // nil: somebody else checks the digest
	copy io.Writer // nil: nobody wants a copy
	n    int64
}

func newVerifier(r io.Reader, desc ocispec.Descriptor, hashed bool) *verifier {
	v := &verifier{r: r, desc: desc}
	if hashed {
		v.hash = sha256.New()
	}
	return v
}

// Read returns ErrVerification as soon as the blob is longer than promised, so
// that a server cannot send for ever.
func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.n += int64(n)
	if v.n > v.desc.Size {
		return 0, fmt.Errorf("%w: blob %s is longer than the %d bytes that its descriptor says",
			ErrVerification, v.desc.Digest, v.desc.Size)
	}
	if v.hash != nil {
		v.hash.Write(p[:n])
	}
	if v.copy != nil && n > 0 {
		if _, werr := v.copy.Write(p[:n]); werr != nil {
			return 0, werr
		}
	}
	return n, err
}

// finish reads what nobody asked for and checks the whole.
func (v *verifier) finish() error {
	if _, err := io.Copy(io.Discard, v); err != nil {
		return err
	}
	if v.n != v.desc.Size {
		return fmt.Errorf("%w: blob %s has %d bytes, but its descriptor says %d; the source is truncated or corrupt",
			ErrVerification, v.desc.Digest, v.n, v.desc.Size)
	}
	if v.hash == nil {
		return nil
	}
	if got := digest.NewDigest(digest.SHA256, v.hash); got != v.desc.Digest {
		return fmt.Errorf("%w: blob %s has the digest %s; the source is corrupt or was tampered with",
			ErrVerification, v.desc.Digest, got)
	}
	return nil
}

// document reads a small blob whole and verifies it.
func document(ctx context.Context, src Source, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxDocument {
		return nil, fmt.Errorf("%w: config %s has %d bytes, more than %d", ErrInvalidImage, desc.Digest, desc.Size, maxDocument)
	}
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", desc.Digest, err)
	}
	defer rc.Close()
	v := newVerifier(rc, desc, true)
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(v); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if err := v.finish(); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return buf.Bytes(), nil
}
