package tarsplit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// manyFiles is a tar of n files with sizes of all kinds: several groups.
func manyFiles(t testing.TB, n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var list []file
	for i := range n {
		size := rng.IntN(3000)
		if i%500 == 3 {
			size = 100000 + rng.IntN(200000)
		}
		body := make([]byte, size)
		for k := 0; k < len(body); k += 16 {
			body[k] = byte(rng.Uint32())
		}
		list = append(list, file{name: fmt.Sprintf("usr/share/doc/package-%d/n%s", i, strings.Repeat("n", rng.IntN(150))), body: string(body)})
	}
	return tarOf(t, list...)
}

// TestReadAt compares reads at random offsets, from many goroutines, for bodies
// in memory and in files.
func TestReadAt(t *testing.T) {
	x := manyFiles(t, 3000)
	for _, plain := range []bool{false, true} {
		m := newMemory()
		m.plain = plain
		r := stored(t, x, m)
		if len(r.groups) < 4 {
			t.Fatalf("only %d groups", len(r.groups)-1)
		}
		var wg sync.WaitGroup
		for seed := range uint64(4) {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 7))
				buf := make([]byte, 200000)
				for range 500 {
					off := rng.Int64N(int64(len(x)) + 1000)
					p := buf[:rng.IntN(1<<rng.IntN(18))]
					checkRead(t, r, x, p, off)
				}
			})
		}
		wg.Wait()
		if err := iotest.TestReader(io.NewSectionReader(r, 0, r.Size()), x); err != nil {
			t.Error(err)
		}
		var out bytes.Buffer
		if n, err := r.WriteTo(&out); err != nil || n != int64(len(x)) || !bytes.Equal(out.Bytes(), x) {
			t.Errorf("WriteTo: %d bytes, %v", n, err)
		}
	}
}

func checkRead(t *testing.T, r *Reader, x, p []byte, off int64) {
	n, err := r.ReadAt(p, off)
	want := x[min(off, int64(len(x))):min(off+int64(len(p)), int64(len(x)))]
	if n != len(want) || !bytes.Equal(p[:n], want) {
		t.Errorf("ReadAt(%d bytes, %d): got %d bytes, want %d", len(p), off, n, len(want))
	}
	if (n < len(p) && err != io.EOF) || (n == len(p) && err != nil && err != io.EOF) {
		t.Errorf("ReadAt(%d bytes, %d): got %d, %v", len(p), off, n, err)
	}
}

func TestReadAtLimits(t *testing.T) {
	r := stored(t, []byte("no tar"), newMemory())
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Errorf("negative offset: got %v", err)
	}
	for _, off := range []int64{6, 7, 1 << 62} {
		if n, err := r.ReadAt(make([]byte, 1), off); n != 0 || err != io.EOF {
			t.Errorf("offset %d: got %d, %v", off, n, err)
		}
	}
}

// TestManyRecords: groups end by the number of records, too.
func TestManyRecords(t *testing.T) {
	var form, want bytes.Buffer
	m := newMemory()
	w := NewWriter(&form)
	for i := range 3*groupRecords + 10 {
		body := []byte{byte(i), byte(i >> 8)}
		sum, _ := m.Put(bytes.NewReader(body), 2)
		want.Write(body)
		if err := w.Body(sum, 2); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), m)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.groups) - 1; n != 4 {
		t.Errorf("got %d groups, want 4", n)
	}
	var got bytes.Buffer
	if err := Join(&got, r); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("joined %d bytes, %v", got.Len(), err)
	}
	count := 0
	if err := r.EachBody(func(Sum, int64) error { count++; return nil }); err != nil || count != 3*groupRecords+10 {
		t.Errorf("EachBody: %d, %v", count, err)
	}
}

// TestHugeRecords: sizes beyond any disk are only numbers.
func TestHugeRecords(t *testing.T) {
	var form bytes.Buffer
	w := NewWriter(&form)
	for _, err := range []error{w.Raw([]byte("a")), w.Zeros(1 << 60), w.Body(Sum{1}, 1<<59), w.Raw([]byte("z")), w.Close(), w.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), zeroBodies{})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 3)
	if _, err := r.ReadAt(p, r.Size()-3); err != nil || string(p) != "\x00\x00z" {
		t.Errorf("got %q, %v", p, err)
	}
	w = NewWriter(io.Discard)
	if err := w.Zeros(maxLength); err != nil {
		t.Error(err)
	}
	if err := w.Zeros(1); !errors.Is(err, errTooLong) {
		t.Errorf("got %v, want %v", err, errTooLong)
	}
	w = NewWriter(io.Discard)
	if err := w.Body(Sum{}, -1); err == nil {
		t.Error("a body of negative size")
	}
	w = NewWriter(io.Discard)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Raw([]byte("x")); !errors.Is(err, errClosed) {
		t.Errorf("got %v, want %v", err, errClosed)
	}
}

// badBodies gives bodies that are not what they should be.
type badBodies func() (io.ReaderAt, error)

func (b badBodies) Body(Sum, int64) (io.ReaderAt, error) { return b() }

type closer struct {
	io.ReaderAt
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

func TestBadBodies(t *testing.T) {
	var form bytes.Buffer
	w := NewWriter(&form)
	if err := w.Body(Sum{0xab}, 100000); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	closed := 0
	short := make([]byte, 99999)
	for _, test := range []struct {
		name   string
		bodies Bodies
		want   error
	}{
		{"none", nil, nil},
		{"missing", badBodies(func() (io.ReaderAt, error) { return nil, broken }), broken},
		{"short", badBodies(func() (io.ReaderAt, error) { return closer{bytes.NewReader(short), &closed}, nil }), ErrDamaged},
		{"short in memory", badBodies(func() (io.ReaderAt, error) { return memoryBody{nil, short}, nil }), ErrDamaged},
		{"broken", badBodies(func() (io.ReaderAt, error) { return brokenAt{broken}, nil }), broken},
	} {
		r, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), test.bodies)
		if err != nil {
			t.Fatal(err)
		}
		_, err1 := r.ReadAt(make([]byte, 10), 99990)
		_, err2 := r.WriteTo(io.Discard)
		for _, err := range []error{err1, err2} {
			if err == nil || (test.want != nil && !errors.Is(err, test.want)) || !strings.Contains(err.Error(), "sha256:ab00") {
				t.Errorf("%s: got %v, want %v", test.name, err, test.want)
			}
		}
	}
	if closed != 2 {
		t.Errorf("closed %d bodies, want 2", closed)
	}
}

type brokenAt struct{ err error }

func (b brokenAt) ReadAt([]byte, int64) (int, error) { return 0, b.err }

// TestDamage flips every byte of a stored form, cuts it everywhere, and expects
// an error from Open or Verify, which for a body's name is Verify's.
func TestDamage(t *testing.T) {
	var form bytes.Buffer
	if err := Split(bytes.NewReader(smallTar(t)), NewWriter(&form), newMemory().Put); err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte) {
		r, err := Open(bytes.NewReader(data), int64(len(data)), nil)
		if err == nil {
			err = r.Verify()
		}
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: got %v, want ErrDamaged", what, err)
		}
	}
	for i := range form.Len() {
		bad := bytes.Clone(form.Bytes())
		bad[i] ^= 0x11
		check(fmt.Sprintf("byte %d", i), bad)
		check(fmt.Sprintf("cut at %d", i), bad[:i])
	}
	check("longer", append(form.Bytes(), 0))
}

// TestDamagedGroups: groups whose checksums are right and whose records are not.
func TestDamagedGroups(t *testing.T) {
	group := func(sums byte, size uint64, records, raw string) []byte {
		data := binary.LittleEndian.AppendUint64([]byte{sums}, size)
		return wrapGroup(append(append(append(data, byte(len(records))), records...), raw...))
	}
	const raw1, raw3, body1, zeros2 = "\x04", "\x0c", "\x05", "\x0a"
	for name, test := range map[string]struct {
		form []byte
		ok   bool
	}{
		"right":             {group(1, 6, raw3+body1+zeros2, "raw"), true},
		"raw left over":     {group(1, 6, raw3+body1+zeros2, "rawx"), false},
		"raw missing":       {group(1, 6, raw3+body1+zeros2, "ra"), false},
		"sum left over":     {group(2, 6, raw3+body1+zeros2, "raw"), false},
		"sum missing":       {group(0, 6, raw3+body1+zeros2, "raw"), false},
		"longer than said":  {group(1, 5, raw3+body1+zeros2, "raw"), false},
		"shorter than said": {group(1, 7, raw3+body1+zeros2, "raw"), false},
		"unknown kind":      {group(0, 1, "\x07", ""), false},
		"empty record":      {group(0, 1, raw1+"\x02", "r"), false},
		"cut record":        {group(0, 1, "\x84", "r"), false},
		"huge record":       {group(0, 1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ""), false},
		"no records":        {group(0, 0, "", ""), false},
	} {
		r, err := Open(bytes.NewReader(test.form), int64(len(test.form)), nil)
		if err == nil {
			err = r.Verify()
		}
		if (err == nil) != test.ok || (err != nil && !errors.Is(err, ErrDamaged)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFutureVersion(t *testing.T) {
	var form bytes.Buffer
	if err := NewWriter(&form).Close(); err != nil {
		t.Fatal(err)
	}
	form.Bytes()[headerSize-4]++
	if _, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), nil); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v, want %v", err, ErrVersion)
	}
}

// flakyFile fails once.
type flakyFile struct {
	io.ReaderAt
	fail *bool
}

var errFlaky = errors.New("flaky")

func (f flakyFile) ReadAt(p []byte, off int64) (int, error) {
	if *f.fail {
		*f.fail = false
		return 0, errFlaky
	}
	return f.ReaderAt.ReadAt(p, off)
}

// TestErrorIsNotCached: a group that could not be read once is read again.
func TestErrorIsNotCached(t *testing.T) {
	var form bytes.Buffer
	if err := Split(strings.NewReader("some text"), NewWriter(&form), newMemory().Put); err != nil {
		t.Fatal(err)
	}
	fail := false
	r, err := Open(flakyFile{bytes.NewReader(form.Bytes()), &fail}, int64(form.Len()), nil)
	if err != nil {
		t.Fatal(err)
	}
	fail = true
	p := make([]byte, 4)
	if _, err := r.ReadAt(p, 5); !errors.Is(err, errFlaky) {
		t.Errorf("got %v, want %v", err, errFlaky)
	}
	if _, err := r.ReadAt(p, 5); err != nil || string(p) != "text" {
		t.Errorf("got %q, %v", p, err)
	}
}

// members is an endless tar of small files.
type members struct {
	buf, rest []byte // a member, and what of it was not read
	n         int
}

func (m *members) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		m.n++
		strconv.AppendInt(m.buf[5:5], int64(1e9+m.n), 10)
		setChecksum(m.buf[:blockSize])
		m.rest = m.buf
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// TestMemory: neither the number of members nor what follows them needs memory,
// and a member costs no allocation but its name.
func TestMemory(t *testing.T) {
	const count = 300000
	src := &members{buf: withBody(rawHeader{typ: '0', name: "file-", magic: ustar}, "hello")}
	s := NewSplitter(io.LimitReader(src, count*1024+100<<20), NewWriter(io.Discard))
	put := func(r io.Reader, size int64) (Sum, error) {
		var b [5]byte
		_, err := io.ReadFull(r, b[:])
		return Sum{b[0]}, err
	}
	before := heapBytes()
	allocs := testing.AllocsPerRun(count, func() {
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
		if err := s.Body(put); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 2 { // the name, and the array of put
		t.Errorf("got %v allocations for a member, want 2", allocs)
	}
	if err := s.Drain(func(r io.Reader, _ int64) (Sum, error) { _, err := io.Copy(io.Discard, r); return Sum{}, err }); err != nil {
		t.Fatal(err)
	}
	if used := heapBytes() - before; used > 8<<20 {
		t.Errorf("%d bytes of heap for %d members", used, count)
	}
	runtime.KeepAlive(s)
}
