package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/compress"
)

// A SaveImage is an image to write.
type SaveImage struct {
	// Names are normalized references; an image may have none. What has no tag is
	// left out where a format has no place for it.
	Names []string
	// RefName is put into the index of OCI formats as the reference name, alone, instead
	// of the names.
	RefName string
	// Manifest is the image's manifest as it came, Desc its descriptor.
	Manifest []byte
	Desc     ocispec.Descriptor
	// Config is the image's config as it came.
	Config []byte
	// Platform is put into the index of OCI formats when it is set.
	Platform *ocispec.Platform
	// ArtifactType says what kind of artifact this is, "" for an image. Its blobs, which
	// are Layers with Desc and Blob only, go into OCI formats as they came, whatever the
	// compression is; a docker-archive cannot hold it.
	ArtifactType string
	// Layers are the layers of the manifest, in its order.
	Layers []SaveLayer
}

// A SaveLayer is a layer to write. It is opened at most once per Write, be it in
// several images.
type SaveLayer struct {
	DiffID digest.Digest
	// Size is that of the uncompressed tar.
	Size int64
	// Desc is the layer's descriptor in the manifest.
	Desc ocispec.Descriptor
	// Open returns the uncompressed tar. It is checked against DiffID and Size.
	Open func() (io.ReadCloser, error)
	// WriteTar, if set, is used instead of Open where the tar is wanted as it is. With
	// verify it checks by itself that it writes Size bytes with the digest DiffID.
	WriteTar func(ctx context.Context, w io.Writer, verify bool) error
	// Blob returns the bytes that Desc names, for a layer that came compressed. Nil, and
	// layers.ErrBlobGone, mean that they cannot be had any more.
	Blob func(context.Context) (Blob, error)
}

// A Blob is a compressed layer as it came. WriteTo verifies it: without an error
// what was written has the digest.
type Blob interface {
	io.WriterTo
	io.Closer
	Size() int64
}

// WriteOptions change how images are written; nil means the defaults.
type WriteOptions struct {
	// TempDir holds a compressed layer until its size is known; "" means the system's
	// directory. The file has no name there.
	TempDir string
	// Compression is what OCI formats have layers in. KeepCompression leaves them as
	// they came; any other gives an image other digests, all but its ID.
	Compression Compression
	// Level is how hard to compress, in the numbers of the programs gzip (1 to 9) and zstd
	// (1 to 19); 0 means 6 and 1.
	Level int
	// Changed is called for an image of an OCI format that got another manifest than it
	// came with, with the descriptor of that.
	Changed func(img *SaveImage, manifest ocispec.Descriptor)
}

// A Compression is how layers are compressed in OCI formats.
type Compression uint8

// The compressions. What is not kept is compressed with gzip also with
// KeepCompression.
const (
	KeepCompression Compression = iota
	CompressNone
	CompressGzip
	CompressZstd
)

var compressionNames = map[Compression]string{KeepCompression: "keep", CompressNone: "none", CompressGzip: "gzip", CompressZstd: "zstd"}

// String returns "keep", "none", "gzip" or "zstd".
func (c Compression) String() string { return compressionNames[c] }

// ParseCompression is the reverse of String.
func ParseCompression(s string) (Compression, error) {
	for c, name := range compressionNames {
		if s == name {
			return c, nil
		}
	}
	return KeepCompression, fmt.Errorf("compression %q is not known; use keep, none, gzip or zstd", s)
}

// CheckLevel returns an error for a level that the compression does not have; 0 is its
// default.
func (c Compression) CheckLevel(level int) error {
	highest := map[Compression]int{CompressGzip: 9, CompressZstd: 19}[c]
	switch {
	case level == 0:
		return nil
	case highest == 0:
		return fmt.Errorf("compression %v has no levels", c)
	case level < 1 || level > highest:
		return fmt.Errorf("compression level %d: %v has 1 to %d", level, c, highest)
	}
	return nil
}

// Write writes images as one archive in format FormatDockerArchive or
// FormatOCIArchive. The same images give the same bytes. After an error, of which
// ErrVerification is one when a layer is not what it should be, what was written so
// far is useless.
func Write(ctx context.Context, w io.Writer, format Format, images []SaveImage, o *WriteOptions) error {
	if o == nil {
		o = &WriteOptions{}
	}
	if len(images) == 0 {
		return fmt.Errorf("%w to write", ErrNoImage)
	}
	s := newTarSink(ctx, w, o.TempDir)
	defer s.check.close()
	switch format {
	case FormatDockerArchive:
		if err := writeDocker(ctx, s, images); err != nil {
			return err
		}
	case FormatOCIArchive:
		for _, dir := range []string{"blobs/", "blobs/sha256/"} {
			if err := s.header(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
				return err
			}
		}
		if err := writeOCI(ctx, s, images, o); err != nil {
			return err
		}
	default:
		return fmt.Errorf("format %v cannot be written as a stream; directories need WriteDir or WriteSkopeoDir", format)
	}
	return s.end()
}

// A sink takes the files of an archive.
type sink interface {
	// put adds a file of size bytes. No name is put twice. What is checkable may turn out
	// wrong only later, when all is there.
	put(name string, size int64, from io.WriterTo) error
	// begin begins a file whose size and name are not known yet. Nothing else is put until
	// it is kept or dropped.
	begin() (part, error)
}

// A part is a file of an archive on its way.
type part interface {
	io.Writer
	// keep ends the file, which has size bytes.
	keep(name string, size int64) error
	// drop takes back what was written.
	drop() error
}

// putDocument adds a small file.
func putDocument(s sink, name string, data []byte) error {
	return s.put(name, int64(len(data)), bytes.NewReader(data))
}

// putJSON adds a document; maps are sorted by key.
func putJSON(s sink, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return putDocument(s, name, data)
}

// A layerReader reads an uncompressed layer and returns ErrVerification in place of
// io.EOF when it was not the right one.
type layerReader struct {
	ctx  context.Context
	rc   io.ReadCloser
	l    *SaveLayer
	hash hash.Hash
	n    int64
}

// openLayer opens a layer; the caller closes it.
func openLayer(ctx context.Context, l *SaveLayer) (*layerReader, error) {
	rc, err := l.Open()
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.DiffID, err)
	}
	return &layerReader{ctx: ctx, rc: rc, l: l, hash: sha256.New()}, nil
}

// Read implements io.Reader.
func (r *layerReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.rc.Read(p)
	r.hash.Write(p[:n])
	r.n += int64(n)
	switch {
	case r.n > r.l.Size, err == io.EOF && r.n != r.l.Size:
		return 0, fmt.Errorf("layer %s: %w: it has not the %d bytes that it should have", r.l.DiffID, ErrVerification, r.l.Size)
	case err == io.EOF:
		if got := digest.NewDigest(digest.SHA256, r.hash); got != r.l.DiffID {
			return 0, fmt.Errorf("layer %s: %w: it has the digest %s", r.l.DiffID, ErrVerification, got)
		}
	case err != nil:
		err = fmt.Errorf("layer %s: %w", r.l.DiffID, err)
	}
	return n, err
}

// Close implements io.Closer.
func (r *layerReader) Close() error { return r.rc.Close() }

// putLayer adds an uncompressed layer. It is put together and hashed on another core
// than it is written on.
func putLayer(ctx context.Context, s sink, name string, l *SaveLayer) error {
	if l.WriteTar != nil {
		return s.put(name, l.Size, tarOf{ctx, l})
	}
	lr, err := openLayer(ctx, l)
	if err != nil {
		return err
	}
	r := compress.Pipe(lr)
	defer r.Close()
	return s.put(name, l.Size, r.(io.WriterTo))
}

// tarOf is the tar of a layer that has WriteTar.
type tarOf struct {
	ctx context.Context
	l   *SaveLayer
}

// WriteTo implements io.WriterTo.
func (t tarOf) WriteTo(w io.Writer) (int64, error) { return t.write(w, true) }

// WriteUnverified implements checkable.
func (t tarOf) WriteUnverified(w io.Writer) (int64, error) { return t.write(w, false) }

// Digest implements checkable.
func (t tarOf) Digest() digest.Digest { return t.l.DiffID }

func (t tarOf) write(w io.Writer, verify bool) (int64, error) {
	if err := t.l.WriteTar(t.ctx, w, verify); err != nil {
		return 0, fmt.Errorf("layer %s: %w", t.l.DiffID, err)
	}
	return t.l.Size, nil
}
