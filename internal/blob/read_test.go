package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
)

// placedBodies imports bodies and returns where they are.
func placedBodies(t testing.TB, s *Store, tmp string, bodies [][]byte) []Placed {
	t.Helper()
	x := newIndex()
	mustIngest(t, s, tmp, x, bodies)
	placed := make([]Placed, len(bodies))
	for i, b := range bodies {
		placed[i] = x.bodies[sumOf(b)]
	}
	return placed
}

func TestBodyAt(t *testing.T) {
	s, tmp := newStore(t, nil)
	bodies := [][]byte{body(1, 1), body(2, 70_000), body(3, 300_000)}
	for i, p := range placedBodies(t, s, tmp, bodies) {
		r := io.NewSectionReader(readerAt{s, p}, 0, p.Size)
		if err := iotest.TestReader(r, bodies[i]); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 10)
		if n, err := s.BodyAt(p.Sum, p.Size, p.Place, buf, p.Size-1); n != 1 || err != io.EOF || buf[0] != bodies[i][p.Size-1] {
			t.Errorf("over the end: %d, %v", n, err)
		}
		for _, off := range []int64{p.Size, p.Size + 1, math.MaxInt64} {
			if n, err := s.BodyAt(p.Sum, p.Size, p.Place, buf, off); n != 0 || err != io.EOF {
				t.Errorf("offset %d: %d, %v", off, n, err)
			}
		}
		if _, err := s.BodyAt(p.Sum, p.Size, p.Place, buf, -1); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("negative offset: %v", err)
		}
	}
}

// TestReadAllocs checks that reading what is open allocates nothing.
func TestReadAllocs(t *testing.T) {
	s, tmp := newStore(t, nil)
	placed := placedBodies(t, s, tmp, [][]byte{body(2, 70_000), body(3, 300_000)})
	buf := make([]byte, 4096)
	for _, p := range placed {
		n := testing.AllocsPerRun(100, func() {
			if _, err := s.BodyAt(p.Sum, p.Size, p.Place, buf, 8192); err != nil {
				t.Fatal(err)
			}
		})
		if n > 0 {
			t.Errorf("BodyAt of %d bytes allocates %v times", p.Size, n)
		}
	}
	n := testing.AllocsPerRun(100, func() {
		if _, err := s.PackBytes(placed[0].Place, 100, 4096); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("PackBytes allocates %v times", n)
	}
}

// TestDamage checks what is said about bodies that are not what they should be.
func TestDamage(t *testing.T) {
	bodies := [][]byte{body(1, 100), body(2, 70_000), body(3, 300_000)}
	for name, damage := range map[string]func(path string) error{
		"removed":   os.Remove,
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"truncated": func(path string) error { return os.Truncate(path, 101) },
		"changed": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("?"), 50)
			return errors.Join(err, f.Close())
		},
	} {
		s, tmp := newStore(t, nil)
		placed := placedBodies(t, s, tmp, bodies)
		for _, path := range files(t, s.root) {
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
		}
		for i, p := range placed {
			err := s.VerifyBody(p.Sum, p.Size, p.Place)
			whole := i == 0 && name == "truncated" || i == 1 && name == "changed"
			if whole != (err == nil) || err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: body %d: %v", name, i, err)
			}
			if missing := errors.Is(err, fs.ErrNotExist); missing != (name == "removed") {
				t.Errorf("%s: body %d: %v", name, i, err)
			}
		}
		if _, err := s.PackBytes(placed[1].Place, 0, placed[1].Size); name != "changed" && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: PackBytes: %v", name, err)
		}
		// Another import of the same bodies, which the index says are lost, heals.
		healed := placedBodies(t, s, tmp, bodies)
		for i, p := range healed {
			if got, err := readBody(s, p); err != nil || !bytes.Equal(got, bodies[i]) {
				t.Errorf("%s: body %d after the second import: %v", name, i, err)
			}
		}
	}
}

// TestTruncatedLater truncates a pack after it was mapped: an error, no SIGBUS.
func TestTruncatedLater(t *testing.T) {
	s, tmp := newStore(t, nil)
	p := placedBodies(t, s, tmp, [][]byte{body(2, 100_000)})[0]
	if err := s.VerifyBody(p.Sum, p.Size, p.Place); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.packPath(p.Place.Pack), 4096); err != nil {
		t.Fatal(err)
	}
	if err := s.VerifyBody(p.Sum, p.Size, p.Place); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

func TestPackBytesBounds(t *testing.T) {
	s, tmp := newStore(t, nil)
	want := body(2, 100_000)
	p := placedBodies(t, s, tmp, [][]byte{want})[0]
	got, err := s.PackBytes(p.Place, 10, 20)
	if err != nil || !bytes.Equal(got, want[10:30]) || cap(got) != 20 {
		t.Errorf("%d bytes, cap %d, %v", len(got), cap(got), err)
	}
	for _, c := range []struct{ place, off, n int64 }{
		{0, 0, 100_001},
		{0, 100_000, 1},
		{100_001, 0, 0},
		{-1, 0, 1},
		{0, -1, 1},
		{0, 0, -1},
		{math.MaxInt64, 1, 0},
		{0, math.MaxInt64, 1},
		{1, 0, math.MaxInt64},
		{0, 0, math.MaxInt64},
	} {
		if b, err := s.PackBytes(Place{p.Place.Pack, c.place}, c.off, c.n); !errors.Is(err, ErrDamaged) {
			t.Errorf("%+v: %d bytes, %v", c, len(b), err)
		}
	}
	if _, err := s.PackBytes(Place{}, 0, 1); err == nil {
		t.Error("bytes of an object: no error")
	}
	for _, pl := range []Place{{p.Place.Pack, -1}, {p.Place.Pack, math.MaxInt64}, {p.Place.Pack + 1, 0}} {
		if _, err := s.BodyAt(p.Sum, 10, pl, make([]byte, 5), 0); !errors.Is(err, ErrDamaged) {
			t.Errorf("body at %+v: %v", pl, err)
		}
	}
}

// TestGrownPack maps a pack that has become longer again.
func TestGrownPack(t *testing.T) {
	s, tmp := newStore(t, nil)
	want := body(2, 100_000)
	pl := placedBodies(t, s, tmp, [][]byte{want})[0].Place
	first, err := s.PackBytes(pl, 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.packPath(pl.Pack), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	f.Close()
	second, err := s.PackBytes(pl, 100_000, 100_000)
	if err != nil || !bytes.Equal(second, want) || !bytes.Equal(first, want) {
		t.Errorf("after growing: %v", err)
	}
}

// TestPin checks that a pinned pack outlives Forget, removal and Close order.
func TestPin(t *testing.T) {
	s, tmp := newStore(t, nil)
	want := body(2, 100_000)
	pl := placedBodies(t, s, tmp, [][]byte{want})[0].Place
	s.Pin(pl.Pack)
	s.Pin(pl.Pack)
	got, err := s.PackBytes(pl, 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemovePack(pl.Pack); err != nil {
		t.Fatal(err)
	}
	s.Unpin(pl.Pack)
	s.Forget(pl.Pack)
	if !bytes.Equal(got, want) {
		t.Error("content has changed")
	}
	s.Unpin(pl.Pack)
	if _, err := s.PackBytes(pl, 0, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the last Unpin: %v", err)
	}
	s.Unpin(pl.Pack)
	s.Pin(pl.Pack + 1)
	s.Unpin(pl.Pack + 1)
	if n := len(s.packs.byID); n != 0 {
		t.Errorf("%d packs are cached", n)
	}
}

// TestConcurrentReads reads more objects and packs than the caches hold while
// they are forgotten.
func TestConcurrentReads(t *testing.T) {
	s, tmp := newStore(t, nil)
	base := body(1, ObjectMin)
	var bodies [][]byte
	for i := range maxObjects + 40 {
		b := bytes.Clone(base)
		copy(b, fmt.Sprint("object ", i))
		bodies = append(bodies, b)
	}
	placed := placedBodies(t, s, tmp, bodies)
	for i := range 20 {
		b := body(uint64(1000+i), 10_000)
		bodies = append(bodies, b)
		placed = append(placed, placedBodies(t, s, tmp, [][]byte{b})...)
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	for seed := range uint64(8) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 0))
			buf := make([]byte, 2000)
			for range 3000 {
				i := rnd.IntN(len(placed))
				p := placed[i]
				if _, err := s.BodyAt(p.Sum, p.Size, p.Place, buf, 0); err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(buf, bodies[i][:len(buf)]) {
					t.Errorf("body %d is wrong", i)
					return
				}
			}
		})
	}
	var forget sync.WaitGroup
	forget.Go(func() {
		for i := 0; !stop.Load(); i++ {
			p := placed[i%len(placed)]
			s.objects.forget(p.Sum)
			s.Forget(p.Place.Pack)
			if i%1000 == 0 {
				s.ForgetObjects()
			}
		}
	})
	wg.Wait()
	stop.Store(true)
	forget.Wait()
	if n := len(s.objects.bySum); n > maxObjects {
		t.Errorf("%d objects are open", n)
	}
	s.Close()
	if n := openFiles(t, s.root); n != 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

// openFiles counts the descriptors and mappings of this process below root.
func openFiles(t *testing.T, root string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, e := range entries {
		if path, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && bytes.HasPrefix([]byte(path), []byte(root)) {
			n++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	return n + bytes.Count(maps, []byte(root))
}

// TestEviction maps more packs than the cache keeps.
func TestEviction(t *testing.T) {
	s, tmp := newStore(t, nil)
	p := placedBodies(t, s, tmp, [][]byte{body(1, 100)})[0]
	pinned := p.Place.Pack
	s.Pin(pinned)
	defer s.Unpin(pinned)
	buf := make([]byte, 100)
	for i := range maxPacks + 50 {
		id := PackID(i + 1)
		if err := os.Link(s.packPath(pinned), s.packPath(id)); err != nil {
			t.Fatal(err)
		}
		for _, id := range []PackID{id, pinned} {
			if _, err := s.BodyAt(p.Sum, p.Size, Place{Pack: id}, buf, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(s.packs.byID); n != maxPacks || s.packs.mapped != n {
		t.Errorf("%d packs are cached, %d mapped", n, s.packs.mapped)
	}
	if s.packs.byID[pinned] == nil {
		t.Error("the pinned pack was dropped")
	}
}
