package spool_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/layerfs/layerfs/internal/spool"
	"github.com/layerfs/layerfs/internal/testenv"
	"pgregory.net/rapid"
)

// record has a size that divides neither a page nor the heap's limit.
type record struct {
	A uint64
	B [3]uint16
	C [5]byte
}

func sum(i int) spool.Key {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
}

// mustBeEmpty checks that a spool has left no name in dir.
func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

func TestArray(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 200_000} {
		dir := t.TempDir()
		a := spool.NewArray[record](dir)
		for i := range n {
			got, err := a.Append(record{A: uint64(i)})
			if err != nil || got != i {
				t.Fatalf("append %d: index %d, %v", i, got, err)
			}
		}
		a0 := a.Slice()
		rand.Shuffle(len(a0), func(i, j int) { a0[i], a0[j] = a0[j], a0[i] })
		slices.SortFunc(a.Slice(), func(a, b record) int { return cmp.Compare(a.A, b.A) })
		for i := range n {
			if a.At(i).A != uint64(i) {
				t.Fatalf("record %d of %d is %v", i, n, a.At(i))
			}
		}
		if a.Len() != n || len(a.Slice()) != n {
			t.Errorf("length %d, %d, want %d", a.Len(), len(a.Slice()), n)
		}
		mustBeEmpty(t, dir)
		if err := errors.Join(a.Close(), a.Close()); err != nil {
			t.Error(err)
		}
		if a.Len() != 0 {
			t.Errorf("length after Close: %d", a.Len())
		}
	}
}

// TestSmallMakesNoFile uses a directory that does not exist.
func TestSmallMakesNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	a, b, m := spool.NewArray[record](dir), spool.NewBytes(dir), spool.NewMap[uint32](dir)
	for i := range 2000 {
		_, err1 := a.Append(record{})
		_, err2 := b.Append([]byte("some name"))
		if err := errors.Join(err1, err2, m.Put(sum(i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	var failed error
	for i := 2000; i < 100_000 && failed == nil; i++ {
		failed = m.Put(sum(i), 1)
	}
	if !errors.Is(failed, os.ErrNotExist) {
		t.Errorf("a large map in no directory: %v", failed)
	}
	if n := m.Len(); n < 2000 {
		t.Errorf("after the error the map has %d keys", n)
	}
	for i := range m.Len() {
		if _, ok := m.Get(sum(i)); !ok {
			t.Fatalf("after the error key %d is lost", i)
		}
	}
	if err := errors.Join(a.Close(), b.Close(), m.Close()); err != nil {
		t.Error(err)
	}
}

func TestBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "spool")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		b := spool.NewBytes(dir)
		defer b.Close()
		var want []byte
		var offs []int
		for range rapid.IntRange(0, 20).Draw(t, "appends") {
			p := bytes.Repeat([]byte{byte(len(offs) + 1)}, rapid.IntRange(0, 200_000).Draw(t, "n"))
			off, err := b.Append(p)
			if err != nil || off != len(want) {
				t.Fatalf("append at %d, want %d: %v", off, len(want), err)
			}
			offs = append(offs, off)
			want = append(want, p...)
		}
		if b.Len() != len(want) || !bytes.Equal(b.Get(0, b.Len()), want) {
			t.Fatal("content differs")
		}
		for _, off := range offs {
			n := min(10, len(want)-off)
			if got := b.Get(off, n); !bytes.Equal(got, want[off:off+n]) || cap(got) != n {
				t.Fatalf("bytes at %d: %v, cap %d", off, got, cap(got))
			}
		}
	})
}

func TestMap(t *testing.T) {
	dir := t.TempDir()
	m := spool.NewMap[record](dir)
	defer m.Close()
	want := map[spool.Key]uint64{}
	if _, ok := m.Get(sum(1)); ok {
		t.Error("an empty map has a key")
	}
	put := func(k spool.Key, v uint64) {
		t.Helper()
		if err := m.Put(k, record{A: v}); err != nil {
			t.Fatal(err)
		}
		want[k] = v
	}
	for i := range 60_000 {
		put(sum(i), uint64(i))
		if i%3 == 0 {
			put(sum(i/2), uint64(i)*7) // replace
		}
	}
	put(spool.Key{}, 4711)
	// Keys that differ in nothing that the hash sees still work.
	for i := range 300 {
		k := sum(0)
		k[31], k[30] = byte(i), byte(i>>8)
		put(k, uint64(i))
	}
	if m.Len() != len(want) {
		t.Errorf("%d keys, want %d", m.Len(), len(want))
	}
	for k, v := range want {
		if got, ok := m.Get(k); !ok || got.A != v {
			t.Fatalf("%x: %v, %v, want %d", k, got, ok, v)
		}
	}
	if _, ok := m.Get(sum(-1)); ok {
		t.Error("a key that was never put")
	}
	seen := 0
	m.Each(func(k spool.Key, v *record) bool {
		if want[k] != v.A {
			t.Fatalf("each: %x is %d, want %d", k, v.A, want[k])
		}
		v.A++
		seen++
		return true
	})
	if v, _ := m.Get(sum(0)); seen != len(want) || v.A != want[sum(0)]+1 {
		t.Errorf("each saw %d of %d, and its change gave %d", seen, len(want), v.A)
	}
	stopped := 0
	m.Each(func(spool.Key, *record) bool { stopped++; return stopped < 3 })
	if stopped != 3 {
		t.Errorf("each went on to %d", stopped)
	}
	mustBeEmpty(t, dir)
}

func TestPointersPanic(t *testing.T) {
	for name, fn := range map[string]func(){
		"string":  func() { spool.NewArray[string]("") },
		"pointer": func() { spool.NewMap[struct{ P *int }]("") },
		"slice":   func() { spool.NewArray[[2]struct{ S []byte }]("") },
		"nothing": func() { spool.NewArray[struct{}]("") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			fn()
		}()
	}
}

// TestFull fills a file system: the call that needs the space returns ENOSPC
// and everything put before is still there.
func TestFull(t *testing.T) {
	testenv.Require(t, "root")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, 0)
	a, b, m := spool.NewArray[record](dir), spool.NewBytes(dir), spool.NewMap[record](dir)
	var err error
	for err == nil {
		_, err = a.Append(record{A: uint64(a.Len())})
	}
	checkFull(t, err)
	for i := range a.Len() {
		if a.At(i).A != uint64(i) {
			t.Fatalf("record %d is %v", i, a.At(i))
		}
	}
	a.Close()
	for err = nil; err == nil; {
		_, err = b.Append(bytes.Repeat([]byte{7}, 5000))
	}
	checkFull(t, err)
	if got := b.Get(0, b.Len()); bytes.Count(got, []byte{7}) != b.Len() {
		t.Error("bytes differ")
	}
	b.Close()
	n := 0
	for err = nil; err == nil; n++ {
		err = m.Put(sum(n), record{A: uint64(n)})
	}
	checkFull(t, err)
	for i := range m.Len() {
		if v, ok := m.Get(sum(i)); !ok || v.A != uint64(i) {
			t.Fatalf("key %d: %v, %v", i, v, ok)
		}
	}
	m.Close()
	mustBeEmpty(t, dir)
}

func checkFull(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v does not wrap ENOSPC", err)
	}
}

func BenchmarkMapPut(b *testing.B) {
	keys := make([]spool.Key, 1<<18)
	for i := range keys {
		keys[i] = sum(i)
	}
	for b.Loop() {
		m := spool.NewMap[[3]uint64](b.TempDir())
		for i := range keys {
			if err := m.Put(keys[i], [3]uint64{}); err != nil {
				b.Fatal(err)
			}
		}
		m.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(keys)), "ns/put")
}

func BenchmarkArrayAppend(b *testing.B) {
	const n = 1 << 20
	for b.Loop() {
		a := spool.NewArray[record](b.TempDir())
		for range n {
			if _, err := a.Append(record{}); err != nil {
				b.Fatal(err)
			}
		}
		a.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/append")
}
