package compress

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

// closeCounter counts closes and reads after the first.
type closeCounter struct {
	io.Reader
	closed, late int
}

func (c *closeCounter) Read(p []byte) (int, error) {
	if c.closed > 0 {
		c.late++
	}
	return c.Reader.Read(p)
}

func (c *closeCounter) Close() error { c.closed++; return nil }

func TestPipe(t *testing.T) {
	for _, n := range []int{0, 1, pipeBufferSize - 1, pipeBufferSize, pipeBufferSize + 1, 5*pipeBufferSize + 77} {
		want := sample(n)
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r },
			"half":  iotest.HalfReader,
			"eof":   iotest.DataErrReader,
		} {
			p := Pipe(io.NopCloser(wrap(bytes.NewReader(want))))
			if err := iotest.TestReader(p, want); err != nil {
				t.Errorf("%s, %d bytes: %v", name, n, err)
			}
			p.Close()

			var buf bytes.Buffer
			p = Pipe(io.NopCloser(wrap(bytes.NewReader(want))))
			head := make([]byte, n/3)
			if _, err := io.ReadFull(p, head); err != nil {
				t.Fatal(err)
			}
			rest, err := io.Copy(&buf, p)
			if err != nil || rest != int64(n-len(head)) || !bytes.Equal(append(head, buf.Bytes()...), want) {
				t.Errorf("%s, WriteTo of %d bytes: got %d, %v", name, n, rest, err)
			}
			p.Close()
		}
	}
}

func TestPipeError(t *testing.T) {
	want := errors.New("broken")
	data := sample(pipeBufferSize + 10)
	p := Pipe(io.NopCloser(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(want))))
	defer p.Close()
	got, err := io.ReadAll(p)
	if err != want || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v; want %d, %v", len(got), err, len(data), want)
	}
	if _, err := p.Read(make([]byte, 1)); err != want {
		t.Errorf("again: got %v, want %v", err, want)
	}
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("index out of range") }

func TestPipePanic(t *testing.T) {
	p := Pipe(io.NopCloser(panicReader{}))
	defer p.Close()
	if _, err := io.ReadAll(p); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

// Close waits for the goroutine: the source is not read any more.
func TestPipeClose(t *testing.T) {
	for _, read := range []int{0, 10, 3 * pipeBufferSize} {
		c := &closeCounter{Reader: iotest.HalfReader(bytes.NewReader(sample(20 * pipeBufferSize)))}
		p := Pipe(c)
		if _, err := io.ReadFull(p, make([]byte, read)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Close(), p.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Read(make([]byte, 1)); err != errPipeClosed {
			t.Errorf("read after close: got %v", err)
		}
		if c.closed != 1 || c.late != 0 {
			t.Errorf("closed %d times, read %d times after that", c.closed, c.late)
		}
	}
}

// The benchmarks read the layer named by LAYERFS_BENCH_LAYER, hash it, and report
// bytes of the uncompressed tar.
func benchLayer(b *testing.B, open func(io.Reader) (io.Reader, func(), error)) {
	path := os.Getenv("LAYERFS_BENCH_LAYER")
	if path == "" {
		b.Skip("LAYERFS_BENCH_LAYER names no gzip layer")
	}
	for b.Loop() {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		r, done, err := open(f)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{sha256.New()}, r, make([]byte, 256<<10))
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
		done()
		f.Close()
	}
}

func BenchmarkLayer(b *testing.B) {
	b.Run("klauspost", func(b *testing.B) {
		benchLayer(b, func(r io.Reader) (io.Reader, func(), error) {
			z, err := gzip.NewReader(r)
			return struct{ io.Reader }{z}, func() {}, err
		})
	})
	b.Run("detect", func(b *testing.B) {
		benchLayer(b, func(r io.Reader) (io.Reader, func(), error) {
			rc, _, err := Detect(r)
			return rc, func() { rc.Close() }, err
		})
	})
	b.Run("pipe-read", func(b *testing.B) {
		benchLayer(b, func(r io.Reader) (io.Reader, func(), error) {
			rc, _, err := Detect(r)
			if err != nil {
				return nil, nil, err
			}
			p := Pipe(rc)
			return struct{ io.Reader }{p}, func() { p.Close() }, nil
		})
	})
	b.Run("pipe-writeto", func(b *testing.B) {
		benchLayer(b, func(r io.Reader) (io.Reader, func(), error) {
			rc, _, err := Detect(r)
			if err != nil {
				return nil, nil, err
			}
			p := Pipe(rc)
			return p, func() { p.Close() }, nil
		})
	})
}
