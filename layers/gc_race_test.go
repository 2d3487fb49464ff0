package layers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestCollectionSeesWhatCameAndWent: an image comes, is opened by a reader and is
// removed, all between two steps of a collection. The reader keeps its content.
func TestCollectionSeesWhatCameAndWent(t *testing.T) {
	s := newStore(t)
	load(t, s, image(t, archive(t, file("other", "stays"))), "other")
	steps := len(s.newCollection(false, nil).steps())
	for at := 1; at < steps; at++ {
		c := s.newCollection(false, nil)
		tar := archive(t, file("small", strings.Repeat("s", at)), file("big", strings.Repeat("b", 300_000+at)))
		var l *Layer
		for i, step := range c.steps() {
			if i == at {
				img := load(t, s, image(t, tar), "x")
				var err error
				if l, err = s.OpenLayer(img.DiffIDs()[0]); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Remove(t.Context(), "x", nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		c.close()
		var got strings.Builder
		if err := l.WriteTar(t.Context(), &got); err != nil || digest.FromString(got.String()) != digest.FromBytes(tar) {
			t.Errorf("removed before step %d: what is open is gone: %v", at, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.GC(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
}

// A collection removes what a killed writer has left beside the blobs.
func TestCollectionRemovesUnfinishedBlobs(t *testing.T) {
	s := newStore(t)
	img := load(t, s, image(t, archive(t, file("a", "b"))), "app:1")
	stray := filepath.Join(s.root, "blobs", "sha256", img.ID.Encoded()[:2], ".tmp-killed")
	old := time.Now().Add(-24 * time.Hour)
	if err := errors.Join(os.WriteFile(stray, []byte("half"), 0o600), os.Chtimes(stray, old, old)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); err != nil {
		t.Errorf("after a dry run: %v", err)
	}
	if _, err := s.GC(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after a collection: %v", err)
	}
}
