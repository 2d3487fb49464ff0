package faulttest_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A memImage is an image in memory, and a layers.Source.
type memImage struct {
	manifest []byte
	desc     ocispec.Descriptor
	blobs    map[digest.Digest][]byte
}

// Manifest implements layers.Source.
func (m *memImage) Manifest(context.Context) ([]byte, ocispec.Descriptor, error) {
	return m.manifest, m.desc, nil
}

// Blob implements layers.Source.
func (m *memImage) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	b, ok := m.blobs[desc.Digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func newImage(tars ...[]byte) *memImage {
	m := &memImage{blobs: map[digest.Digest][]byte{}}
	put := func(mediaType string, b []byte) ocispec.Descriptor {
		d := digest.FromBytes(b)
		m.blobs[d] = b
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, t := range tars {
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		_, _ = z.Write(t) // a buffer takes everything
		_ = z.Close()
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(t))
		manifest.Layers = append(manifest.Layers, put(ocispec.MediaTypeImageLayerGzip, buf.Bytes()))
	}
	manifest.Config = put(ocispec.MediaTypeImageConfig, encode(config))
	m.manifest = encode(manifest)
	m.desc = ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(m.manifest), Size: int64(len(m.manifest))}
	return m
}

func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // of types that can be encoded
	}
	return raw
}

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

func archive(members ...member) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		m.Size = int64(len(m.body))
		if err := w.WriteHeader(&m.Header); err != nil {
			panic(err) // of headers that are fixed
		}
		_, _ = io.WriteString(w, m.body)
	}
	_ = w.Close()
	return buf.Bytes()
}

// noise is text of n bytes that hardly compresses and depends on the seed.
func noise(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(r.IntN(26))
	}
	return string(b)
}

// The images of the tests: small, but with something in packs and a large body each.
func baseTar() []byte {
	return archive(dir("etc/"), file("etc/passwd", "root:x:0:0"), file("etc/motd", noise(1, 3000)), dir("bin/"), file("bin/tool", noise(2, 150_000)),
		link("bin/tool2", "bin/tool"), symlink("lib", "bin"), dir("data/"), file("data/a", noise(3, 9000)), file("data/b", noise(4, 500)), dir("data/sub/"), file("data/sub/c", "c"))
}

func topTar() []byte {
	return archive(file("etc/motd", noise(5, 3000)), file("data/.wh.b", ""), file("data/d", noise(6, 70_000)))
}

func newTar() []byte {
	return archive(dir("opt/"), file("opt/large", noise(7, 200_000)), file("opt/small", noise(8, 4000)), file("opt/known", noise(3, 9000)))
}

func deadTar() []byte {
	return archive(dir("dead/"), file("dead/large", noise(9, 140_000)), file("dead/small", noise(10, 2000)), file("dead/known", noise(3, 9000)))
}

// serveRegistry serves the image as every tag of every repository, to be pulled.
func serveRegistry(t testing.TB, img *memImage) (addr string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", img.desc.MediaType)
			w.Header().Set("Docker-Content-Digest", string(img.desc.Digest))
			w.Header().Set("Content-Length", fmt.Sprint(len(img.manifest)))
			if r.Method != http.MethodHead {
				_, _ = w.Write(img.manifest)
			}
		default:
			_, d, _ := strings.Cut(r.URL.Path, "/blobs/")
			blob, ok := img.blobs[digest.Digest(d)]
			if !ok {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
			_, _ = w.Write(blob)
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}
