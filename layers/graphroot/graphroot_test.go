package graphroot

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// makeRoot makes a graph root with one layer, whose files and tar-split entries are
// given.
func makeRoot(t *testing.T, files map[string]string, entries ...entry) *Root {
	t.Helper()
	r := New(t.TempDir())
	diff := filepath.Join(r.dir, "overlay/ab/diff")
	for _, dir := range []string{diff, filepath.Join(r.dir, "overlay-layers"), filepath.Join(r.dir, "overlay-images")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		path := filepath.Join(diff, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	for _, e := range entries {
		if err := json.NewEncoder(z).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	z.Close()
	if err := os.WriteFile(filepath.Join(r.dir, "overlay-layers/ab.tar-split.gz"), buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

func segment(text string) entry { return entry{Type: typeSegment, Payload: []byte(text)} }

func file(name string, size int64) entry { return entry{Type: typeFile, Name: name, Size: size} }

func TestTar(t *testing.T) {
	r := makeRoot(t, map[string]string{"a/b": "hello", "c": "world!"},
		segment("HEAD"), file("./a/b", 5), segment("pad"), file("empty", 0), file("/a/../c", 6), segment("END"))
	tar, err := r.OpenTar("ab")
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	buf := make([]byte, 4)
	if _, err := io.ReadFull(tar, buf); err != nil || string(buf) != "HEAD" {
		t.Fatalf("got %q, %v", buf, err)
	}
	// Asked for before a byte of it was read.
	if f, ok := tar.File(4); !ok || f.Name != "./a/b" || f.Size != 5 || f.Unreadable {
		t.Errorf("got %+v, %t", f, ok)
	}
	if _, ok := tar.File(5); ok {
		t.Error("a file in the middle of another")
	}
	rest, err := io.ReadAll(tar)
	if err != nil || string(rest) != "hellopadworld!END" {
		t.Errorf("got %q, %v", rest, err)
	}
	if f, ok := tar.File(12); !ok || f.Name != "/a/../c" {
		t.Errorf("got %+v, %t", f, ok)
	}
}

// What is not as it was when it was unpacked, and what is malformed, is ErrInvalid.
func TestBadTars(t *testing.T) {
	for name, r := range map[string]*Root{
		"short file":   makeRoot(t, map[string]string{"a": "hell"}, segment("x"), file("a", 5)),
		"missing file": makeRoot(t, nil, segment("x"), file("a", 5), segment("y")),
		"directory":    makeRoot(t, map[string]string{"a/b": ""}, segment("x"), file("a", 5)),
		"type":         makeRoot(t, nil, entry{Type: 7}),
		"size":         makeRoot(t, nil, file("a", -1)),
	} {
		tar, err := r.OpenTar("ab")
		if err != nil {
			t.Fatal(err)
		}
		tar.File(1)
		if _, err := io.ReadAll(tar); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
		tar.Close()
	}
	r := makeRoot(t, nil)
	if _, err := r.OpenTar("cd"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "no tar-split") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "overlay-layers/cd.tar-split.gz"), []byte("no gzip"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenTar("cd"); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// Names of a graph root never lead out of the layer.
func TestOpenFileStaysInside(t *testing.T) {
	r := makeRoot(t, map[string]string{"dir/f": "inside"})
	diff := filepath.Join(r.dir, "overlay/ab/diff")
	for link, target := range map[string]string{"out": "/etc", "up": "../../..", "self": "dir", "leaf": "dir/f"} {
		if err := os.Symlink(target, filepath.Join(diff, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"dir/f", "./dir/f", "/dir/f", "x/../dir/f", "../../dir/f"} {
		f, err := r.OpenFile("ab", name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if raw, _ := io.ReadAll(f); string(raw) != "inside" {
			t.Errorf("%s: %q", name, raw)
		}
		f.Close()
	}
	for _, name := range []string{"out/passwd", "up/overlay-layers/ab.tar-split.gz", "self/f", "leaf", "", "dir", "../../../../etc/passwd"} {
		if f, err := r.OpenFile("ab", name); err == nil {
			f.Close()
			t.Errorf("%q was opened: %s", name, f.Name())
		}
	}
	for _, layer := range []string{"", "..", "../ab", "a/b", "AB"} {
		if _, err := r.OpenFile(layer, "dir/f"); !errors.Is(err, ErrInvalid) {
			t.Errorf("layer %q: got %v, want ErrInvalid", layer, err)
		}
	}
}

func TestRecords(t *testing.T) {
	r := makeRoot(t, nil)
	before, err := r.Mark()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Read(); err != nil || len(got.Images) != 0 {
		t.Errorf("an empty graph root: got %+v, %v", got, err)
	}
	layers := `[{"id":"aa","diff-digest":"sha256:1","diff-size":5},{"id":"bb","parent":"aa"},{"id":"cc","parent":"dd"},{"id":"dd","parent":"cc"}]`
	if err := os.WriteFile(filepath.Join(r.dir, lists[1]), []byte(layers), 0o644); err != nil {
		t.Fatal(err)
	}
	if after, _ := r.Mark(); after == before {
		t.Error("the mark is the same after a change")
	}
	got, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	stack, err := got.Stack("bb")
	if err != nil || len(stack) != 2 || stack[0].ID != "aa" || stack[0].Size != 5 {
		t.Errorf("got %+v, %v", stack, err)
	}
	if _, err := got.Stack("cc"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a circle: got %v, want ErrInvalid", err)
	}
	if _, err := got.Stack("ee"); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown layer: got %v, want ErrInvalid", err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, lists[0]), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func TestDocument(t *testing.T) {
	r := makeRoot(t, nil)
	dir := filepath.Join(r.dir, "overlay-images/ab")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"manifest": "m", "=c2hhMjU2OmFi": "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{"manifest": "m", "sha256:ab": "c"} {
		if got, err := r.Document("ab", key); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", key, got, err)
		}
	}
	for _, key := range []string{"..", ".", "", "../ab/manifest", "nope"} {
		if got, err := r.Document("ab", key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %q, %v", key, got, err)
		}
	}
	if _, err := r.Document("../overlay-images/ab", "manifest"); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func TestIs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if ok, err := Is(dir); ok || err != nil {
		t.Errorf("an empty directory: %t, %v", ok, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "vfs-images"), 0o755); err != nil {
		t.Fatal(err)
	}
	if ok, err := Is(dir); !ok || !errors.Is(err, ErrDriver) || !strings.Contains(err.Error(), "vfs") {
		t.Errorf("vfs: %t, %v; want ErrDriver that names it", ok, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "overlay-layers"), 0o755); err != nil {
		t.Fatal(err)
	}
	if ok, err := Is(dir); !ok || err != nil {
		t.Errorf("overlay: %t, %v", ok, err)
	}
}
