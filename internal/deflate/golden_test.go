package deflate

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

var update = flag.Bool("update", false, "write the golden files that are missing; none is ever changed")

// goldenBlob is a stream of which each part looks like another encoder: flushes in the
// middle, units, matches long and far, stored bytes, members, padding.
func goldenBlob(t *testing.T) []byte {
	units := text(75_000, 11)
	var fast bytes.Buffer
	w, err := kflate.NewWriter(&fast, 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(units); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return slices.Concat(
		flushed(t, text(76_000, 10), 70_000),
		member(plainHeader, fast.Bytes(), units),
		goGzip(t, text(12_000, 12), gzip.BestSpeed),
		make([]byte, 100),
	)
}

// TestGolden keeps the format: for each spec there is a correction of the same blob,
// which must be read for ever, and which Analyze must still write the same, because
// what a predictor does is a part of the format. A failure means that corrections in
// stores can no longer be read: do not update the files, add a spec or a version.
func TestGolden(t *testing.T) {
	const dir = "testdata/golden"
	blob := golden(t, filepath.Join(dir, "blob.gz"), func() []byte { return goldenBlob(t) })
	plain := gunzip(t, slices.Clone(blob[:len(blob)-100]))
	for _, s := range specs {
		var now, again bytes.Buffer
		if _, err := analyze(bytes.NewReader(blob), &now, func(*analyzer) spec { return s }); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		name := filepath.Join(dir, fmt.Sprintf("v%d-%02d.correction", version, s.id))
		want := golden(t, name, now.Bytes)
		if !bytes.Equal(now.Bytes(), want) {
			t.Errorf("%s: Analyze writes another correction than %s", s.name, name)
		}
		if err := Reconstruct(bytes.NewReader(plain), bytes.NewReader(want), &again); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !bytes.Equal(again.Bytes(), blob) {
			t.Errorf("%s: not the same blob again", name)
		}
	}
}

// golden returns the content of a file; with -update it is made if it is missing.
func golden(t *testing.T, name string, content func() []byte) []byte {
	t.Helper()
	p, err := os.ReadFile(name)
	if os.IsNotExist(err) && *update {
		p = content()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		err = os.WriteFile(name, p, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}
