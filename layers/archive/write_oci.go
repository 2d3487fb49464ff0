package archive

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/compress"
)

// An ociWriter writes the files of a layout to a sink.
type ociWriter struct {
	s       sink
	written map[digest.Digest]bool               // blobs
	gzipped map[digest.Digest]ocispec.Descriptor // digest and size by DiffID
}

// writeOCI writes a layout: blobs first, then oci-layout and index.json, so that a
// truncated one is noticed.
func writeOCI(ctx context.Context, s sink, images []SaveImage) error {
	w := &ociWriter{s: s, written: make(map[digest.Digest]bool), gzipped: make(map[digest.Digest]ocispec.Descriptor)}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
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
	layers := make([]ocispec.Descriptor, len(img.Layers))
	for i := range img.Layers {
		var err error
		if layers[i], err = w.layer(ctx, &img.Layers[i]); err != nil {
			return nil, err
		}
	}
	if err := w.blob(digest.FromBytes(img.Config), img.Config); err != nil {
		return nil, err
	}
	manifest, err := rewriteManifest(img.Manifest, layers)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", img.Desc.Digest, err)
	}
	desc := ocispec.Descriptor{
		MediaType: img.Desc.MediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
		Platform: img.Platform,
	}
	if desc.MediaType == "" {
		desc.MediaType = ocispec.MediaTypeImageManifest
	}
	if err := w.blob(desc.Digest, manifest); err != nil {
		return nil, err
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
	return descs, nil
}

// blob writes a small blob unless it is written already.
func (w *ociWriter) blob(d digest.Digest, data []byte) error {
	if w.written[d] {
		return nil
	}
	w.written[d] = true
	return putDocument(w.s, "blobs/sha256/"+d.Encoded(), data)
}

// layer writes a layer and returns its descriptor in the new manifest. One that
// came uncompressed is written as it is; of any other the bytes that came are gone,
// and it is compressed again.
func (w *ociWriter) layer(ctx context.Context, l *SaveLayer) (ocispec.Descriptor, error) {
	name, err := blobName(l.DiffID)
	if err != nil {
		return l.Desc, fmt.Errorf("layer: %w", err)
	}
	if l.Desc.Digest == l.DiffID {
		if w.written[l.DiffID] {
			return l.Desc, nil
		}
		w.written[l.DiffID] = true
		return l.Desc, putLayer(ctx, w.s, name, l)
	}
	gz, ok := w.gzipped[l.DiffID]
	if !ok {
		if gz, err = w.gzip(ctx, l); err != nil {
			return l.Desc, err
		}
		w.gzipped[l.DiffID] = gz
	}
	if gz.Digest == l.Desc.Digest {
		return l.Desc, nil
	}
	return recompressed(l.Desc, gz), nil
}

// gzip compresses a layer to a file, because its size and digest are wanted first,
// and writes that.
func (w *ociWriter) gzip(ctx context.Context, l *SaveLayer) (desc ocispec.Descriptor, err error) {
	lr, err := openLayer(ctx, l)
	if err != nil {
		return desc, err
	}
	r := compress.Pipe(lr) // reading and hashing need a second core
	defer r.Close()
	f, err := w.s.temporary()
	if err != nil {
		return desc, fmt.Errorf("layer %s: temporary file: %w", l.DiffID, err)
	}
	desc, err = gzipTo(f, r)
	if err != nil {
		f.Close()
		return desc, err
	}
	if w.written[desc.Digest] {
		return desc, f.Close()
	}
	w.written[desc.Digest] = true
	return desc, w.s.adopt("blobs/sha256/"+desc.Digest.Encoded(), desc.Size, f)
}

// gzipTo compresses with a header that holds neither name nor time.
func gzipTo(f *os.File, r io.Reader) (ocispec.Descriptor, error) {
	sum := sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, sum))
	if _, err := io.Copy(z, r); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := z.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	return ocispec.Descriptor{Digest: digest.NewDigest(digest.SHA256, sum), Size: size}, err
}

// recompressed describes a layer with new bytes: the media type stays in docker's or
// OCI's family, and annotations about the old bytes go.
func recompressed(old, gz ocispec.Descriptor) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: gz.Digest, Size: gz.Size, Platform: old.Platform}
	if strings.HasPrefix(old.MediaType, "application/vnd.docker.") {
		desc.MediaType = dockerLayerGzip
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
