// Package storetest makes tars and images in memory for the tests of stores. It imports
// nothing of ours, so that the tests of package layers can use it too.
package storetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Member is a member of a tar.
type Member struct {
	tar.Header
	Body string
}

// File is a regular file.
func File(name, body string) Member {
	return Member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}

// Dir is a directory.
func Dir(name string) Member {
	return Member{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

// Link is another name of a file.
func Link(name, target string) Member {
	return Member{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}, ""}
}

// Symlink is a symbolic link.
func Symlink(name, target string) Member {
	return Member{tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink, Mode: 0o777}, ""}
}

// Tar writes a tar.
func Tar(t testing.TB, members ...Member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		m.Size = int64(len(m.Body))
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A Source is an image in memory; it is a layers.Source. A test may change what is in it.
type Source struct {
	Raw   []byte // the manifest
	Desc  ocispec.Descriptor
	Blobs map[digest.Digest][]byte
}

// Manifest returns the manifest.
func (s *Source) Manifest(context.Context) ([]byte, ocispec.Descriptor, error) {
	return s.Raw, s.Desc, nil
}

// Blob opens a blob, without any check.
func (s *Source) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	b, ok := s.Blobs[desc.Digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// A Layer is an uncompressed tar, and the blob that it goes as.
type Layer struct {
	Tar       []byte
	Blob      []byte
	MediaType string
}

// Plain is a layer that goes as it is.
func Plain(tar []byte) Layer { return Layer{tar, tar, ocispec.MediaTypeImageLayer} }

// Gzip is a layer that is compressed with gzip.
func Gzip(t testing.TB, tar []byte) Layer {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(tar); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return Gzipped(tar, buf.Bytes())
}

// Gzipped is a layer that somebody else has compressed.
func Gzipped(tar, blob []byte) Layer { return Layer{tar, blob, ocispec.MediaTypeImageLayerGzip} }

// Image makes an image of layers, bottom first. Images with different authors differ.
func Image(t testing.TB, author string, layers ...Layer) *Source {
	t.Helper()
	s := &Source{Blobs: map[digest.Digest][]byte{}}
	put := func(mediaType string, b []byte) ocispec.Descriptor {
		d := digest.FromBytes(b)
		s.Blobs[d] = b
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
	}
	img := ocispec.Image{Author: author, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l.Tar))
		m.Layers = append(m.Layers, put(l.MediaType, l.Blob))
	}
	m.Config = put(ocispec.MediaTypeImageConfig, JSON(t, img))
	s.Raw = JSON(t, m)
	s.Desc = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(s.Raw), Size: int64(len(s.Raw))}
	return s
}

// JSON is json.Marshal for what is known to be possible.
func JSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
