package layers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A dirSource is an image in an OCI layout directory, read without any check.
type dirSource struct {
	dir  string
	desc ocispec.Descriptor
}

func (s dirSource) path(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", "sha256", d.Encoded())
}

func (s dirSource) Manifest(context.Context) ([]byte, ocispec.Descriptor, error) {
	raw, err := os.ReadFile(s.path(s.desc.Digest))
	return raw, s.desc, err
}

func (s dirSource) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return os.Open(s.path(desc.Digest))
}

// layout returns the images of an OCI layout directory.
func layout(t testing.TB, dir string) []dirSource {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(raw, &idx); err != nil {
		t.Fatal(err)
	}
	var out []dirSource
	for _, d := range idx.Manifests {
		out = append(out, dirSource{dir, d})
	}
	return out
}

// A memSource is an image in memory.
type memSource struct {
	manifest []byte
	desc     ocispec.Descriptor
	blobs    map[digest.Digest][]byte
}

func (s *memSource) Manifest(context.Context) ([]byte, ocispec.Descriptor, error) {
	return s.manifest, s.desc, nil
}

func (s *memSource) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	b, ok := s.blobs[desc.Digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// image makes an image of the given uncompressed layers, bottom first, compressed
// with gzip.
func image(t testing.TB, layers ...[]byte) *memSource {
	t.Helper()
	return imageAs(t, layers, nil)
}

// imageOf makes an image of one layer that is compressed already.
func imageOf(t testing.TB, layer, blob []byte) *memSource {
	t.Helper()
	return imageAs(t, [][]byte{layer}, [][]byte{blob})
}

func imageAs(t testing.TB, layers, blobs [][]byte) *memSource {
	t.Helper()
	s := &memSource{blobs: map[digest.Digest][]byte{}}
	put := func(mediaType string, b []byte) ocispec.Descriptor {
		d := digest.FromBytes(b)
		s.blobs[d] = b
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
	}
	img := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, l := range layers {
		var buf bytes.Buffer
		if blobs != nil {
			img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
			m.Layers = append(m.Layers, put(ocispec.MediaTypeImageLayerGzip, blobs[i]))
			continue
		}
		z := gzip.NewWriter(&buf)
		z.Write(l)
		z.Close()
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
		m.Layers = append(m.Layers, put(ocispec.MediaTypeImageLayerGzip, buf.Bytes()))
	}
	m.Config = put(ocispec.MediaTypeImageConfig, marshal(t, img))
	s.manifest = marshal(t, m)
	s.desc = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(s.manifest), Size: int64(len(s.manifest))}
	return s
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func unmarshal(raw []byte, v any) error { return json.Unmarshal(raw, v) }

// member is one member of a tar for tests.
type member struct {
	tar.Header
	body string
}

func file(name, body string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}

func dir(name string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func link(name, target string) member {
	return member{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}, ""}
}

func symlink(name, target string) member {
	return member{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink, Mode: 0o777}, ""}
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		m.Size = int64(len(m.body))
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
