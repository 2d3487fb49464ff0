package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Rewritten image is what would be written to an OCI layout, for who wants to read it
// and not have it. It implements layers.Source.
type Rewritten struct {
	desc ocispec.Descriptor

	mu    sync.Mutex // guards blobs
	blobs map[string]*os.File
}

// Rewrite compresses an image as o says. The blobs lie in files without a name until
// Close.
func Rewrite(ctx context.Context, img SaveImage, o *WriteOptions) (*Rewritten, error) {
	if o == nil {
		o = &WriteOptions{}
	}
	r := &Rewritten{blobs: map[string]*os.File{}}
	w := newOCIWriter(stageSink{r, o.TempDir}, o)
	descs, err := w.image(ctx, &img)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.desc = ocispec.Descriptor{MediaType: descs[0].MediaType, Digest: descs[0].Digest, Size: descs[0].Size}
	return r, nil
}

// Manifest returns the manifest, which names the layers as they are now.
func (r *Rewritten) Manifest(ctx context.Context) ([]byte, ocispec.Descriptor, error) {
	rc, err := r.Blob(ctx, r.desc)
	if err != nil {
		return nil, r.desc, err
	}
	raw, err := io.ReadAll(rc)
	return raw, r.desc, err
}

// Blob opens a blob that the manifest names.
func (r *Rewritten) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.blobs[desc.Digest.Encoded()]
	if f == nil {
		return nil, fmt.Errorf("blob %s: %w in the rewritten image", desc.Digest, errMissing)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(f, 0, info.Size())), nil
}

// Close removes the blobs.
func (r *Rewritten) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, f := range r.blobs {
		errs = append(errs, f.Close())
	}
	r.blobs = nil
	return errors.Join(errs...)
}

// A stageSink takes the files of a layout into files without a name.
type stageSink struct {
	r   *Rewritten
	dir string
}

func (s stageSink) put(name string, size int64, from io.WriterTo) error {
	f, err := tempFile(s.dir)
	if err != nil {
		return err
	}
	n, err := from.WriteTo(f)
	if err == nil && n != size {
		err = fmt.Errorf("%s: %w: it has %d bytes instead of %d", name, ErrVerification, n, size)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return s.adopt(name, size, f)
}

func (s stageSink) begin() (part, error) {
	f, err := tempFile(s.dir)
	return &filePart{File: f, adopt: s.adopt}, err
}

func (s stageSink) adopt(name string, _ int64, f *os.File) error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.blobs[strings.TrimPrefix(name, "blobs/sha256/")] = f
	return nil
}
