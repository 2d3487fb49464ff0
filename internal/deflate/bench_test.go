package deflate

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"
)

func BenchmarkAnalyzeSmall(b *testing.B) {
	blob := goGzip(b, text(20_000, 1), gzip.DefaultCompression)
	for b.Loop() {
		if _, err := Analyze(bytes.NewReader(blob), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAnalyze(b *testing.B) {
	plain := text(8_000_000, 1)
	blob := goGzip(b, plain, gzip.DefaultCompression)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := Analyze(bytes.NewReader(blob), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReconstruct(b *testing.B) {
	plain := text(8_000_000, 1)
	var correction bytes.Buffer
	if _, err := Analyze(bytes.NewReader(goGzip(b, plain, gzip.DefaultCompression)), &correction); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if err := Reconstruct(bytes.NewReader(plain), bytes.NewReader(correction.Bytes()), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
