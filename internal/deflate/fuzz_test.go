package deflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"testing"
)

// limited fails when more is written than a correction may reasonably cause.
type limited struct{ left int }

var errTooMuch = errors.New("too much output")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errTooMuch
	}
	return len(p), nil
}

// FuzzReconstruct is the law: what Analyze accepts comes back the same, and it
// accepts what the standard library's reader accepts. The input is taken as it is and,
// because mutations seldom get a checksum right, as the inside of a member.
func FuzzReconstruct(f *testing.F) {
	plain := text(3000, 7)
	for level := gzip.HuffmanOnly; level <= 9; level++ {
		blob := goGzip(f, plain, level)
		f.Add(blob)
		f.Add(blob[10 : len(blob)-8])
	}
	for _, s := range oddStreams(f) {
		f.Add(s.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzLaw(t, data)
		in := bytes.NewReader(data)
		plain, err := io.ReadAll(flate.NewReader(in))
		if err == nil {
			fuzzLaw(t, member(plainHeader, data[:len(data)-in.Len()], plain))
		}
	})
}

func fuzzLaw(t *testing.T, blob []byte) {
	var correction, again bytes.Buffer
	stats, err := Analyze(bytes.NewReader(blob), &correction)
	want, goErr := readAll(blob)
	if err != nil {
		if !errors.Is(err, ErrNotGzip) {
			t.Fatalf("error of a wrong kind: %v", err)
		}
		if goErr == nil {
			t.Fatalf("refused what compress/gzip reads: %v", err)
		}
		return
	}
	if goErr == nil && stats.PlainSize != int64(len(want)) {
		t.Fatalf("plaintext of %d bytes, want %d", stats.PlainSize, len(want))
	}
	if err := Reconstruct(bytes.NewReader(want), bytes.NewReader(correction.Bytes()), &again); err != nil {
		t.Fatalf("%v (%+v)", err, stats)
	}
	if !bytes.Equal(again.Bytes(), blob) {
		t.Fatal("not the same again")
	}
}

// readAll reads as much as compress/gzip gives.
func readAll(blob []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// FuzzCorrection gives Reconstruct corrections that nobody made.
func FuzzCorrection(f *testing.F) {
	plain := text(5000, 3)
	for _, level := range []int{gzip.HuffmanOnly, 0, 1, 6} {
		var c bytes.Buffer
		if _, err := Analyze(bytes.NewReader(goGzip(f, plain, level)), &c); err != nil {
			f.Fatal(err)
		}
		f.Add(c.Bytes(), len(plain))
	}
	for i := range specs {
		f.Add([]byte{'d', 'f', 'c', version, byte(i), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 4000)
	}
	f.Fuzz(func(t *testing.T, correction []byte, n int) {
		w := &limited{left: 1 << 20}
		err := Reconstruct(bytes.NewReader(plain[:min(max(n, 0), len(plain))]), bytes.NewReader(correction), w)
		if err != nil && !errors.Is(err, ErrCorrection) && !errors.Is(err, ErrVersion) && !errors.Is(err, errTooMuch) {
			t.Fatalf("error of a wrong kind: %v", err)
		}
	})
}
