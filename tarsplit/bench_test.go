package tarsplit

import (
	"bytes"
	"io"
	"os"
	"sync"
	"testing"
)

// benchTar returns the tar that LAYERFS_BENCH_TAR names, or one of 6000 files.
// Names of bodies are counters here, so that no digest is in the numbers.
var benchTar = sync.OnceValue(func() []byte {
	if name := os.Getenv("LAYERFS_BENCH_TAR"); name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			panic(err)
		}
		return data
	}
	return manyFiles(noTest{}, 6000)
})

type noTest struct{ testing.TB }

func (noTest) Helper()           {}
func (noTest) Fatal(args ...any) { panic(args) }

// countingBodies keeps pieces of a tar as bodies, by their number.
type countingBodies struct {
	n      uint32
	bodies [][]byte
	keep   bool
	buf    []byte
}

func (c *countingBodies) put(r io.Reader, size int64) (Sum, error) {
	if int64(len(c.buf)) < min(size, 4<<20) {
		c.buf = make([]byte, min(size, 4<<20))
	}
	var kept []byte
	for left := size; left > 0; {
		p := c.buf[:min(left, int64(len(c.buf)))]
		if _, err := io.ReadFull(r, p); err != nil {
			return Sum{}, err
		}
		if c.keep {
			kept = append(kept, p...)
		}
		left -= int64(len(p))
	}
	if c.keep {
		c.bodies = append(c.bodies, kept)
	}
	c.n++
	// Scatter the number, as a digest would be.
	var sum Sum
	for i := range sum {
		sum[i] = byte((c.n * 2654435761 >> (i % 24)) ^ uint32(i)*31*c.n)
	}
	sum[0], sum[1], sum[2] = byte(c.n), byte(c.n>>8), byte(c.n>>16)
	return sum, nil
}

func (c *countingBodies) Body(sum Sum, _ int64) (io.ReaderAt, error) {
	data := c.bodies[int(sum[0])|int(sum[1])<<8|int(sum[2])<<16-1]
	return memoryBody{bytes.NewReader(data), data}, nil
}

func BenchmarkSplit(b *testing.B) {
	x := benchTar()
	b.SetBytes(int64(len(x)))
	b.ReportAllocs()
	var size, members int64
	for b.Loop() {
		var c countingBodies
		var form countWriter
		w := NewWriter(&form)
		s := NewSplitter(bytes.NewReader(x), w)
		members = 0
		for {
			if _, err := s.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
			members++
			if err := s.Body(c.put); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Drain(c.put); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		size = int64(form)
	}
	b.ReportMetric(float64(size)/float64(members), "formB/member")
	b.ReportMetric(float64(members), "members")
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) { *c += countWriter(len(p)); return len(p), nil }

func benchReader(b *testing.B) *Reader {
	b.Helper()
	c := &countingBodies{keep: true}
	var form bytes.Buffer
	if err := Split(bytes.NewReader(benchTar()), NewWriter(&form), c.put); err != nil {
		b.Fatal(err)
	}
	r, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), c)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(r.Size())
	b.ReportAllocs()
	return r
}

func BenchmarkJoin(b *testing.B) {
	r := benchReader(b)
	for b.Loop() {
		if _, err := r.WriteTo(new(countWriter)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadAt reads the whole stream in pieces of 128 KiB, as the kernel
// does for layer.tar.
func BenchmarkReadAt(b *testing.B) {
	r := benchReader(b)
	p := make([]byte, 128<<10)
	for b.Loop() {
		for off := int64(0); off < r.Size(); off += int64(len(p)) {
			if _, err := r.ReadAt(p, off); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkReadAtRandom reads 4 KiB at offsets all over the stream.
func BenchmarkReadAtRandom(b *testing.B) {
	r := benchReader(b)
	p := make([]byte, 4<<10)
	b.SetBytes(int64(len(p)))
	off := int64(0)
	for b.Loop() {
		off = (off + 0x5851f42d) % r.Size()
		if _, err := r.ReadAt(p, off); err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
}
