package blob

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/layerfs/layerfs/internal/disk"
)

// fakeIndex is the index that an import registers its bodies in.
type fakeIndex struct {
	mu     sync.Mutex
	bodies map[Sum]Placed
}

func newIndex() *fakeIndex { return &fakeIndex{bodies: map[Sum]Placed{}} }

func (x *fakeIndex) known(sums []Sum) ([]bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	found := make([]bool, len(sums))
	for i, sum := range sums {
		_, found[i] = x.bodies[sum]
	}
	return found, nil
}

func (x *fakeIndex) register(bodies []Placed) ([]bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	kept := make([]bool, len(bodies))
	for i, b := range bodies {
		if i > 0 && bytes.Compare(bodies[i-1].Sum[:], b.Sum[:]) >= 0 {
			return nil, fmt.Errorf("bodies %d and %d are not in order", i-1, i)
		}
		old, had := x.bodies[b.Sum]
		if !had {
			x.bodies[b.Sum] = b
		}
		kept[i] = !had || old == b
	}
	return kept, nil
}

// verify reads every body of the index and compares it with its digest.
func (x *fakeIndex) verify(t testing.TB, s *Store) {
	t.Helper()
	for sum, b := range x.bodies {
		if err := s.VerifyBody(sum, b.Size, b.Place); err != nil {
			t.Error(err)
		}
	}
}

// newStore makes a store and an importer's directory.
func newStore(t testing.TB, d *disk.Disk) (s *Store, tmp string) {
	t.Helper()
	root := t.TempDir()
	return newStoreAt(t, root, d)
}

func newStoreAt(t testing.TB, root string, d *disk.Disk) (s *Store, tmp string) {
	t.Helper()
	if _, err := Create(root, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(root, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	tmp = filepath.Join(root, "tmp", "import")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	return s, tmp
}

// body returns size bytes that depend on seed.
func body(seed uint64, size int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	p := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(p)
	return p
}

// sumOf returns the digest of p.
func sumOf(p []byte) Sum { return sha256.Sum256(p) }

// mixed returns bodies of all kinds: small, object, streamed, and one that is
// mostly holes.
func mixed(n int) [][]byte {
	var bodies [][]byte
	for i := range n {
		limit := 4000
		if i%16 == 0 {
			limit = ObjectMin - 1
		}
		bodies = append(bodies, body(uint64(i), 1+i*997%limit))
	}
	sparse := make([]byte, wholeMax+3*holeSize+17)
	copy(sparse[holeSize+5:], "an island")
	return append(bodies, body(1<<20, ObjectMin), body(1<<20+1, wholeMax), body(1<<20+2, wholeMax+1), sparse)
}

// ingest puts bodies with one writer and commits.
func ingest(s *Store, tmp string, x *fakeIndex, bodies [][]byte) (in *Ingest, err error) {
	in, err = s.NewIngest(tmp, x.known)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Abort()) }()
	w := in.Writer()
	for _, b := range bodies {
		sum, err := w.Put(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return in, err
		}
		if sum != sha256.Sum256(b) {
			return in, fmt.Errorf("digest %x is wrong", sum)
		}
	}
	if err := w.Close(); err != nil {
		return in, err
	}
	return in, in.Commit(x.register)
}

// mustIngest is ingest for a store that works.
func mustIngest(t testing.TB, s *Store, tmp string, x *fakeIndex, bodies [][]byte) *Ingest {
	t.Helper()
	in, err := ingest(s, tmp, x, bodies)
	if err != nil {
		t.Fatal(err)
	}
	mustBeEmpty(t, tmp)
	return in
}

// mustBeEmpty checks that nothing is staged.
func mustBeEmpty(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("staged files are left: %v, %v", entries, err)
	}
}

// mustBeWhole checks that every object has the content that its name says, and
// returns how many objects and packs there are.
func mustBeWhole(t testing.TB, s *Store) (objects, packs int) {
	t.Helper()
	err := s.WalkObjects(func(sum Sum, size int64) error {
		objects++
		return s.VerifyBody(sum, size, Place{})
	})
	if err != nil {
		t.Error(err)
	}
	err = s.WalkPacks(func(PackID, int64) error { packs++; return nil })
	if err != nil {
		t.Error(err)
	}
	return objects, packs
}

// readBody reads a body through BodyAt.
func readBody(s *Store, b Placed) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(readerAt{s, b}, 0, b.Size))
}

// readerAt is a body as an io.ReaderAt.
type readerAt struct {
	s *Store
	b Placed
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	return r.s.BodyAt(r.b.Sum, r.b.Size, r.b.Place, p, off)
}

// files lists the files below root.
func files(t testing.TB, root string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
