package blob

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
)

// stream gives out n bytes that begin with its number: a body that no other
// one equals, without the cost of making it.
type stream struct {
	bytes.Reader
	data []byte
}

func newStream() *stream { return &stream{data: body(1, 9<<20)} }

func (s *stream) body(number, size int) *stream {
	binary.LittleEndian.PutUint64(s.data, uint64(number))
	s.Reset(s.data[:size])
	return s
}

// benchIngest imports count bodies and reports the time of each part. The data
// is durable at the end.
func benchIngest(b *testing.B, count int, size func(i int) int) {
	r := newStream()
	var total int64
	for i := range count {
		total += int64(size(i))
	}
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		root, err := os.MkdirTemp(".", "bench") // not in a tmpfs
		if err != nil {
			b.Fatal(err)
		}
		s, tmp := newStoreAt(b, root, nil)
		b.StartTimer()
		in, err := s.NewIngest(tmp, newIndex().known)
		if err != nil {
			b.Fatal(err)
		}
		w := in.Writer()
		for i := range count {
			n := size(i)
			if _, err := w.Put(r.body(i, n), int64(n)); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
		err = in.Commit(func(p []Placed) ([]bool, error) {
			kept := make([]bool, len(p))
			for i := range kept {
				kept[i] = true
			}
			return kept, nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(root); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*count), "µs/body")
}

func BenchmarkIngest(b *testing.B) {
	for _, c := range []struct{ count, size int }{
		{50_000, 4 << 10}, {10_000, 32 << 10}, {500, 256 << 10}, {200, 1 << 20}, {20, 8 << 20},
	} {
		b.Run(fmt.Sprintf("%dx%dKiB", c.count, c.size>>10), func(b *testing.B) {
			benchIngest(b, c.count, func(i int) int { return c.size + i%100 - 100*(i%2) })
		})
	}
}

func BenchmarkRead(b *testing.B) {
	s, tmp := newStore(b, nil)
	placed := placedBodies(b, s, tmp, [][]byte{body(1, 100_000), body(2, 300_000)})
	for _, size := range []int{4 << 10, 64 << 10} {
		buf := make([]byte, size)
		for i, kind := range []string{"pack", "object"} {
			b.Run(fmt.Sprintf("%s-%dKiB", kind, size>>10), func(b *testing.B) {
				p := placed[i]
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					if _, err := s.BodyAt(p.Sum, p.Size, p.Place, buf, 4096); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	b.Run("PackBytes", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.PackBytes(placed[0].Place, 4096, 4096); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPutBlob(b *testing.B) {
	s, _ := newStore(b, nil)
	r := newStream()
	for i := 0; b.Loop(); i++ {
		r.body(i, 4000)
		if _, err := s.PutBlob(r.data[:4000]); err != nil {
			b.Fatal(err)
		}
	}
}
