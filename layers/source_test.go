package layers

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/storetest"
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

// Short names for what the tests here use everywhere.
type (
	memSource = storetest.Source
	member    = storetest.Member
)

var (
	file    = storetest.File
	dir     = storetest.Dir
	link    = storetest.Link
	symlink = storetest.Symlink
	archive = storetest.Tar
	marshal = storetest.JSON
)

// image makes an image of the given uncompressed layers, bottom first, compressed
// with gzip.
func image(t testing.TB, tars ...[]byte) *memSource {
	t.Helper()
	list := make([]storetest.Layer, len(tars))
	for i, tar := range tars {
		list[i] = storetest.Gzip(t, tar)
	}
	return storetest.Image(t, "", list...)
}

func unmarshal(raw []byte, v any) error { return json.Unmarshal(raw, v) }
