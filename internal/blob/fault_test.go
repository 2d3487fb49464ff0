package blob

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/layerfs/layerfs/internal/disk"
	"github.com/layerfs/layerfs/internal/testenv"
)

// faultBodies has something of each kind in a few operations: a batch, an
// object, a streamed object that is dropped because it comes twice.
func faultBodies() [][]byte {
	big := append(body(3, wholeMax), body(4, ObjectMin)...)
	return [][]byte{body(0, 100), body(1, 50_000), body(2, ObjectMin), big, body(1, 50_000), big}
}

// packContent is what the pack of faultBodies holds.
func packContent() []byte { return append(body(0, 100), body(1, 50_000)...) }

// TestFaults fails disk operation 1, 2, 3, … of an import until one succeeds.
// After each failure nothing is staged, what has its final name is whole, and
// the next import of the same bodies works.
func TestFaults(t *testing.T) {
	full := fmt.Errorf("%w: %w", disk.ErrShort, syscall.ENOSPC) // short where it is a write
	for _, fault := range []error{syscall.EIO, full} {
		t.Run(fault.Error(), func(t *testing.T) {
			for n := int64(1); faultAt(t, n, fault); n++ {
				if n > 1000 {
					t.Fatal("no end")
				}
			}
		})
	}
}

// faultAt imports with operation n failing and reports whether there was one.
func faultAt(t *testing.T, n int64, fault error) bool {
	t.Helper()
	var count atomic.Int64
	var what string
	d := &disk.Disk{Hook: func(op disk.Op, path string) error {
		if count.Add(1) == n {
			what = fmt.Sprintf("operation %d, %s %s", n, op, shorten(filepath.Base(path)))
			return fault
		}
		return nil
	}}
	s, tmp := newStore(t, d)
	x := newIndex()
	_, err := ingest(s, tmp, x, faultBodies())
	if err == nil && what != "" {
		t.Errorf("%s: no error", what)
	}
	if err != nil && !errors.Is(err, fault) {
		t.Errorf("%s: %v does not wrap %v", what, err, fault)
	}
	mustBeEmpty(t, tmp)
	mustBeWhole(t, s)
	packsMustHold(t, s, packContent())
	if err != nil && len(x.bodies) > 0 {
		t.Errorf("%s: %d bodies are registered", what, len(x.bodies))
	}
	if err != nil {
		mustIngest(t, s, tmp, x, faultBodies())
	}
	if len(x.bodies) != 4 {
		t.Errorf("%s: afterwards %d bodies are registered", what, len(x.bodies))
	}
	x.verify(t, s)
	return what != ""
}

// TestKilled lets all disk operations from the n-th on fail, as when the process
// is killed there: nothing is cleaned up. What has its final name is whole, what
// is registered is there, and a new importer works.
func TestKilled(t *testing.T) {
	for n := int64(1); ; n++ {
		var count atomic.Int64
		d := &disk.Disk{Hook: func(disk.Op, string) error {
			if count.Add(1) >= n {
				return syscall.EIO
			}
			return nil
		}}
		s, tmp := newStore(t, d)
		x := newIndex()
		_, err := ingest(s, tmp, x, faultBodies())
		x.verify(t, s)
		mustBeWhole(t, s)
		packsMustHold(t, s, packContent())
		if err == nil {
			return
		}
		next, tmp := newStoreAt(t, s.root, nil)
		if err := os.Mkdir(tmp+"2", 0o700); err != nil {
			t.Fatal(err)
		}
		mustIngest(t, next, tmp+"2", x, faultBodies())
		x.verify(t, next)
	}
}

// packsMustHold checks that every pack is whole.
func packsMustHold(t *testing.T, s *Store, want []byte) {
	t.Helper()
	err := s.WalkPacks(func(id PackID, size int64) error {
		got, err := s.PackBytes(Place{Pack: id}, 0, size)
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s does not hold what it should", packName(id))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestRegisterFaults fails the calls of the index.
func TestRegisterFaults(t *testing.T) {
	broken := errors.New("index is broken")
	bodies := mixed(registerChunk + 10)
	t.Run("known", func(t *testing.T) {
		s, tmp := newStore(t, nil)
		for _, known := range []Known{
			func([]Sum) ([]bool, error) { return nil, broken },
			func([]Sum) ([]bool, error) { return nil, nil },
		} {
			in, err := s.NewIngest(tmp, known)
			if err != nil {
				t.Fatal(err)
			}
			w := in.Writer()
			if _, err := w.Put(bytes.NewReader(bodies[0]), int64(len(bodies[0]))); err != nil {
				t.Fatal(err)
			}
			if w.Close() == nil || in.Commit(newIndex().register) == nil {
				t.Error("no error")
			}
			mustBeEmpty(t, tmp)
		}
	})
	for call := 1; call <= 2; call++ {
		t.Run(fmt.Sprintf("register call %d", call), func(t *testing.T) {
			s, tmp := newStore(t, nil)
			x := newIndex()
			in, err := s.NewIngest(tmp, x.known)
			if err != nil {
				t.Fatal(err)
			}
			w := in.Writer()
			for _, b := range bodies {
				if _, err := w.Put(bytes.NewReader(b), int64(len(b))); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			calls := 0
			err = in.Commit(func(p []Placed) ([]bool, error) {
				if calls++; calls == call {
					return nil, broken
				}
				return x.register(p)
			})
			if !errors.Is(err, broken) {
				t.Errorf("error %v", err)
			}
			mustBeEmpty(t, tmp)
			x.verify(t, s)
			mustIngest(t, s, tmp, x, bodies)
			if len(x.bodies) != len(bodies) {
				t.Errorf("%d of %d bodies are registered", len(x.bodies), len(bodies))
			}
			x.verify(t, s)
		})
	}
}

// TestFullDisk imports into a file system that is too small.
func TestFullDisk(t *testing.T) {
	testenv.Require(t, "root")
	for _, size := range []string{"1m", "3m", "8m"} {
		root := t.TempDir()
		if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size="+size); err != nil {
			t.Fatal(err)
		}
		defer syscall.Unmount(root, syscall.MNT_DETACH)
		s, tmp := newStoreAt(t, root, nil)
		x := newIndex()
		_, err := ingest(s, tmp, x, mixed(300))
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v does not wrap ENOSPC", size, err)
		}
		mustBeEmpty(t, tmp)
		if left := files(t, root); len(left) > 0 {
			t.Errorf("%s: left: %q", size, left)
		}
		mustIngest(t, s, tmp, x, [][]byte{body(1, 1000)})
		x.verify(t, s)
	}
}

// TestBlobFaults fails each operation of PutBlob.
func TestBlobFaults(t *testing.T) {
	data := []byte("a manifest")
	for n := int64(1); ; n++ {
		var count atomic.Int64
		d := &disk.Disk{Hook: func(disk.Op, string) error {
			if count.Add(1) == n {
				return syscall.ENOSPC
			}
			return nil
		}}
		s, _ := newStore(t, d)
		_, err := s.PutBlob(data)
		if count.Load() < n {
			if err != nil {
				t.Error(err)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("operation %d: %v", n, err)
		}
		if got, err := s.Blob(sumOf(data)); err == nil {
			if !bytes.Equal(got, data) {
				t.Errorf("operation %d: content %q", n, got)
			}
		} else if !errors.Is(err, ErrNotFound) {
			t.Errorf("operation %d: %v", n, err)
		}
		if _, err := s.PutBlob(data); err != nil {
			t.Errorf("after operation %d: %v", n, err)
		}
		if entries, err := os.ReadDir(filepath.Dir(s.blobPath(sumOf(data)))); err != nil || len(entries) != 1 {
			t.Errorf("operation %d: left %v, %v", n, entries, err)
		}
	}
}
