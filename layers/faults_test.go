package layers

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/disk"
)

// failNth returns a disk whose n-th operation fails with err, and what counts them.
func failNth(n int64, err error) (*disk.Disk, *atomic.Int64) {
	var count atomic.Int64
	return &disk.Disk{Hook: func(disk.Op, string) error {
		if count.Add(1) == n {
			return err
		}
		return nil
	}}, &count
}

// TestLoadFaults fails the first, the second, the third … operation on the disk
// until the load succeeds. After each failure the store is as it was, and works.
func TestLoadFaults(t *testing.T) {
	src := image(t,
		archive(t, dir("d/"), file("d/small", "hello"), file("d/large", strings.Repeat("0123456789abcdef", 20_000))),
		archive(t, file("d/.wh.small", ""), link("d/again", "d/large"), file("d/more", "more")))
	for _, fault := range []error{unix.ENOSPC, unix.EIO} {
		for n := int64(1); ; n++ {
			s := newStore(t)
			load(t, s, image(t, archive(t, file("old", "old"))), "old")
			before := withoutShards(listing(t, s.root))

			d, count := failNth(n, fault)
			faulty, err := Open(s.root, &Options{Disk: d})
			if err != nil {
				t.Fatal(err)
			}
			count.Store(0)
			_, err = faulty.Load(t.Context(), src, &LoadOptions{Names: []string{"new"}})
			faulty.Close()
			if err == nil {
				if count.Load() >= n {
					t.Fatalf("operation %d failed, but the load did not", n)
				}
				break
			}
			if !errors.Is(err, fault) {
				t.Fatalf("operation %d: got %v, want %v", n, err, fault)
			}
			s.sweepTemp()
			if _, err := s.Image(t.Context(), "new"); !errors.Is(err, ErrImageUnknown) {
				t.Fatalf("operation %d: the image is half there: %v", n, err)
			}
			wantClean(t, s)
			if _, err := s.GC(t.Context(), false); err != nil {
				t.Fatalf("operation %d: gc: %v", n, err)
			}
			if after := withoutShards(listing(t, s.root)); !slices.Equal(before, after) {
				t.Fatalf("operation %d: something is left after gc:\n%s\n%s", n, before, after)
			}
			load(t, s, src, "new")
		}
	}
}

// withoutShards leaves out the directories below objects/ and blobs/, which stay
// when they are empty.
func withoutShards(files []string) []string {
	return slices.DeleteFunc(files, func(p string) bool {
		return strings.Count(p, "/") == strings.Count("/objects/ab", "/") && strings.HasPrefix(p, "/objects/") ||
			strings.Count(p, "/") == strings.Count("/blobs/sha256/ab", "/") && strings.HasPrefix(p, "/blobs/")
	})
}
