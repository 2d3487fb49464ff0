package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/compress"
)

// A Source gives the manifest and the blobs of one image. It implements
// layers.Source and is safe for concurrent use.
type Source struct {
	a    *Archive
	desc ocispec.Descriptor // of the manifest; zero for a docker image
	dock *dockerImage       // nil for an OCI image
}

// Manifest returns the image's manifest, which matches its descriptor. A
// docker-archive before docker 25 has none: it is made up, always the same for the
// same content, with the uncompressed layers as blobs.
func (s *Source) Manifest(ctx context.Context) ([]byte, ocispec.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	if s.dock != nil {
		return s.dock.manifest(ctx, s.a)
	}
	raw, err := s.a.verified(s.desc)
	return raw, s.desc, err
}

// Blob opens a blob that the manifest names; the caller closes it. Reading it
// returns ErrVerification when it has another size than desc says. Its digest is not
// checked.
func (s *Source) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := blobName(desc.Digest)
	if err != nil {
		return nil, s.a.errorf("%w: %w", ErrDamaged, err)
	}
	unpacked := false
	if s.dock != nil {
		if name, unpacked, err = s.dock.blob(desc.Digest); err != nil {
			return nil, s.a.errorf("%w", err)
		}
	}
	f, err := s.a.files.open(name)
	if err != nil {
		return nil, err
	}
	member := s.a.files.member(name)
	if !unpacked {
		if f.Size() != desc.Size {
			f.Close()
			return nil, fmt.Errorf("%s: %w: it has %d bytes, but its descriptor says %d", member, ErrVerification, f.Size(), desc.Size)
		}
		return &sized{r: f, closers: []io.Closer{f}, left: desc.Size, want: desc.Size, name: member}, nil
	}
	rc, _, err := compress.Detect(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w: %w", member, ErrDamaged, err)
	}
	return &sized{r: rc, closers: []io.Closer{rc, f}, left: desc.Size, want: desc.Size, name: member}, nil
}

// A sized reader returns an error unless its source has exactly want bytes.
type sized struct {
	r          io.Reader
	closers    []io.Closer
	left, want int64
	name       string
}

// Read implements io.Reader.
func (s *sized) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.left -= int64(n)
	if s.left < 0 {
		return 0, fmt.Errorf("%s: %w: it is longer than the %d bytes that its descriptor says", s.name, ErrVerification, s.want)
	}
	if err == io.EOF && s.left > 0 {
		return n, fmt.Errorf("%s: %w: it ends after %d bytes, but its descriptor says %d: %w",
			s.name, ErrVerification, s.want-s.left, s.want, io.ErrUnexpectedEOF)
	}
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(err, compress.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF):
		return n, fmt.Errorf("%s: %w: %w", s.name, ErrDamaged, err)
	}
	return n, fmt.Errorf("%s: %w", s.name, err)
}

// Close implements io.Closer.
func (s *sized) Close() error {
	var first error
	for _, c := range s.closers {
		if err := c.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// A sizeCache knows the unpacked sizes of layers that are compressed inside a
// docker-archive: measuring one means to unpack it.
type sizeCache struct {
	mu sync.Mutex
	m  map[string]int64
}

// unpackedSize returns how many bytes the member unpacks to.
func (a *Archive) unpackedSize(ctx context.Context, name string) (int64, error) {
	a.sizes.mu.Lock()
	defer a.sizes.mu.Unlock()
	if n, ok := a.sizes.m[name]; ok {
		return n, nil
	}
	f, err := a.files.open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := measure(ctx, f, a.max)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", a.files.member(name), err)
	}
	if a.sizes.m == nil {
		a.sizes.m = make(map[string]int64)
	}
	a.sizes.m[name] = n
	return n, nil
}

// measure returns the size of what is in f. A file that is not compressed is not
// read.
func measure(ctx context.Context, f *file, limit int64) (int64, error) {
	rc, kind, err := compress.Detect(f)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer rc.Close()
	if kind == compress.KindNone {
		return f.Size(), nil
	}
	buf := make([]byte, 256<<10)
	var total int64
	for {
		n, err := rc.Read(buf)
		if total += int64(n); limit > 0 && total > limit {
			return 0, fmt.Errorf("%w: the layer unpacks to more than the %d bytes allowed", ErrTooLarge, limit)
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return 0, fmt.Errorf("%w: %w", ErrDamaged, err)
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
	}
}
