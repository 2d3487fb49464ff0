package tarsplit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestLaw(t *testing.T) {
	eachShared(t, func(t *testing.T, x []byte) { checkLaw(t, x) })
}

// TestLawOfEnds cuts a tar at every interesting place and appends things to it.
func TestLawOfEnds(t *testing.T) {
	x := smallTar(t)
	for _, n := range []int{0, 1, 511, 512, 513, 1023, 1024, 1025} {
		checkLaw(t, x[:min(n, len(x))])
		checkLaw(t, x[:len(x)-min(n, len(x))])
		checkLaw(t, bytes.Repeat([]byte{0}, n))
		checkLaw(t, bytes.Repeat([]byte{7}, n))
		checkLaw(t, append(bytes.Clone(x), bytes.Repeat([]byte{1}, n)...))
	}
	for n := 0; n < len(x); n += 97 {
		checkLaw(t, x[:n])
	}
}

// TestLongTails checks what large things behind the end cost.
func TestLongTails(t *testing.T) {
	const size = 5<<20 + 333
	noise := make([]byte, size)
	for i := range noise {
		noise[i] = byte(i*7 ^ i>>8 ^ i>>13)
	}
	tails := map[string]struct {
		tail     []byte
		bodies   int
		formSize int64
	}{
		"zeros":           {make([]byte, size), 0, 1500},
		"noise":           {noise, 6, 10000},
		"noise in zeros":  {append(append(make([]byte, size), noise[:100]...), make([]byte, size)...), 0, 10000},
		"zeros and noise": {append(make([]byte, size), noise...), 7, 12000},
	}
	for name, test := range tails {
		t.Run(name, func(t *testing.T) {
			for _, front := range [][]byte{smallTar(t), nil} {
				x := append(bytes.Clone(front), test.tail...)
				checkLaw(t, x)
				m := newMemory()
				var form bytes.Buffer
				if err := Split(bytes.NewReader(x), NewWriter(&form), m.Put); err != nil {
					t.Fatal(err)
				}
				if n := len(m.bodies); n > test.bodies+6 {
					t.Errorf("got %d bodies, want at most %d", n, test.bodies+6)
				}
				if int64(form.Len()) > test.formSize {
					t.Errorf("stored form: got %d bytes, want at most %d", form.Len(), test.formSize)
				}
			}
		})
	}
}

// TestSameFormForAnyReads checks that the stored form does not depend on the
// sizes of reads, so equal layers have equal stored forms.
func TestSameFormForAnyReads(t *testing.T) {
	x := append(smallTar(t), strings.Repeat("tail", 5000)...)
	form := func(r io.Reader) string {
		var b bytes.Buffer
		if err := Split(r, NewWriter(&b), newMemory().Put); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	want := form(bytes.NewReader(x))
	for name, r := range map[string]io.Reader{
		"one byte": iotest.OneByteReader(bytes.NewReader(x)),
		"half":     iotest.HalfReader(bytes.NewReader(x)),
		"data+err": iotest.DataErrReader(bytes.NewReader(x)),
	} {
		if form(r) != want {
			t.Errorf("%s: another stored form", name)
		}
	}
}

// TestTruncatedBody: the law holds for a stream that ends inside a large body if
// the short body can be put, and Close fails if not.
func TestTruncatedBody(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 20000)
	x := tarOf(t, file{name: "big", body: body})
	x = x[:200000]
	checkLaw(t, x)

	strict := func(r io.Reader, size int64) (Sum, error) {
		_, err := io.ReadFull(r, make([]byte, size))
		return Sum{}, err
	}
	w := NewWriter(io.Discard)
	s := NewSplitter(bytes.NewReader(x), w)
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	err := s.Body(strict)
	var format *FormatError
	if !errors.As(err, &format) || !errors.Is(err, io.ErrUnexpectedEOF) || format.Offset != 512 {
		t.Errorf("got error %v, want a FormatError at 512 of an unexpected end", err)
	}
	if _, err2 := s.Next(); err2 != err {
		t.Errorf("next: got %v, want %v", err2, err)
	}
	if err := s.Drain(strict); err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := w.Close(); err == nil {
		t.Error("the bytes of the body are lost, but Close returns nil")
	}
}

func TestUndrained(t *testing.T) {
	x := append(smallTar(t), bytes.Repeat([]byte("garbage "), 100000)...)
	w := NewWriter(io.Discard)
	s := NewSplitter(bytes.NewReader(x), w)
	for {
		if _, err := s.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if s.Offset() >= int64(len(x)) {
		t.Errorf("offset: got %d, want less than %d", s.Offset(), len(x))
	}
	if err := w.Close(); !errors.Is(err, errNotDrained) {
		t.Errorf("close: got %v, want %v", err, errNotDrained)
	}
}

// TestFailures: errors of the stream, of put and of the writer come back.
func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	x := tarOf(t, file{name: "big", body: strings.Repeat("x", 300000)}, file{name: "small", body: "x"})
	for _, at := range []int64{0, 100, 512, 1000, 100000, 290000, 300400, 300600, 301000, int64(len(x))} {
		r := io.MultiReader(bytes.NewReader(x[:at]), iotest.ErrReader(broken))
		if err := Split(r, NewWriter(io.Discard), newMemory().Put); !errors.Is(err, broken) {
			t.Errorf("stream that fails at %d: got %v", at, err)
		}
	}
	for name, put := range map[string]PutFunc{
		"at once":  func(io.Reader, int64) (Sum, error) { return Sum{}, broken },
		"half way": func(r io.Reader, _ int64) (Sum, error) { _, _ = r.Read(make([]byte, 10)); return Sum{}, broken },
	} {
		w := NewWriter(io.Discard)
		if err := Split(bytes.NewReader(x), w, put); !errors.Is(err, broken) {
			t.Errorf("put that fails %s: got %v", name, err)
		}
		if err := w.Close(); err == nil {
			t.Errorf("put that fails %s: Close returns nil", name)
		}
	}
	lazy := func(r io.Reader, _ int64) (Sum, error) { _, err := r.Read(make([]byte, 1)); return Sum{}, err }
	if err := Split(bytes.NewReader(x), NewWriter(io.Discard), lazy); err == nil || !strings.Contains(err.Error(), "not read") {
		t.Errorf("put that reads one byte: got %v", err)
	}
	w := NewWriter(failingWriter{broken})
	if err := Split(bytes.NewReader(x), w, newMemory().Put); !errors.Is(err, broken) {
		t.Errorf("writer that fails: got %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestBodyReader: all ways to read a body give the same.
func TestBodyReader(t *testing.T) {
	for _, size := range []int{1, 512, 1000, wholeBody, wholeBody + 1, sourceBuffer, 1 << 20} {
		body := strings.Repeat("0123456789", size/10+1)[:size]
		x := tarOf(t, file{name: "a", body: body}, file{name: "b", body: "end"})
		for name, read := range map[string]func(r io.Reader) ([]byte, error){
			"ReadAll": io.ReadAll,
			"WriteTo": func(r io.Reader) ([]byte, error) {
				var b bytes.Buffer
				_, err := r.(io.WriterTo).WriteTo(&b)
				return b.Bytes(), err
			},
			"ReadFull": func(r io.Reader) ([]byte, error) {
				p := make([]byte, size)
				_, err := io.ReadFull(r, p)
				return p, err
			},
			"OneByte": func(r io.Reader) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(r)) },
		} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				s := NewSplitter(bytes.NewReader(x), NewWriter(io.Discard))
				if _, err := s.Next(); err != nil {
					t.Fatal(err)
				}
				var kept io.Reader
				err := s.Body(func(r io.Reader, n int64) (Sum, error) {
					kept = r
					got, err := read(r)
					if string(got) != body {
						t.Errorf("got %d bytes, want %d", len(got), size)
					}
					return Sum{}, err
				})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := kept.Read(make([]byte, 1)); err == nil {
					t.Error("a body can be read after its time")
				}
				if h, err := s.Next(); err != nil || h.Name != "b" || h.Size != 3 {
					t.Errorf("next member: got %v, %v", h, err)
				}
			})
		}
	}
}
