package compress

import (
	"bytes"
	stdgzip "compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/layerfs/layerfs/internal/testenv"
)

// sample returns n bytes, half of them random.
func sample(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		if i/4096%2 == 0 {
			b[i] = byte(r.Uint32())
		} else {
			b[i] = byte(i / 100)
		}
	}
	return b
}

func gz(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, p := range parts {
		w := stdgzip.NewWriter(&buf)
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func zst(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, p := range parts {
		out = w.EncodeAll(p, out)
	}
	return out
}

// filter runs a program over in.
func filter(t testing.TB, in []byte, name string, args ...string) []byte {
	t.Helper()
	testenv.Require(t, name)
	c := exec.Command(name, args...)
	c.Stdin = bytes.NewReader(in)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func detectAll(in io.Reader) ([]byte, Kind, error) {
	rc, kind, err := Detect(in)
	if err != nil {
		return nil, kind, err
	}
	defer rc.Close()
	out, err := io.ReadAll(rc)
	return out, kind, err
}

func TestDetect(t *testing.T) {
	big := sample(1300000)
	tests := []struct {
		name string
		in   func(t *testing.T) []byte
		kind Kind
		want []byte
	}{
		{"empty", func(*testing.T) []byte { return nil }, KindNone, nil},
		{"one byte", func(*testing.T) []byte { return []byte{0x1f} }, KindNone, []byte{0x1f}},
		{"plain", func(*testing.T) []byte { return big }, KindNone, big},
		{"name like bzip2", func(*testing.T) []byte { return []byte("BZh9 is a file name") }, KindNone, []byte("BZh9 is a file name")},
		{"gzip", func(t *testing.T) []byte { return gz(t, big) }, KindGzip, big},
		{"gzip members", func(t *testing.T) []byte { return gz(t, nil, big[:1<<20], nil, nil, big[1<<20:], nil) }, KindGzip, big},
		{"gzip zeros", func(t *testing.T) []byte { return append(gz(t, big), make([]byte, 100000)...) }, KindGzip, big},
		{"gzip of nothing", func(t *testing.T) []byte { return gz(t, nil) }, KindGzip, nil},
		{"gzip twice", func(t *testing.T) []byte { return gz(t, gz(t, big)) }, KindGzip, gz(t, big)},
		{"pigz", func(t *testing.T) []byte { return filter(t, big, "pigz", "-c") }, KindGzip, big},
		{"zstd", func(t *testing.T) []byte { return zst(t, big) }, KindZstd, big},
		{"zstd frames", func(t *testing.T) []byte { return zst(t, nil, big[:1<<20], nil, big[1<<20:], nil) }, KindZstd, big},
		{"zstd skippable", func(t *testing.T) []byte {
			return append([]byte{0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}, zst(t, big)...)
		}, KindZstd, big},
		{"zstd long", func(t *testing.T) []byte { return filter(t, big, "zstd", "-qc", "--long=27") }, KindZstd, big},
		{"bzip2", func(t *testing.T) []byte { return filter(t, big, "bzip2", "-c") }, KindBzip2, big},
		{"bzip2 of nothing", func(t *testing.T) []byte { return filter(t, nil, "bzip2", "-c") }, KindBzip2, nil},
		{"bzip2 streams", func(t *testing.T) []byte {
			return append(filter(t, big[:5000], "bzip2", "-c"), filter(t, big[5000:], "bzip2", "-c")...)
		}, KindBzip2, big},
		{"xz", func(t *testing.T) []byte { return filter(t, big, "xz", "-1c") }, KindXZ, big},
		{"xz of nothing", func(t *testing.T) []byte { return filter(t, nil, "xz", "-c") }, KindXZ, nil},
		{"xz blocks", func(t *testing.T) []byte { return filter(t, big, "xz", "-0c", "-T2", "--block-size=300000") }, KindXZ, big},
		{"xz crc32", func(t *testing.T) []byte { return filter(t, big, "xz", "-0c", "--check=crc32") }, KindXZ, big},
		{"xz sha256", func(t *testing.T) []byte { return filter(t, big, "xz", "-0c", "--check=sha256") }, KindXZ, big},
		{"xz no check", func(t *testing.T) []byte { return filter(t, big, "xz", "-0c", "--check=none") }, KindXZ, big},
		{"xz streams", func(t *testing.T) []byte {
			a := append(filter(t, big[:70000], "xz", "-0c"), make([]byte, 8)...)
			return append(append(a, filter(t, big[70000:], "xz", "-9c")...), make([]byte, 4)...)
		}, KindXZ, big},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := tt.in(t)
			readers := map[string]io.Reader{"whole": bytes.NewReader(in)}
			if len(in) < 1<<20 {
				readers["one byte"] = iotest.OneByteReader(bytes.NewReader(in))
			}
			for how, r := range readers {
				got, kind, err := detectAll(r)
				if err != nil || kind != tt.kind || !bytes.Equal(got, tt.want) {
					t.Errorf("%s: got %d bytes of %v (%v), want %d of %v", how, len(got), kind, err, len(tt.want), tt.kind)
				}
			}
		})
	}
}

// Every truncation is an error, and so is every changed byte in a format that has
// checksums over all it holds.
func TestDamage(t *testing.T) {
	data := sample(3000)
	for kind, in := range map[Kind][]byte{
		KindGzip:  gz(t, data[:1000], data[1000:]),
		KindZstd:  filter(t, data, "zstd", "-qc", "--check"),
		KindBzip2: filter(t, data, "bzip2", "-c"),
		KindXZ:    filter(t, data, "xz", "-0c", "-T2", "--block-size=1000"),
	} {
		boundary := len(gz(t, data[:1000]))
		step := map[Kind]int{KindGzip: 1, KindZstd: 3, KindBzip2: 17, KindXZ: 7}[kind]
		for n := magicLen; n < len(in); n += step {
			if kind == KindGzip && n == boundary {
				continue // that is a whole file
			}
			_, got, err := detectAll(bytes.NewReader(in[:n]))
			if got != kind || !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v cut at %d of %d: got %v, %v", kind, n, len(in), got, err)
			}
			if !strings.Contains(err.Error(), kind.String()+" data is truncated") {
				t.Fatalf("%v cut at %d: %v", kind, n, err)
			}
		}
		for n := magicLen; n < len(in); n += 2 * step {
			bad := bytes.Clone(in)
			bad[n] ^= 0x55
			out, _, err := detectAll(bytes.NewReader(bad))
			if err == nil && !bytes.Equal(out, data) {
				t.Errorf("%v with byte %d changed: got other data and no error", kind, n)
			}
			if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v with byte %d changed: %v", kind, n, err)
			}
		}
	}
}

func TestTrailingGarbage(t *testing.T) {
	for name, in := range map[string][]byte{
		"gzip":       append(gz(t, []byte("x")), "garbage"...),
		"gzip zeros": append(append(gz(t, []byte("x")), make([]byte, 70000)...), gz(t, []byte("y"))...),
		"zstd":       append(zst(t, []byte("x")), "garbage"...),
		"bzip2":      append(filter(t, []byte("x"), "bzip2", "-c"), "garbage"...),
		"xz":         append(filter(t, []byte("x"), "xz", "-c"), "garbage garbage"...),
	} {
		if _, _, err := detectAll(bytes.NewReader(in)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

// An error of the source is not taken for damage of the data.
func TestSourceError(t *testing.T) {
	want := fmt.Errorf("network: %w", io.ErrUnexpectedEOF)
	for _, in := range [][]byte{nil, gz(t, sample(1<<20)), zst(t, sample(1<<20)), filter(t, sample(1<<20), "xz", "-0c"), sample(1 << 20)} {
		_, _, err := detectAll(io.MultiReader(bytes.NewReader(in[:len(in)/2]), iotest.ErrReader(want)))
		if err != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// A header that asks for much memory is refused.
func TestLargeWindow(t *testing.T) {
	long := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, (31 - 10) << 3, 1, 0, 0} // an empty frame with a window of 2 GiB
	xz := filter(t, sample(1000), "xz", "-c")
	header := xz[12 : 12+(int(xz[12])+1)*4]
	header[4] = 38 // a dictionary of 2 GiB
	sum := len(header) - 4
	binary.LittleEndian.PutUint32(header[sum:], crc32.ChecksumIEEE(header[:sum]))
	for _, in := range [][]byte{long, xz} {
		_, kind, err := detectAll(io.MultiReader(bytes.NewReader(in), bytes.NewReader(make([]byte, 20))))
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "MiB") && !strings.Contains(err.Error(), "window") {
			t.Errorf("%v: got %v, want ErrCorrupt", kind, err)
		}
	}
}

func TestSharedOdd(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "tars", "odd")
	files, err := filepath.Glob(filepath.Join(dir, "*.*z*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no compressed files in %s (%v)", dir, err)
	}
	for _, file := range files {
		in, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		prog := map[string]string{".gz": "gzip", ".zst": "zstd"}[filepath.Ext(file)]
		testenv.Require(t, prog)
		c := exec.Command(prog, "-dcq")
		c.Stdin = bytes.NewReader(in)
		want, wantErr := c.Output()
		got, _, err := detectAll(bytes.NewReader(in))
		if (err != nil) != (wantErr != nil) {
			t.Errorf("%s: %v, but %s says %v", filepath.Base(file), err, prog, wantErr)
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, want %d", filepath.Base(file), len(got), len(want))
		}
	}
}

func TestNewReader(t *testing.T) {
	rc, err := NewReader(bytes.NewReader(gz(t, []byte("hello"))), KindGzip)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(rc); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := errors.Join(rc.Close(), rc.Close()); err != nil {
		t.Error(err)
	}
	if _, err := NewReader(strings.NewReader("hello, this is no gzip"), KindGzip); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no gzip: got %v, want ErrCorrupt", err)
	}
	if _, err := NewReader(strings.NewReader(""), Kind(77)); err == nil || !strings.Contains(err.Error(), "Kind(77)") {
		t.Errorf("unknown kind: got %v", err)
	}
}

func FuzzDetect(f *testing.F) {
	f.Add(gz(f, []byte("one"), []byte("two")))
	f.Add(zst(f, []byte("one"), []byte("two")))
	f.Add(filter(f, []byte("one"), "xz", "-c"))
	f.Add(filter(f, []byte("one"), "bzip2", "-c"))
	f.Fuzz(func(t *testing.T, in []byte) {
		rc, kind, err := Detect(bytes.NewReader(in))
		if err != nil {
			return
		}
		p := Pipe(rc)
		defer p.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(p, 16<<20))
		if kind == KindNone && (err != nil || n != int64(min(len(in), 16<<20))) {
			t.Errorf("plain data: got %d of %d bytes, %v", n, len(in), err)
		}
	})
}
