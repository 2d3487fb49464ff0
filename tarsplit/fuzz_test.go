package tarsplit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"

	"github.com/layerfs/layerfs/internal/testenv"
)

// addTars adds small tars of all kinds as seeds.
func addTars(f *testing.F) {
	f.Helper()
	f.Add(smallTar(f))
	files := goTestdata(f)
	if testenv.Have("shared") == nil {
		files = append(files, sharedFiles(f, "tars")...)
	}
	for _, name := range files {
		if ext := filepath.Ext(name); ext != ".tar" {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) <= 16<<10 {
			f.Add(data)
		}
	}
}

// FuzzSplitJoin is the law.
func FuzzSplitJoin(f *testing.F) {
	addTars(f)
	f.Fuzz(func(t *testing.T, x []byte) { checkLaw(t, x) })
}

// fixChecksums makes the checksum of every block right that has one of a header
// of a kind, so that a fuzzer gets behind it.
func fixChecksums(x []byte) []byte {
	x = bytes.Clone(x)
	for len(x)%blockSize == 0 && len(x) > 0 {
		break
	}
	for i := 0; i+blockSize <= len(x); i += blockSize {
		b := x[i : i+blockSize]
		if b[154] != 0 || b[155] != ' ' || b[0] == 0 {
			continue
		}
		setChecksum(b)
	}
	return x
}

func setChecksum(b []byte) {
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	for i := 153; i >= 148; i-- {
		b[i] = byte('0' + sum&7)
		sum >>= 3
	}
	b[154], b[155] = 0, ' '
}

func FuzzAgainstArchiveTar(f *testing.F) {
	addTars(f)
	f.Fuzz(func(t *testing.T, x []byte) {
		compareWithArchiveTar(t, x)
		compareWithArchiveTar(t, fixChecksums(x))
	})
}

// zeroBodies has every body there can be.
type zeroBodies struct{}

func (zeroBodies) Body(Sum, int64) (io.ReaderAt, error) { return zeroBodies{}, nil }

func (zeroBodies) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

var errEnough = errors.New("enough")

// limitedWriter fails when it has got more than it wants.
type limitedWriter struct{ left int }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errEnough
	}
	return len(p), nil
}

// FuzzStoredForm opens arbitrary bytes, and arbitrary bytes as one group in a
// file whose checksums are right.
func FuzzStoredForm(f *testing.F) {
	f.Add([]byte{})
	for _, x := range [][]byte{smallTar(f), nil, make([]byte, 3000), bytes.Repeat([]byte("a"), 3000)} {
		var form bytes.Buffer
		if err := Split(bytes.NewReader(x), NewWriter(&form), newMemory().Put); err != nil {
			f.Fatal(err)
		}
		f.Add(form.Bytes())
	}
	f.Add(append([]byte{2, 6, 0, 0, 0, 0, 0, 0, 0}, "\x0c\x05\x0a\x05\x0araw"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		useForm(t, data)
		useForm(t, wrapGroup(data))
	})
}

// wrapGroup makes a stored form of one group: the first byte is the number of
// sums, the next eight are the size of the stream, then the length of the records
// in one byte, the records, and the raw bytes.
func wrapGroup(data []byte) []byte {
	if len(data) < 10 {
		return nil
	}
	sums := make([]byte, int(data[0])*sumSize)
	size := int64(binary.LittleEndian.Uint64(data[1:]))
	payload := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(sums, castagnoli))
	payload = binary.LittleEndian.AppendUint32(payload, uint32(data[9]))
	payload = append(payload, data[10:]...)
	form := formatHeader()
	groups := []entry{{0, int64(len(form))}}
	if len(sums) > 0 {
		form = append(appendSkippable(form, magicSums, len(sums)), sums...)
	}
	form = encoder().EncodeAll(payload, form)
	return appendIndex(form, groups, size, int64(len(form)))
}

func useForm(t *testing.T, data []byte) {
	r, err := Open(bytes.NewReader(data), int64(len(data)), zeroBodies{})
	if err != nil {
		checkDamage(t, err)
		return
	}
	verr := r.Verify()
	checkDamage(t, verr)
	checkDamage(t, r.EachBody(func(Sum, int64) error { return nil }))
	buf := make([]byte, 1000)
	for _, off := range []int64{0, 1, 511, r.Size() / 2, r.Size() - 10, r.Size() - 1} {
		if off < 0 {
			continue
		}
		n, err := r.ReadAt(buf, off)
		if err == io.EOF {
			err = nil
			if int64(n) != max(0, r.Size()-off) {
				t.Fatalf("ReadAt(%d): %d bytes and io.EOF, size is %d", off, n, r.Size())
			}
		}
		checkDamage(t, err)
	}
	n, err := r.WriteTo(&limitedWriter{left: 4 << 20})
	if err != errEnough {
		checkDamage(t, err)
	}
	if err == nil && (n != r.Size() || verr != nil) {
		t.Fatalf("joined %d bytes of %d, verify says %v", n, r.Size(), verr)
	}
}

func checkDamage(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
		t.Fatalf("error %v is not ErrDamaged", err)
	}
}

// FuzzJSON reads arbitrary bytes as the JSON form; what both we and vbatts'
// library can join is joined to the same.
func FuzzJSON(f *testing.F) {
	content := map[string][]byte{"a": []byte("hello"), "dir/b": bytes.Repeat([]byte("b"), 2000), "\xff": []byte("raw")}
	addJSON(f, tarOf(f, file{name: "a", body: "hello"}, file{name: "dir/b", body: string(content["dir/b"])}))
	addJSON(f, smallTar(f))
	f.Add([]byte(`{"type":1,"name_raw":"/w==","size":3,"payload":"AAAAAAAAAAA=","position":0}`))
	f.Add([]byte(" {\"type\" :2,\n\"payload\":\"YWJj\\/w==\",\"position\":1e3}\n{\"type\":2,\"payload\":null}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := joinJSON(text, content)
		want, wantErr := joinJSONWithLibrary(text, content)
		if err == nil && wantErr == nil && !bytes.Equal(got, want) {
			t.Fatalf("joined %q, the library %q", got, want)
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("error %v is not ErrDamaged", err)
		}
	})
}

func addJSON(f *testing.F, x []byte) {
	f.Helper()
	m := newMemory()
	var form, text bytes.Buffer
	if err := Split(bytes.NewReader(x), NewWriter(&form), m.Put); err != nil {
		f.Fatal(err)
	}
	r, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), m)
	if err != nil {
		f.Fatal(err)
	}
	if err := WriteJSON(&text, r); err != nil {
		f.Fatal(err)
	}
	f.Add(text.Bytes())
}

// files are the contents of an unpacked layer, by name.
type files map[string][]byte

func (f files) Get(name string) (io.ReadCloser, error) {
	data, ok := f[name]
	if !ok {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// joinJSON joins a stream from its JSON form with this package.
func joinJSON(text []byte, content files) ([]byte, error) {
	m := newMemory()
	var form, joined bytes.Buffer
	w := NewWriter(&form)
	if err := FromJSON(bytes.NewReader(text), w, content.Get, m.Put); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	r, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), m)
	if err != nil {
		return nil, err
	}
	err = Join(&joined, r)
	return joined.Bytes(), err
}

// joinJSONWithLibrary does the same with vbatts/tar-split.
func joinJSONWithLibrary(text []byte, content files) ([]byte, error) {
	var joined bytes.Buffer
	err := asm.WriteOutputTarStream(content, storage.NewJSONUnpacker(bytes.NewReader(text)), &joined)
	return joined.Bytes(), err
}
