package tarsplit

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	vtar "github.com/vbatts/tar-split/archive/tar"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
)

// fileStore is what vbatts/tar-split puts files into.
type fileStore struct {
	storage.FileGetPutter
	content files
}

func (s fileStore) Put(name string, r io.Reader) (int64, []byte, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return 0, nil, err
	}
	s.content[name] = data
	return s.FileGetPutter.Put(name, bytes.NewReader(data))
}

// splitWithLibrary writes the JSON form with vbatts/tar-split.
func splitWithLibrary(x []byte) (text []byte, content files, err error) {
	var out bytes.Buffer
	content = files{}
	store := fileStore{storage.NewBufferFileGetPutter(), content}
	r, done, err := asm.NewInputTarStreamWithDone(bytes.NewReader(x), storage.NewJSONPacker(&out), store)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, nil, err
	}
	return out.Bytes(), content, <-done
}

// unpacked returns the contents of all regular files of a tar, as a program that
// unpacks it leaves them.
func unpacked(x []byte) files {
	content := files{}
	for tr := tar.NewReader(bytes.NewReader(x)); ; {
		h, err := tr.Next()
		if err != nil {
			return content
		}
		if h.Size > maxLogical+int64(len(x)) || (h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeCont) {
			continue
		}
		if _, known := content[h.Name]; known {
			continue
		}
		if data, err := io.ReadAll(tr); err == nil {
			content[h.Name] = data
		}
	}
}

// hasHoles reports whether the tar has a sparse file.
func hasHoles(x []byte) bool {
	s := NewSplitter(bytes.NewReader(x), NewWriter(io.Discard))
	for {
		h, err := s.Next()
		if err != nil {
			return false
		}
		if h.Sparse != nil {
			return true
		}
	}
}

// checkJSON goes there and back in three ways.
func checkJSON(t *testing.T, x []byte) {
	t.Helper()
	var text bytes.Buffer
	if err := WriteJSON(&text, stored(t, x, newMemory())); err != nil {
		t.Fatalf("WriteJSON: %v", err)
	}
	content := unpacked(x)
	if got, err := joinJSON(text.Bytes(), content); err != nil || !bytes.Equal(got, x) {
		t.Errorf("from our JSON: %v, %d bytes, want %d", err, len(got), len(x))
	}
	if got, err := joinJSONWithLibrary(text.Bytes(), content); err != nil || !bytes.Equal(got, x) {
		t.Errorf("our JSON in the library: %v, %d bytes, want %d", err, len(got), len(x))
	}
	if hasHoles(x) {
		return // the library keeps the content, with its holes, for the body
	}
	theirs, content, err := splitWithLibrary(x)
	if err != nil {
		return // no tar, or a path that occurs twice
	}
	want, err := joinJSONWithLibrary(theirs, content)
	if err != nil {
		return
	}
	if got, err := joinJSON(theirs, content); err != nil || !bytes.Equal(got, want) {
		t.Errorf("from the library's JSON: %v, %d bytes, want %d", err, len(got), len(want))
	}
}

func TestJSON(t *testing.T) {
	eachShared(t, func(t *testing.T, x []byte) {
		if _, err := tar.NewReader(bytes.NewReader(x)).Next(); err != nil && len(x) > 1<<20 {
			return // a long blob of segments takes long and tells little
		}
		checkJSON(t, x)
	})
	t.Run("small", func(t *testing.T) { checkJSON(t, smallTar(t)) })
	t.Run("duplicates", func(t *testing.T) {
		checkJSON(t, tarOf(t, file{name: "a", body: "first"}, file{name: "./a", body: "second"}, file{name: "a", body: "third"}))
	})
}

// TestJSONSame: an ordinary tar gives the very text that the library writes.
func TestJSONSame(t *testing.T) {
	x := tarOf(t,
		file{name: "dir/", typ: tar.TypeDir}, file{name: "dir/a<b>&", body: "hello"}, file{name: "dir/\xff", body: strings.Repeat("b", 1000)},
		file{name: "dir/é", typ: tar.TypeSymlink, link: "a"}, file{name: "empty"},
		file{name: "hard", typ: tar.TypeLink, link: "dir/é"}, file{name: strings.Repeat("l/", 200) + "l", body: ""})
	want, _, err := splitWithLibrary(x)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := WriteJSON(&got, stored(t, x, newMemory())); err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

// TestJSONHeaders: the library finds all headers in what we write.
func TestJSONHeaders(t *testing.T) {
	x := append(smallTar(t), make([]byte, 9000)...)
	var text bytes.Buffer
	if err := WriteJSON(&text, stored(t, x, newMemory())); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	err := asm.IterateHeaders(storage.NewJSONUnpacker(&text), func(h *vtar.Header) error {
		got = append(got, h.Name)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for tr := tar.NewReader(bytes.NewReader(x)); ; {
		h, err := tr.Next()
		if err != nil {
			break
		}
		want = append(want, h.Name)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestJSONDamage(t *testing.T) {
	content := files{"a": []byte("hello")}
	const crc = `"payload":"UzqhgAAAAAA="`
	for _, text := range []string{
		`x`, `{`, `{}`, `{"type"`, `{"type":`, `{"type":2`, `{"type":3}`, `{"type":"2"}`, `{"type":[2]}`, `{"type":2.5}`, `[]`,
		`{"type":2,"payload":"x"}`, `{"type":2,"payload":"YQ==`, `{"type":2,"payload":5}`, `{"payload":"YQ==","type":2}`, `{"type":2,"payload":"\u0041"}`,
		`{"type":1,"name":"a","size":-1}`, `{"type":1,"name":"a","size":99999999999999999999}`, `{"type":1,"name":5,"size":1}`,
		`{"type":1,"name":"a","size":5,"payload":"AAAAAAAAAAA="}`, `{"type":1,"name":"a","size":5,"payload":"AAAAAAAAAAAAAAAAAAA="}`,
		`{"type":1,"name":"a","size":4,` + crc + `}`, `{"type":1,"name":"a","size":6,` + crc + `}`, `{"type":1,"name":"\x","size":5}`,
		`{"type":2,"payload":"YQ==","Payload":"YQ=="}`, `{"type":1,"name_raw":"?","size":5}`, `{"type":2,"payload":"YQ=="}}`, `{"type":2 "payload":"YQ=="}`, `{"type":2,}`, `{"other":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		if _, err := joinJSON([]byte(text), content); !errors.Is(err, ErrDamaged) {
			t.Errorf("%.60s: got %v, want ErrDamaged", text, err)
		}
	}
	if _, err := joinJSON([]byte(`{"type":1,"name":"b","size":5}`), content); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
}

// TestJSONLongSegment: a segment of any length is read in constant memory.
func TestJSONLongSegment(t *testing.T) {
	const size = 64 << 20
	text := io.MultiReader(
		strings.NewReader(`{"type":2,"payload":"`),
		io.LimitReader(repeat("QUJD"), size),
		strings.NewReader(`","position":0}`))
	w := NewWriter(io.Discard)
	before := heapBytes()
	if err := FromJSON(text, w, nil, nil); err != nil {
		t.Fatal(err)
	}
	if used := heapBytes() - before; used > 16<<20 {
		t.Errorf("%d bytes of heap", used)
	}
	if got := w.Size(); got != size/4*3 {
		t.Errorf("got %d bytes, want %d", got, size/4*3)
	}
}

type repeat string

func (r repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(r) <= len(p) {
		n += copy(p[n:], r)
	}
	return n, nil
}

func TestJSONGolden(t *testing.T) {
	dir := "testdata"
	x := readFile(t, filepath.Join(dir, "small.tar"))
	text := readFile(t, filepath.Join(dir, "small.json"))
	if got, err := joinJSON(text, unpacked(x)); err != nil || !bytes.Equal(got, x) {
		t.Errorf("joined %d bytes, %v; want %d", len(got), err, len(x))
	}
	var got bytes.Buffer
	if err := WriteJSON(&got, stored(t, x, newMemory())); err != nil {
		t.Fatal(err)
	}
	golden(t, "small.json", got.Bytes())
}
