package layers

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestApplyFaults fails the first, the second, the third … operation on the disk until
// a layer can be applied. After each failure the record is as it was, and nothing is
// left after a collection.
func TestApplyFaults(t *testing.T) {
	tar := archive(t, dir("d/"), file("d/small", "hello"), file("d/large", strings.Repeat("0123456789abcdef", 20_000)))
	for n := int64(1); ; n++ {
		s := newStore(t)
		rec, err := s.CreateLayer(t.Context(), &CreateLayerOptions{Names: []string{"rec"}})
		must(t, err)
		d, count := failNth(n, unix.ENOSPC)
		faulty, err := Open(s.root, &Options{Disk: d})
		must(t, err)
		count.Store(0)
		_, err = faulty.ApplyLayer(t.Context(), rec.ID, bytes.NewReader(tar), nil)
		faulty.Close()
		if err == nil {
			if count.Load() >= n {
				t.Fatalf("operation %d failed, but the apply did not", n)
			}
			return
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("operation %d: got %v", n, err)
		}
		if got, err := s.LayerNode(t.Context(), "rec"); err != nil || got.DiffID != "" || got.Blob != nil {
			t.Fatalf("operation %d: the record is half changed: %+v, %v", n, got, err)
		}
		_, err = s.GC(t.Context(), false)
		must(t, err)
		wantExact(t, s)
		if left := onDisk(t, s); len(left) != 0 {
			t.Fatalf("operation %d: left %v", n, left)
		}
		_, err = s.ApplyLayer(t.Context(), "rec", bytes.NewReader(tar), nil)
		must(t, err)
	}
}

// TestCollectFaults fails one operation of a collection after the other. What it has
// not done the next one does, and what is needed is always there.
func TestCollectFaults(t *testing.T) {
	base := archive(t, file("keep", strings.Repeat("keep", 5000)), file("both", "both"))
	top := archive(t, file("drop", strings.Repeat("drop", 5000)), file("both", "both"), file("large", strings.Repeat("large", 50_000)))
	for n := int64(1); ; n++ {
		s := newStore(t)
		load(t, s, image(t, base), "keep:1")
		load(t, s, image(t, base, top), "drop:1")
		_, err := s.SetBigData(t.Context(), "drop:1", []byte("k"), strings.NewReader("data"))
		must(t, err)
		d, count := failNth(n, unix.EIO)
		faulty, err := Open(s.root, &Options{Disk: d})
		must(t, err)
		count.Store(0)
		r, err := faulty.Remove(t.Context(), "drop:1", nil)
		faulty.Close()
		done := count.Load() < n
		if (err == nil) != done || r == nil || len(r.Deleted) != 1 {
			t.Fatalf("operation %d: got %+v, %v", n, r, err)
		}
		wantSound(t, s)
		_, err = s.GC(t.Context(), false)
		must(t, err)
		wantExact(t, s)
		load(t, s, image(t, base, top), "again:1")
		if done {
			return
		}
	}
}

// wantSound is wantClean but for leftovers below tmp/.
func wantSound(t *testing.T, s *Store) {
	t.Helper()
	r, err := s.Check(t.Context(), nil)
	must(t, err)
	for _, p := range r.Problems {
		t.Errorf("check: %s", p)
	}
}
