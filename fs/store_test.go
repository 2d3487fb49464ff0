package fs

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// memSource is an image in memory.
type memSource struct {
	manifest []byte
	desc     ocispec.Descriptor
	blobs    map[digest.Digest][]byte
}

func (s *memSource) Manifest(context.Context) ([]byte, ocispec.Descriptor, error) {
	return s.manifest, s.desc, nil
}

func (s *memSource) Blob(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, ok := s.blobs[d.Digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// newImage makes an image of uncompressed layers, bottom first. Images with different authors differ.
func newImage(t testing.TB, author string, layers ...[]byte) *memSource {
	t.Helper()
	s := &memSource{blobs: map[digest.Digest][]byte{}}
	put := func(mediaType string, b []byte) ocispec.Descriptor {
		d := digest.FromBytes(b)
		s.blobs[d] = b
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
	}
	img := ocispec.Image{Author: author, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
		m.Layers = append(m.Layers, put(ocispec.MediaTypeImageLayer, l))
	}
	m.Config = put(ocispec.MediaTypeImageConfig, marshal(t, img))
	s.manifest = marshal(t, m)
	s.desc = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(s.manifest), Size: int64(len(s.manifest))}
	return s
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// member is a member of a tar.
type member struct {
	tar.Header
	body string
}

// mtime is the time of every member.
var mtime = time.Unix(1_600_000_000, 123_456_789)

func file(name, body string) member { return member{tar.Header{Name: name, Mode: 0o644}, body} }

func dirMember(name string) member {
	return member{tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func special(name string, typ byte, link string) member {
	return member{tar.Header{Name: name, Typeflag: typ, Mode: 0o644, Linkname: link}, ""}
}

// tarOf writes a tar.
func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := m.Header
		h.ModTime, h.Format, h.Size = mtime, tar.FormatPAX, int64(len(m.body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newStore makes an empty store, which ends with the test and must then be sound.
func newStore(t testing.TB) *layers.Store {
	t.Helper()
	st, err := layers.Open(t.TempDir()+"/store", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// load loads an image under names.
func load(t testing.TB, st *layers.Store, src *memSource, names ...string) *layers.Image {
	t.Helper()
	img, err := st.Load(context.Background(), src, &layers.LoadOptions{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// quiet is a logger for what tests provoke.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// offline returns a file system on a store without a mount.
func offline(t testing.TB, st *layers.Store) *fileSystem {
	t.Helper()
	set, err := (&Options{IDMap: "none", Logger: quiet}).settle("test")
	if err != nil {
		t.Fatal(err)
	}
	f := newFileSystem(st, set)
	s := &Server{fs: f}
	f.status.info = func() any { return map[string]int{"renderings": int(f.status.last)} }
	if err := s.prepare(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.closeLayers)
	return f
}
