package blob

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestBlob(t *testing.T) {
	s, _ := newStore(t, nil)
	for _, data := range [][]byte{nil, []byte("{}"), body(1, 100_000)} {
		for range 2 {
			sum, err := s.PutBlob(data)
			if err != nil || sum != sumOf(data) {
				t.Fatalf("put: %x, %v", sum, err)
			}
		}
		if got, err := s.Blob(sumOf(data)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes instead of %d: %v", len(got), len(data), err)
		}
		f, err := s.OpenBlob(sumOf(data))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data) {
			t.Errorf("open: %d bytes instead of %d: %v", len(got), len(data), err)
		}
		f.Close()
	}
	missing := sumOf([]byte("missing"))
	if _, err := s.Blob(missing); !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := errors.Join(s.RemoveBlob(missing), s.RemoveBlob(sumOf([]byte("{}")))); err != nil {
		t.Error(err)
	}
	if _, err := s.Blob(sumOf([]byte("{}"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
	if _, err := s.PutBlob(make([]byte, MaxBlob+1)); err == nil {
		t.Error("a blob that is too large: no error")
	}
}

// TestBlobHeals damages blobs: reading says so, putting repairs.
func TestBlobHeals(t *testing.T) {
	s, _ := newStore(t, nil)
	data := []byte("a manifest")
	for _, bad := range []string{"", "a manifesto", "another"} {
		if _, err := s.PutBlob(data); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.blobPath(sumOf(data)), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Blob(sumOf(data)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := s.PutBlob(data); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Blob(sumOf(data)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("after the repair of %q: %q, %v", bad, got, err)
		}
	}
}

func TestBlobsAtOnce(t *testing.T) {
	s, _ := newStore(t, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20 {
				if _, err := s.PutBlob(body(uint64(i), 100)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	err := s.WalkBlobs(func(sum Sum, size int64) error {
		n++
		_, err := s.Blob(sum)
		return err
	})
	if err != nil || n != 20 {
		t.Errorf("%d blobs, %v", n, err)
	}
}

func TestSweepTemp(t *testing.T) {
	s, _ := newStore(t, nil)
	sum, err := s.PutBlob([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(filepath.Dir(s.blobPath(sum)), ".tmp-4711")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.SweepTemp(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); err != nil {
		t.Errorf("one that is being written: %v", err)
	}
	old := time.Now().Add(-2 * tempAge)
	if err := errors.Join(os.Chtimes(stray, old, old), s.SweepTemp()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s.root); len(got) != 1 || got[0] != s.blobPath(sum) {
		t.Errorf("left: %s", strings.Join(got, " "))
	}
}

func TestOpenNothing(t *testing.T) {
	if _, err := Open(t.TempDir(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no store: %v", err)
	}
	root := filepath.Join(t.TempDir(), "new")
	for range 2 {
		s, err := Create(root, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range []string{root, root + "/packs", root + "/objects", root + "/blobs/sha256"} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st, err)
		}
	}
}
