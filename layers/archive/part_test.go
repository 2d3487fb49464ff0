package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// text compresses, though not to nothing.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 500)
	for i := range words {
		words[i] = []byte{' ', byte('a' + r.IntN(26)), byte('a' + r.IntN(26)), byte('a' + r.IntN(26))}
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.Write(words[r.IntN(len(words))])
	}
	return b.Bytes()[:n]
}

// What is compressed on any number of cores is the same, and decodes to what it was.
func TestWriteZstd(t *testing.T) {
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	all := text(2*zstdPiece + zstdPiece/2)
	sizes := map[int]int{} // of all, by level
	for _, level := range []int{0, 9} {
		for _, n := range []int{0, 1, zstdPiece - 1, zstdPiece, zstdPiece + 1, len(all)} {
			var first []byte
			for _, procs := range []int{1, 4} {
				was := runtime.GOMAXPROCS(procs)
				var out bytes.Buffer
				err := writeZstd(&out, bytes.NewReader(all[:n]), level)
				runtime.GOMAXPROCS(was)
				if err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = out.Bytes()
				}
				if !bytes.Equal(first, out.Bytes()) {
					t.Errorf("%d bytes: %d cores give something else", n, procs)
				}
			}
			got, err := dec.DecodeAll(first, nil)
			if err != nil || !bytes.Equal(got, all[:n]) {
				t.Errorf("%d bytes come out as %d, %v", n, len(got), err)
			}
			sizes[level] = len(first)
		}
	}
	if sizes[9] >= sizes[0] {
		t.Errorf("level 9 gives %d bytes, the default %d", sizes[9], sizes[0])
	}
	for _, want := range []error{io.ErrUnexpectedEOF, ErrVerification} {
		if err := writeZstd(io.Discard, io.MultiReader(bytes.NewReader(all[:10]), iotest.ErrReader(want)), 0); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := writeZstd(w, bytes.NewReader(all), 0); err == nil {
		t.Error("written to nobody")
	}
	w.Close()
}

func TestCheckLevel(t *testing.T) {
	for c, highest := range map[Compression]int{KeepCompression: 0, CompressNone: 0, CompressGzip: 9, CompressZstd: 19} {
		for level := -1; level < 25; level++ {
			if err := c.CheckLevel(level); (err == nil) != (level >= 0 && level <= highest) {
				t.Errorf("%v, level %d: %v", c, level, err)
			}
		}
	}
}

// An archive is the same whether it is written to a file, where compressed layers get
// their headers at last, or to a pipe.
func TestWriteInPlace(t *testing.T) {
	images := manyImages(t, 3)
	for _, c := range []Compression{CompressGzip, CompressZstd} {
		o := &WriteOptions{Compression: c, TempDir: t.TempDir()}
		var piped bytes.Buffer
		if err := Write(t.Context(), &piped, FormatOCIArchive, images, o); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "file")
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(Write(t.Context(), f, FormatOCIArchive, images, o), f.Close())
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := os.ReadFile(path); err != nil || !bytes.Equal(raw, piped.Bytes()) {
			t.Errorf("%v: the file has %d other bytes than the %d of the pipe, %v", c, len(raw), piped.Len(), err)
		}
		for _, img := range mustOpen(t, path).Images() {
			saveImage(t, img) // checks every digest
		}
	}
}

// What is dropped is as if it had not been written.
func TestDropPart(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "tar"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := newTarSink(t.Context(), f, t.TempDir())
	dir := newDirSink(t.Context(), t.TempDir())
	defer dir.close()
	for _, s := range []sink{s, dir} {
		if err := putDocument(s, "before", []byte("1")); err != nil {
			t.Fatal(err)
		}
		for _, keep := range []bool{false, true} {
			p, err := s.begin()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Write([]byte("content")); err != nil {
				t.Fatal(err)
			}
			end := p.drop
			if keep {
				end = func() error { return p.keep("kept", 7) }
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
		}
		if err := putDocument(s, "after", []byte("2")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.end(), dir.flush()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir.root); err != nil || len(left) != 3 {
		t.Errorf("the directory holds %v, %v", left, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(f)
	for _, want := range []string{"before 1", "kept content", "after 2"} {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); err != nil || h.Name+" "+string(data) != want {
			t.Errorf("got %s %q, %v, want %s", h.Name, data, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("more than that: %v", err)
	}
}

// The header of a file that is too large for octal digits is one block too.
func TestFileHeader(t *testing.T) {
	for _, size := range []int64{0, maxOctal, maxOctal + 1, 1 << 45} {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(fileHeader("blobs/sha256/x", size)); err != nil || b.Len() != blockSize {
			t.Errorf("%d: %d bytes, %v", size, b.Len(), err)
		}
		if h, err := tar.NewReader(&b).Next(); err != nil || h.Size != size {
			t.Errorf("%d: %+v, %v", size, h, err)
		}
	}
}
