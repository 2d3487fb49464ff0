package archive

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/compress"
	"github.com/layerfs/layerfs/layers"
)

// An ociWriter writes the files of a layout to a sink.
type ociWriter struct {
	s       sink
	o       *WriteOptions
	written map[digest.Digest]bool               // blobs
	anew    map[digest.Digest]ocispec.Descriptor // digest and size of what was compressed anew, by DiffID
}

func newOCIWriter(s sink, o *WriteOptions) *ociWriter {
	return &ociWriter{s: s, o: o, written: make(map[digest.Digest]bool), anew: make(map[digest.Digest]ocispec.Descriptor)}
}

// writeOCI writes a layout: blobs first, then oci-layout and index.json, so that a
// truncated one is noticed.
func writeOCI(ctx context.Context, s sink, images []SaveImage, o *WriteOptions) error {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	w := newOCIWriter(s, o)
	for i := range images {
		descs, err := w.image(ctx, &images[i])
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, descs...)
	}
	if err := putJSON(s, ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return putJSON(s, "index.json", index)
}

// image writes an image and returns its descriptors, one for each name.
func (w *ociWriter) image(ctx context.Context, img *SaveImage) ([]ocispec.Descriptor, error) {
	descs := make([]ocispec.Descriptor, len(img.Layers))
	put := w.layer
	if img.ArtifactType != "" {
		put = w.artifactBlob
	}
	for i := range img.Layers {
		var err error
		if descs[i], err = put(ctx, &img.Layers[i]); err != nil {
			return nil, err
		}
	}
	if err := w.blob(digest.FromBytes(img.Config), img.Config); err != nil {
		return nil, err
	}
	manifest, err := rewriteManifest(img.Manifest, descs)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", img.Desc.Digest, err)
	}
	desc := ocispec.Descriptor{
		MediaType: img.Desc.MediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
		Platform: img.Platform, ArtifactType: img.ArtifactType,
	}
	if desc.MediaType == "" {
		desc.MediaType = ocispec.MediaTypeImageManifest
	}
	if err := w.blob(desc.Digest, manifest); err != nil {
		return nil, err
	}
	if desc.Digest != digest.FromBytes(img.Manifest) && w.o.Changed != nil {
		w.o.Changed(img, desc)
	}
	return named(img, desc), nil
}

// named returns the descriptors of a manifest for the index, one for each name.
func named(img *SaveImage, desc ocispec.Descriptor) []ocispec.Descriptor {
	if img.RefName != "" {
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: img.RefName}
		return []ocispec.Descriptor{desc}
	}
	var descs []ocispec.Descriptor
	for _, name := range img.Names {
		if _, d, ok := strings.Cut(name, "@"); ok && d != desc.Digest.String() {
			continue // that is the name of the manifest as it came
		}
		named := desc
		named.Annotations = map[string]string{ocispec.AnnotationRefName: name, annotationImageName: name}
		descs = append(descs, named)
	}
	if len(descs) == 0 {
		descs = append(descs, desc)
	}
	return descs
}

// blob writes a small blob unless it is written already.
func (w *ociWriter) blob(d digest.Digest, data []byte) error {
	if w.written[d] {
		return nil
	}
	w.written[d] = true
	return putDocument(w.s, "blobs/sha256/"+d.Encoded(), data)
}

// layer writes a layer and returns its descriptor in the new manifest.
func (w *ociWriter) layer(ctx context.Context, l *SaveLayer) (ocispec.Descriptor, error) {
	if _, err := blobName(l.DiffID); err != nil {
		return l.Desc, fmt.Errorf("layer: %w", err)
	}
	plain := l.Desc.Digest == l.DiffID
	switch {
	case w.o.Compression == CompressNone || w.o.Compression == KeepCompression && plain:
		return w.plain(ctx, l)
	case w.o.Compression == KeepCompression:
		if ok, err := w.asItCame(ctx, l); ok || err != nil {
			return l.Desc, err
		}
	}
	desc, ok := w.anew[l.DiffID]
	if !ok {
		var err error
		if desc, err = w.compress(ctx, l); err != nil {
			return l.Desc, err
		}
		w.anew[l.DiffID] = desc
	}
	return recompressed(l.Desc, desc), nil
}

// artifactBlob writes a blob of an artifact, which stays as it came.
func (w *ociWriter) artifactBlob(ctx context.Context, l *SaveLayer) (ocispec.Descriptor, error) {
	ok, err := w.asItCame(ctx, l)
	if err == nil && !ok {
		err = fmt.Errorf("blob %s: %w", l.Desc.Digest, layers.ErrBlobGone)
	}
	return l.Desc, err
}

// plain writes a layer uncompressed.
func (w *ociWriter) plain(ctx context.Context, l *SaveLayer) (ocispec.Descriptor, error) {
	if !w.written[l.DiffID] {
		w.written[l.DiffID] = true
		if err := putLayer(ctx, w.s, blobPath(l.DiffID), l); err != nil {
			return l.Desc, err
		}
	}
	return recompressed(l.Desc, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID, Size: l.Size}), nil
}

// asItCame writes the bytes that the manifest names; false means that they are gone.
func (w *ociWriter) asItCame(ctx context.Context, l *SaveLayer) (bool, error) {
	if w.written[l.Desc.Digest] {
		return true, nil
	}
	if l.Blob == nil {
		return false, nil
	}
	if _, err := blobName(l.Desc.Digest); err != nil {
		return false, fmt.Errorf("layer: %w", err)
	}
	b, err := l.Blob(ctx)
	if errors.Is(err, layers.ErrBlobGone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("layer %s: %w", l.Desc.Digest, err)
	}
	defer b.Close()
	if b.Size() != l.Desc.Size {
		return false, fmt.Errorf("layer %s: %w: it has %d bytes instead of %d", l.Desc.Digest, ErrVerification, b.Size(), l.Desc.Size)
	}
	w.written[l.Desc.Digest] = true
	if err := w.s.put(blobPath(l.Desc.Digest), b.Size(), b); err != nil {
		return false, fmt.Errorf("layer %s: %w", l.Desc.Digest, err)
	}
	return true, nil
}

// blobPath is where a layout has a blob.
func blobPath(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

// compress writes a layer that is compressed anew, whose size and digest are known when
// it is written.
func (w *ociWriter) compress(ctx context.Context, l *SaveLayer) (desc ocispec.Descriptor, err error) {
	lr, err := openLayer(ctx, l)
	if err != nil {
		return desc, err
	}
	r := compress.Pipe(lr) // reading and hashing need a core of their own now and then
	defer r.Close()
	out, err := w.s.begin()
	if err != nil {
		return desc, fmt.Errorf("layer %s: %w", l.DiffID, err)
	}
	desc, err = compressTo(out, r, w.o)
	if err != nil {
		return desc, errors.Join(err, out.drop())
	}
	if w.written[desc.Digest] {
		return desc, out.drop()
	}
	w.written[desc.Digest] = true
	return desc, out.keep(blobPath(desc.Digest), desc.Size)
}

// compressTo compresses on all cores, always to the same bytes: the pieces that the
// cores work on have a fixed size, and a gzip header holds neither name nor time.
func compressTo(w io.Writer, r io.Reader, o *WriteOptions) (desc ocispec.Descriptor, err error) {
	out := &summed{w: w, hash: sha256.New()}
	if o.Compression == CompressZstd {
		desc.MediaType = ocispec.MediaTypeImageLayerZstd
		err = writeZstd(out, r, o.Level)
	} else {
		desc.MediaType = ocispec.MediaTypeImageLayerGzip
		err = writeGzip(out, r, o.Level)
	}
	desc.Digest, desc.Size = digest.NewDigest(digest.SHA256, out.hash), out.n
	return desc, err
}

// summed counts and hashes what is written.
type summed struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func (s *summed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.hash.Write(p[:n])
	s.n += int64(n)
	return n, err
}

func writeGzip(w io.Writer, r io.Reader, level int) error {
	if level == 0 {
		level = pgzip.DefaultCompression
	}
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return err
	}
	_, err = io.Copy(z, r)
	return errors.Join(err, z.Close())
}

// recompressed describes a layer with new bytes: the media type stays in docker's or
// OCI's family where that has one, and annotations about the old bytes go.
func recompressed(old, made ocispec.Descriptor) ocispec.Descriptor {
	if made.Digest == old.Digest {
		return old
	}
	desc := ocispec.Descriptor{MediaType: made.MediaType, Digest: made.Digest, Size: made.Size, Platform: old.Platform}
	if strings.HasPrefix(old.MediaType, "application/vnd.docker.") {
		switch made.MediaType {
		case ocispec.MediaTypeImageLayerGzip:
			desc.MediaType = dockerLayerGzip
		case ocispec.MediaTypeImageLayer:
			desc.MediaType = layers.MediaTypeDockerLayer
		case ocispec.MediaTypeImageLayerZstd:
			desc.MediaType = layers.MediaTypeDockerLayerZstd
		}
	}
	for key, value := range old.Annotations {
		if isAboutBytes(key) {
			continue
		}
		if desc.Annotations == nil {
			desc.Annotations = make(map[string]string)
		}
		desc.Annotations[key] = value
	}
	return desc
}

// isAboutBytes recognizes annotations with offsets and digests of a particular
// compressed form (zstd:chunked, eStargz).
func isAboutBytes(key string) bool {
	for _, prefix := range []string{"io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.", "containerd.io/snapshot/stargz/", "io.containers.estargz."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// rewriteManifest puts layers into a manifest. When they are those that it has, the
// manifest stays as it is byte for byte; otherwise all other fields keep their value.
func rewriteManifest(raw []byte, layers []ocispec.Descriptor) ([]byte, error) {
	var old struct{ Layers []ocispec.Descriptor }
	if err := json.Unmarshal(raw, &old); err != nil {
		return nil, err
	}
	if len(old.Layers) != len(layers) {
		return nil, fmt.Errorf("%w: it has %d layers, and %d are to be written", ErrVerification, len(old.Layers), len(layers))
	}
	same := true
	for i := range layers {
		same = same && layers[i].Digest == old.Layers[i].Digest
	}
	if same {
		return raw, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	list, err := json.Marshal(layers)
	if err != nil {
		return nil, err
	}
	fields["layers"] = list
	return json.Marshal(fields)
}
