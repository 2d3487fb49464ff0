package blob

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

func TestWalk(t *testing.T) {
	s, tmp := newStore(t, nil)
	bodies := mixed(100)
	placed := placedBodies(t, s, tmp, bodies)
	for _, stray := range []string{s.packsDir() + "/x", s.packsDir() + "/0000000000000000", s.objectsDir() + "/README"} {
		if err := os.WriteFile(stray, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := map[Sum]int64{}
	for _, p := range placed {
		if p.Place.Pack == 0 {
			want[p.Sum] = p.Size
		}
	}
	err := s.WalkObjects(func(sum Sum, size int64) error {
		if want[sum] != size {
			t.Errorf("object %x has %d bytes, want %d", sum, size, want[sum])
		}
		delete(want, sum)
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%d objects not seen, %v", len(want), err)
	}
	if _, packs := mustBeWhole(t, s); packs != 1 {
		t.Errorf("%d packs", packs)
	}
	stop := errors.New("stop")
	err1 := s.WalkObjects(func(Sum, int64) error { return stop })
	err2 := s.WalkPacks(func(PackID, int64) error { return stop })
	if err1 != stop || err2 != stop {
		t.Errorf("stopped walks: %v, %v", err1, err2)
	}
}

func TestRemove(t *testing.T) {
	s, tmp := newStore(t, nil)
	placed := placedBodies(t, s, tmp, [][]byte{body(1, 10), body(2, ObjectMin)})
	for _, p := range placed {
		if err := s.VerifyBody(p.Sum, p.Size, p.Place); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.RemovePack(placed[0].Place.Pack); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.MoveObject(placed[1].Sum, filepath.Join(t.TempDir(), "object")); err != nil {
		t.Fatal(err)
	}
	for _, p := range placed {
		if err := s.VerifyBody(p.Sum, p.Size, p.Place); !errors.Is(err, ErrNotFound) {
			t.Errorf("removed body: %v", err)
		}
	}
	if left := files(t, s.root); len(left) > 0 || openFiles(t, s.root) > 0 {
		t.Errorf("left: %q, %d open", left, openFiles(t, s.root))
	}
	if _, err := s.PunchPack(placed[0].Place.Pack, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("punch of a removed pack: %v", err)
	}
}

// TestPunch frees random ranges: what is not in them stays, and every block
// that lies in them is freed.
func TestPunch(t *testing.T) {
	const block = 4096
	rapid.Check(t, func(rt *rapid.T) {
		s, tmp := newStore(t, nil)
		bodies := [][]byte{body(1, 100_000), body(2, 100_000), body(3, 50_001)}
		pl := placedBodies(t, s, tmp, bodies)[0].Place
		want := bytes.Join(bodies, nil)
		dead := make([]bool, len(want))
		var ranges []Range
		for range rapid.IntRange(0, 5).Draw(rt, "ranges") {
			off := rapid.IntRange(0, len(want)).Draw(rt, "off")
			n := rapid.IntRange(0, len(want)-off).Draw(rt, "n")
			ranges = append(ranges, Range{int64(off), int64(n)})
			for i := off; i < off+n; i++ {
				dead[i] = true
			}
		}
		freed, err := s.PunchPack(pl.Pack, ranges)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := s.PackBytes(pl, 0, int64(len(want)))
		if err != nil {
			rt.Fatal(err)
		}
		var blocks int64
		for start := 0; start < len(want); start += block {
			end := min(start+block, len(want))
			whole := true
			for i := start; i < end; i++ {
				whole = whole && dead[i]
				if !dead[i] && got[i] != want[i] {
					rt.Fatalf("living byte %d has changed", i)
				}
			}
			if whole {
				blocks++
			}
		}
		if freed != blocks*block && freed != 0 {
			rt.Errorf("freed %d bytes, want %d blocks", freed, blocks)
		}
	})
}

func TestPunchBadRange(t *testing.T) {
	s, tmp := newStore(t, nil)
	p := placedBodies(t, s, tmp, [][]byte{body(1, 100_000)})[0]
	for _, r := range []Range{{-1, 10}, {0, -1}, {math.MaxInt64, 1}} {
		if _, err := s.PunchPack(p.Place.Pack, []Range{r}); err == nil {
			t.Errorf("%+v: no error", r)
		}
	}
	if err := s.VerifyBody(p.Sum, p.Size, p.Place); err != nil {
		t.Error(err)
	}
}
