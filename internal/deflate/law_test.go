package deflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"io"
	"testing"
)

// gunzip is what others read from a blob.
func gunzip(t testing.TB, blob []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// checkLaw takes a blob apart and puts it together again.
func checkLaw(t testing.TB, blob, plain []byte) Stats {
	t.Helper()
	var correction, again bytes.Buffer
	stats, err := Analyze(bytes.NewReader(blob), &correction)
	if err != nil {
		t.Fatalf("Analyze: %v", err)
	}
	if stats.PlainSize != int64(len(plain)) || stats.BlobSize != int64(len(blob)) || stats.CorrectionSize != int64(correction.Len()) {
		t.Errorf("stats %+v, want plain %d, blob %d, correction %d", stats, len(plain), len(blob), correction.Len())
	}
	if err := Reconstruct(bytes.NewReader(plain), bytes.NewReader(correction.Bytes()), &again); err != nil {
		t.Fatalf("Reconstruct: %v (%+v)", err, stats)
	}
	if !bytes.Equal(again.Bytes(), blob) {
		t.Fatalf("the stream is not the same again (%+v)", stats)
	}
	return stats
}

// text returns n bytes that compress like a layer: words, runs and some noise.
func text(n int, seed uint64) []byte {
	out := make([]byte, 0, n+64)
	x := seed*2862933555777941757 + 3037000493
	next := func(k uint64) uint64 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		return x % k
	}
	for len(out) < n {
		switch next(20) {
		case 0:
			for range next(300) {
				out = append(out, byte(next(256)))
			}
		case 1:
			out = append(out, make([]byte, next(2000))...)
		case 2, 3, 4, 5:
			if len(out) > 100 {
				d := int(next(uint64(min(len(out), 40000)-1))) + 1
				l := int(next(200))
				for range l {
					out = append(out, out[len(out)-d])
				}
			}
		default:
			w := next(400)
			for i := range 3 + w%7 {
				out = append(out, 'a'+byte((w*(uint64(i)+3)+w/7)%26))
			}
			out = append(out, ' ')
		}
	}
	return out[:n]
}

func goGzip(t testing.TB, plain []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLawGo(t *testing.T) {
	plain := text(200_000, 1)
	for level := flate.HuffmanOnly; level <= 9; level++ {
		blob := goGzip(t, plain, level)
		s := checkLaw(t, blob, plain)
		t.Logf("level %d: blob %d, correction %d, %s, %d of %d mispredicted", level, len(blob), s.CorrectionSize, s.Predictor, s.Mispredicted, s.Tokens)
	}
}
