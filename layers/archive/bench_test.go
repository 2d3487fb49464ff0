package archive

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/compress"
)

// BenchmarkOpen opens the archive named by LAYERFS_BENCH_ARCHIVE.
func BenchmarkOpen(b *testing.B) {
	path := os.Getenv("LAYERFS_BENCH_ARCHIVE")
	if path == "" {
		b.Skip("LAYERFS_BENCH_ARCHIVE names no archive")
	}
	for b.Loop() {
		a, err := Open(path, nil)
		if err != nil {
			b.Fatal(err)
		}
		a.Close()
	}
}

// BenchmarkWriteGzip compresses the gzip layer named by LAYERFS_BENCH_LAYER again
// and reports bytes of the uncompressed tar.
func BenchmarkWriteGzip(b *testing.B) {
	path := os.Getenv("LAYERFS_BENCH_LAYER")
	if path == "" {
		b.Skip("LAYERFS_BENCH_LAYER names no gzip layer")
	}
	blob, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	open := func() (io.ReadCloser, error) {
		rc, _, err := compress.Detect(bytes.NewReader(blob))
		return rc, err
	}
	rc, err := open()
	if err != nil {
		b.Fatal(err)
	}
	sum := digest.SHA256.Digester()
	size, err := io.Copy(sum.Hash(), rc)
	if err != nil {
		b.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	img := SaveImage{
		Config: []byte("{}"), Manifest: toJSON(b, ocispec.Manifest{Layers: []ocispec.Descriptor{desc}}),
		Layers: []SaveLayer{{DiffID: sum.Digest(), Size: size, Desc: desc, Open: open}},
	}
	b.SetBytes(size)
	for b.Loop() {
		if err := Write(context.Background(), io.Discard, FormatOCIArchive, []SaveImage{img}, &WriteOptions{TempDir: b.TempDir()}); err != nil {
			b.Fatal(err)
		}
	}
}
