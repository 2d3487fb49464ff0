package graphroot

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// FuzzRecords reads lists of images and layers that somebody else has written.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`[{"id":"ab","names":["a"],"layer":"cd","big-data-names":["manifest"]}]`), []byte(`[{"id":"cd","parent":"ef","diff-digest":"sha256:00"},{"id":"ef"}]`))
	f.Add([]byte(`[]`), []byte(`[{"id":"a","parent":"b"},{"id":"b","parent":"a"}]`))
	f.Add([]byte(`[{"id":"../../etc","layer":"x"}]`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, images, layers []byte) {
		r := New(t.TempDir())
		for name, raw := range map[string][]byte{lists[0]: images, lists[1]: layers} {
			path := filepath.Join(r.dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, raw, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		records, err := r.Read()
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v is no %v", err, ErrInvalid)
			}
			return
		}
		for _, img := range records.Images {
			stack, err := records.Stack(img.Layer)
			if err == nil && len(stack) > len(records.Layers) {
				t.Errorf("%d layers of %d", len(stack), len(records.Layers))
			}
			for _, key := range append(img.DataKeys, "manifest") {
				_, _ = r.Document(img.ID, key)
			}
			for _, l := range stack {
				_ = r.Has(l.ID)
				if tar, err := r.OpenTar(l.ID); err == nil {
					tar.Close()
				}
			}
		}
	})
}

// FuzzTar reads the tar of a layer whose tar-split file somebody else has written. What it holds comes from that file
// or from files of the layer, never from outside.
func FuzzTar(f *testing.F) {
	f.Add([]byte(`{"type":2,"payload":"aGVhZA=="}{"type":1,"name":"f","size":5}{"type":2,"payload":"dGFpbA=="}`))
	f.Add([]byte(`{"type":1,"name":"../../secret","size":6}`))
	f.Add([]byte(`{"type":1,"name_raw":"bGluaw==","size":6}{"type":1,"name":"f","size":-1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		r := New(filepath.Join(dir, "root"))
		diff := filepath.Join(r.dir, "overlay/ab/diff")
		for _, d := range []string{diff, filepath.Join(r.dir, "overlay-layers")} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var split bytes.Buffer
		z := gzip.NewWriter(&split)
		z.Write(text)
		z.Close()
		secret := []byte("SECRET-OUTSIDE")
		err := errors.Join(
			os.WriteFile(filepath.Join(dir, "secret"), secret, 0o644),
			os.WriteFile(filepath.Join(diff, "f"), []byte("inner"), 0o644),
			os.Symlink("../../../../secret", filepath.Join(diff, "link")),
			os.WriteFile(filepath.Join(r.dir, "overlay-layers/ab.tar-split.gz"), split.Bytes(), 0o644))
		if err != nil {
			t.Fatal(err)
		}
		tar, err := r.OpenTar("ab")
		if err != nil {
			t.Fatal(err)
		}
		defer tar.Close()
		got, err := io.ReadAll(io.LimitReader(tar, 1<<20))
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%v is no %v", err, ErrInvalid)
		}
		if bytes.Contains(got, secret) {
			t.Error("it holds a file from outside of the layer")
		}
	})
}

// TestLargeEntry reads an entry that unpacks to more than any real one has: a bomb of some KB.
func TestLargeEntry(t *testing.T) {
	r := makeRoot(t, nil, entry{Type: typeSegment, Payload: make([]byte, maxEntry)})
	tar, err := r.OpenTar("ab")
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	if n, err := io.Copy(io.Discard, tar); !errors.Is(err, ErrInvalid) || n > 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
