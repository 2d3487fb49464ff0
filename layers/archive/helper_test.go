package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/compress"
)

// A member is a member of a tar that a test makes.
type member struct {
	name string
	data []byte
	link string // symbolic
	hard string
}

func makeTar(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(m.data))}
		if m.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, m.link
		}
		if m.hard != "" {
			h.Typeflag, h.Linkname = tar.TypeLink, m.hard
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A layout collects the blobs of an OCI layout that a test makes.
type layout struct {
	t     testing.TB
	blobs []member
	index ocispec.Index
}

func newLayout(t testing.TB) *layout {
	return &layout{t: t, index: ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}}
}

// blob adds a blob and returns its descriptor.
func (l *layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	l.blobs = append(l.blobs, member{name: "blobs/sha256/" + d.Encoded(), data: data})
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (l *layout) json(mediaType string, v any) ocispec.Descriptor {
	return l.blob(mediaType, toJSON(l.t, v))
}

// config is a config for the uncompressed layers given.
func config(t testing.TB, p ocispec.Platform, layers ...[]byte) []byte {
	c := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	return toJSON(t, c)
}

// image adds an image with uncompressed layers and returns its descriptor.
func (l *layout) image(p ocispec.Platform, layers ...[]byte) ocispec.Descriptor {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: l.blob(ocispec.MediaTypeImageConfig, config(l.t, p, layers...)), Layers: []ocispec.Descriptor{},
	}
	for _, data := range layers {
		m.Layers = append(m.Layers, l.blob(ocispec.MediaTypeImageLayer, data))
	}
	return l.json(ocispec.MediaTypeImageManifest, m)
}

// nested adds an index and returns its descriptor.
func (l *layout) nested(descs ...ocispec.Descriptor) ocispec.Descriptor {
	return l.json(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: descs,
	})
}

// list puts a descriptor into index.json under a name.
func (l *layout) list(desc ocispec.Descriptor, ref string) {
	if ref != "" {
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: ref}
	}
	l.index.Manifests = append(l.index.Manifests, desc)
}

// members returns the files of the layout, more of them first.
func (l *layout) members(more ...member) []member {
	return append(append(more, l.blobs...),
		member{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		member{name: "index.json", data: toJSON(l.t, l.index)})
}

// openBytes opens an archive that is in memory.
func openBytes(t testing.TB, data []byte) (*Archive, error) {
	t.Helper()
	a, err := Open("-", &Options{Stdin: bytes.NewReader(data), TempDir: t.TempDir()})
	if err == nil {
		t.Cleanup(func() { a.Close() })
	}
	return a, err
}

func mustOpen(t testing.TB, path string) *Archive {
	t.Helper()
	a, err := Open(path, &Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func mustOpenTar(t testing.TB, members ...member) *Archive {
	t.Helper()
	a, err := openBytes(t, makeTar(t, members...))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// readBlob reads a blob of a source whole.
func readBlob(s *Source, desc ocispec.Descriptor) ([]byte, error) {
	rc, err := s.Blob(context.Background(), desc)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(rc)
	return data, errors.Join(err, rc.Close())
}

// saveImage reads an image whole, checks every digest, and returns it ready to be
// written.
func saveImage(t testing.TB, img Image) SaveImage {
	t.Helper()
	raw, desc, err := img.Source.Manifest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if digest.FromBytes(raw) != desc.Digest || int64(len(raw)) != desc.Size {
		t.Fatalf("manifest %s: %d bytes with the digest %s", desc.Digest, len(raw), digest.FromBytes(raw))
	}
	out := SaveImage{Names: img.Names, Manifest: raw, Desc: desc}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if m.Config.Digest != img.ID {
		t.Errorf("ID %s, but the manifest says %s", img.ID, m.Config.Digest)
	}
	var c ocispec.Image
	if out.Config, err = readBlob(img.Source, m.Config); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Config, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		t.Fatalf("%d DiffIDs, %d layers", len(c.RootFS.DiffIDs), len(m.Layers))
	}
	for i, l := range m.Layers {
		blob, err := readBlob(img.Source, l)
		if err != nil || digest.FromBytes(blob) != l.Digest {
			t.Fatalf("layer %s: digest %s, %v", l.Digest, digest.FromBytes(blob), err)
		}
		rc, _, err := compress.Detect(bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(rc)
		if err != nil || digest.FromBytes(data) != c.RootFS.DiffIDs[i] {
			t.Fatalf("layer %s: DiffID %s, want %s, %v", l.Digest, digest.FromBytes(data), c.RootFS.DiffIDs[i], err)
		}
		out.Layers = append(out.Layers, SaveLayer{
			DiffID: c.RootFS.DiffIDs[i], Size: int64(len(data)), Desc: l,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		})
	}
	return out
}

// unpackTo writes the members of a tar that a test made into a directory.
func unpackTo(t testing.TB, dir string, members []member) string {
	t.Helper()
	for _, m := range members {
		path := filepath.Join(dir, m.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if m.link != "" {
			if err := os.Symlink(m.link, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, m.data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
