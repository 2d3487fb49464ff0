package layers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/internal/testenv"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"), &Options{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		wantClean(t, s)
		s.Close()
	})
	return s
}

// wantClean is what must hold after every test: the store checks out and nothing
// temporary is left.
func wantClean(t testing.TB, s *Store) {
	t.Helper()
	r, err := s.Check(context.Background(), nil)
	if err != nil {
		t.Errorf("check: %v", err)
		return
	}
	for _, p := range r.Problems {
		t.Errorf("check: %s", p)
	}
	left, _ := os.ReadDir(filepath.Join(s.root, "tmp"))
	for _, e := range left {
		t.Errorf("tmp/%s was left behind", e.Name())
	}
}

func load(t testing.TB, s *Store, src Source, names ...string) *Image {
	t.Helper()
	img, err := s.Load(t.Context(), src, &LoadOptions{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// tarDigest reads a layer's tar out of the store.
func tarDigest(t testing.TB, s *Store, d DiffID) digest.Digest {
	t.Helper()
	l, err := s.OpenLayer(d)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tar, err := l.Tar()
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := tar.WriteTo(h); err != nil {
		t.Fatal(err)
	}
	return digest.NewDigest(digest.SHA256, h)
}

func TestRealImagesComeOutBitForBit(t *testing.T) {
	shared := testenv.Shared(t)
	for _, name := range []string{"alpine.zstd3.oci"} {
		s := newStore(t)
		for _, src := range layout(t, filepath.Join(shared, "images", name)) {
			img := load(t, s, src, "x:1")
			for _, d := range img.DiffIDs() {
				if got := tarDigest(t, s, d); got != digest.Digest(d) {
					t.Errorf("%s: layer %s comes out as %s", name, d, got)
				}
			}
		}
	}
}

func TestLoadTwiceStoresOnce(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, dir("a/"), file("a/b", "hello"), file("a/c", strings.Repeat("large", 100_000))))
	first := load(t, s, src, "one")
	before := listing(t, s.root)
	second := load(t, s, src, "one")
	if first.ID != second.ID || len(second.Names) != 1 {
		t.Errorf("got %+v", second)
	}
	if after := listing(t, s.root); !slices.Equal(before, after) {
		t.Errorf("the second load changed files:\n%s\n%s", before, after)
	}
}

// listing lists the files of a directory, without those that are locks.
func listing(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && !strings.HasSuffix(path, ".lock") {
			out = append(out, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNames(t *testing.T) {
	s := newStore(t)
	a := load(t, s, image(t, archive(t, file("a", "a"))), "app", "docker.io/library/app:latest", "other:2")
	if len(a.Names) != 2 {
		t.Fatalf("names %v, want two", a.Names)
	}
	b := load(t, s, image(t, archive(t, file("b", "b"))), "app")
	for name, want := range map[string]digest.Digest{
		"app": b.ID, "other:2": a.ID, string(a.ID): a.ID, a.ID.Encoded(): a.ID, a.ID.Encoded()[:12]: a.ID,
		"docker.io/library/app": b.ID, "app@" + string(b.Manifests[0].Descriptor.Digest): b.ID,
	} {
		img, err := s.Image(t.Context(), name)
		if err != nil || img.ID != want {
			t.Errorf("%s: got %v, %v; want %s", name, img, err, want)
		}
	}
	for _, name := range []string{"nothing", "Invalid Name", strings.Repeat("0", 64), "sha256:" + strings.Repeat("0", 64)} {
		if _, err := s.Image(t.Context(), name); !errors.Is(err, ErrImageUnknown) {
			t.Errorf("%s: %v, want ErrImageUnknown", name, err)
		}
	}
	if err := s.Tag(t.Context(), "app", "new/name:3", "UPPER"); !errors.Is(err, ErrInvalidName) {
		t.Errorf("tag: %v, want ErrInvalidName", err)
	}
	if err := s.Tag(t.Context(), "app", "new/name:3"); err != nil {
		t.Error(err)
	}
	removed, err := s.Untag(t.Context(), "new/name:3")
	if err != nil || !slices.Equal(removed, []string{"docker.io/new/name:3"}) {
		t.Errorf("untag: %v, %v", removed, err)
	}
	if _, err := s.Untag(t.Context(), "new/name:3"); !errors.Is(err, ErrImageUnknown) {
		t.Errorf("untag: %v, want ErrImageUnknown", err)
	}
}

func TestAmbiguousID(t *testing.T) {
	s := newStore(t)
	ids := map[string]bool{}
	prefix := ""
	for i := range 300 { // 3 digits of 300 random IDs: some are sure to collide
		img := load(t, s, image(t, archive(t, file("n", string(rune('a'+i%26))+strings.Repeat("x", i)))))
		p := img.ID.Encoded()[:3]
		if ids[p] {
			prefix = p
			break
		}
		ids[p] = true
	}
	if prefix == "" {
		t.Skip("no two of 300 IDs share three digits, which happens once in 60,000 runs")
	}
	_, err := s.Image(t.Context(), prefix)
	if !errors.Is(err, ErrAmbiguous) || strings.Count(err.Error(), prefix) < 3 {
		t.Errorf("got %v, want ErrAmbiguous with the candidates", err)
	}
}

func TestWrongContentIsRefused(t *testing.T) {
	good := func() *memSource { return image(t, archive(t, file("a", "hello")), archive(t, file("b", "world"))) }
	tests := map[string]struct {
		change func(*memSource)
		want   error
	}{
		"manifest digest": {func(s *memSource) { s.Desc.Digest = digest.FromString("x") }, ErrVerification},
		"layer bytes": {func(s *memSource) {
			for d, b := range s.Blobs {
				if b[0] == 0x1f {
					b[len(b)-5] ^= 1
					s.Blobs[d] = b
				}
			}
		}, ErrVerification},
		"layer longer": {func(s *memSource) {
			for d, b := range s.Blobs {
				s.Blobs[d] = append(slices.Clone(b), 0)
			}
		}, ErrVerification},
		"layer shorter": {func(s *memSource) {
			for d, b := range s.Blobs {
				s.Blobs[d] = b[:len(b)-1]
			}
		}, ErrVerification},
		"manifest is no JSON": {func(s *memSource) {
			s.Raw = []byte("{")
			s.Desc.Digest = digest.FromBytes(s.Raw)
		}, ErrInvalidImage},
		"schema 1": {func(s *memSource) {
			s.Raw = []byte(`{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}`)
			s.Desc.Digest = digest.FromBytes(s.Raw)
		}, ErrInvalidImage},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			load(t, s, image(t, archive(t, file("old", "old"))), "old")
			before := listing(t, s.root)
			src := good()
			test.change(src)
			_, err := s.Load(t.Context(), src, &LoadOptions{Names: []string{"new"}})
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if after := listing(t, s.root); !slices.Equal(before, after) {
				t.Errorf("the failed load left something:\n%s\n%s", before, after)
			}
		})
	}
}

func TestWrongDiffID(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, file("a", "hello")))
	other := image(t, archive(t, file("a", "jello")))
	// The manifest of the one with the config of the other: every blob is what its
	// digest says, only the layer is not what the config says.
	m := bytes.Replace(src.Raw, []byte(configOf(t, src)), []byte(configOf(t, other)), 1)
	for d, b := range other.Blobs {
		src.Blobs[d] = b
	}
	src.Raw, src.Desc.Digest = m, digest.FromBytes(m)
	_, err := s.Load(t.Context(), src, nil)
	if !errors.Is(err, ErrVerification) || !strings.Contains(err.Error(), string(digest.FromBytes(archive(t, file("a", "hello"))))) {
		t.Errorf("got %v, want ErrVerification with both digests", err)
	}
}

func configOf(t testing.TB, s *memSource) string {
	t.Helper()
	m, err := parseManifest(s.Raw, s.Desc)
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Config.Digest)
}

func TestRemoveAndCollect(t *testing.T) {
	s := newStore(t)
	empty := listing(t, s.root)
	base := archive(t, file("base", strings.Repeat("b", 200_000)), file("small", "s"))
	a := load(t, s, image(t, base, archive(t, file("a", "only in a"))), "a:1", "a:2")
	load(t, s, image(t, base, archive(t, file("b", "only in b"))), "b")
	if _, err := s.Remove(t.Context(), a.ID.Encoded()[:12], nil); !errors.Is(err, ErrInUse) {
		t.Errorf("rmi by ID of an image with two names: %v, want ErrInUse", err)
	}
	r, err := s.Remove(t.Context(), "a:1", nil)
	if err != nil || len(r.Deleted) != 0 || len(r.Untagged) != 1 {
		t.Fatalf("got %+v, %v", r, err)
	}
	dry, err := s.Remove(t.Context(), "a:2", &RemoveOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	r, err = s.Remove(t.Context(), "a:2", nil)
	if err != nil || len(r.Deleted) != 1 || len(r.Layers) != 1 || !slices.Equal(dry.Layers, r.Layers) {
		t.Fatalf("got %+v, %v; the dry run said %+v", r, err, dry)
	}
	if _, err := s.Remove(t.Context(), "b", nil); err != nil {
		t.Fatal(err)
	}
	if c, err := s.GC(t.Context(), false); err != nil || c.Bodies+c.Objects+c.Packs+c.Blobs+int64(len(c.Layers)) != 0 {
		t.Errorf("gc after rmi found %+v, %v", c, err)
	}
	if files := listing(t, s.root); !slices.Equal(withoutShards(empty), withoutShards(slices.DeleteFunc(files, func(p string) bool { return strings.HasPrefix(p, "/index.") }))) {
		t.Errorf("something is left of the images: %s", files)
	}
}

func TestOpenLayerSurvivesRemoval(t *testing.T) {
	s := newStore(t)
	img := load(t, s, image(t, archive(t, file("f", "content"), file("big", strings.Repeat("x", 300_000)))), "x")
	l, err := s.OpenLayer(img.DiffIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	tar, err := l.Tar()
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := tar.WriteTo(h); err != nil || digest.NewDigest(digest.SHA256, h) != digest.Digest(l.DiffID) {
		t.Errorf("the open layer changed: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := s.GC(t.Context(), false)
	if err != nil || len(c.Layers) != 1 {
		t.Errorf("gc after the last close: %+v, %v", c, err)
	}
}

func TestLowerLinks(t *testing.T) {
	s := newStore(t)
	load(t, s, image(t, archive(t, file("a", "lower")), archive(t, link("b", "a"))), "x")
	_, err := s.Load(t.Context(), image(t, archive(t, file("a", "lower")), archive(t, link("b", "missing"))), nil)
	if !errors.Is(err, ErrInvalidLayer) {
		t.Errorf("got %v, want ErrInvalidLayer", err)
	}
}

func TestReplacedBodiesStayInTheTar(t *testing.T) {
	s := newStore(t)
	layer := archive(t, file("a", "first"), file("a", "second"), file(".wh.x", "body of a whiteout"), file("dir/.wh..wh..opq", "x"))
	img := load(t, s, image(t, layer), "x")
	if got := tarDigest(t, s, img.DiffIDs()[0]); got != digest.FromBytes(layer) {
		t.Errorf("came out as %s", got)
	}
}

// TestAufsLinks loads a layer that keeps its hard links in AUFS's directory for
// them, as images from the early years of docker do.
func TestAufsLinks(t *testing.T) {
	s := newStore(t)
	layer := archive(t, dir(".wh..wh.plnk/"), file(".wh..wh.plnk/42.7", "linked"), file(".wh..wh.aufs", ""),
		link("a", ".wh..wh.plnk/42.7"), link("b", ".wh..wh.plnk/42.7"))
	img := load(t, s, image(t, layer), "x")
	l, err := s.OpenLayer(img.DiffIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, names, err := l.Tree().Dir(0)
	if err != nil || names != 2 {
		t.Errorf("%d names in the root, %v; want a and b", names, err)
	}
	e, ok, err := l.Tree().Lookup(0, []byte("a"))
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	p := make([]byte, 10)
	n, _ := l.ReadAt(e.Ino, p, 0)
	if a, err := l.Tree().Attr(e.Ino); err != nil || a.Nlink != 2 || string(p[:n]) != "linked" {
		t.Errorf("a has %d links and %q, %v", a.Nlink, p[:n], err)
	}
	if got := tarDigest(t, s, img.DiffIDs()[0]); got != digest.FromBytes(layer) {
		t.Errorf("came out as %s", got)
	}
}

// TestLinuxRules loads what a tar can say and no Linux file system can hold.
func TestLinuxRules(t *testing.T) {
	s := newStore(t)
	sl := symlink("sl", "target")
	sl.Mode = 0o644
	sl.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "1"}
	img := load(t, s, image(t, archive(t, sl, file(".wh..wh.plnk", "no directory"))), "x")
	l, err := s.OpenLayer(img.DiffIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e, ok, err := l.Tree().Lookup(0, []byte("sl"))
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if a, err := l.Tree().Attr(e.Ino); err != nil || a.Mode != 0o777 || a.HasXattrs {
		t.Errorf("the symbolic link has %+v, %v; want mode 0777 and no attributes", a, err)
	}
	if _, names, _ := l.Tree().Dir(0); names != 1 {
		t.Errorf("%d names in the root, want 1", names)
	}
	for _, bad := range [][]byte{archive(t, link("b", "missing")), archive(t, file(".wh.", "")), archive(t, link("b", "../../.wh.x"))} {
		if _, err := s.Load(t.Context(), image(t, bad), nil); !errors.Is(err, ErrInvalidLayer) {
			t.Errorf("got %v, want ErrInvalidLayer", err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	s := newStore(t)
	_, err := s.Load(t.Context(), image(t, archive(t, file("zeros", strings.Repeat("\x00", 1<<20)))), &LoadOptions{MaxBytes: 1 << 19})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestImport(t *testing.T) {
	s := newStore(t)
	raw := archive(t, dir("etc/"), file("etc/os-release", "ID=test\n"), symlink("link", "etc"))
	img, err := s.Import(t.Context(), bytes.NewReader(raw), &ImportOptions{Names: []string{"mine"}, Created: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Import(t.Context(), bytes.NewReader(raw), &ImportOptions{Created: time.Unix(1, 0)})
	if err != nil || again.ID != img.ID {
		t.Errorf("the same import gave %v, %v", again, err)
	}
	if got := tarDigest(t, s, img.DiffIDs()[0]); got != digest.FromBytes(raw) {
		t.Errorf("came out as %s", got)
	}
	if _, err := s.Import(t.Context(), strings.NewReader("this is no tar"), nil); !errors.Is(err, ErrInvalidLayer) {
		t.Errorf("import of a text: %v, want ErrInvalidLayer", err)
	}
}

func TestReadAt(t *testing.T) {
	s := newStore(t)
	body := strings.Repeat("0123456789", 50_000)
	img := load(t, s, image(t, archive(t, file("large", body), file("small", body[:1000]), file("empty", ""))), "x")
	l, err := s.OpenLayer(img.DiffIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]string{"large": body, "small": body[:1000], "empty": ""} {
		e, ok, err := l.Tree().Lookup(0, []byte(name))
		if !ok || err != nil {
			t.Fatalf("%s: %v, %v", name, ok, err)
		}
		p := make([]byte, len(body)+1)
		n, err := l.ReadAt(e.Ino, p, 0)
		if string(p[:n]) != want || err != io.EOF {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if want != "" {
			n, err = l.ReadAt(e.Ino, p[:10], 500)
			if string(p[:n]) != want[500:510] || err != nil {
				t.Errorf("%s: %q, %v", name, p[:n], err)
			}
		}
	}
}

func TestStoreIsRefused(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(foreign, nil); !errors.Is(err, ErrNotStore) {
		t.Errorf("a directory with other files: %v, want ErrNotStore", err)
	}
	if _, err := Open(filepath.Join(foreign, "none"), &Options{ReadOnly: true}); !errors.Is(err, ErrNotStore) {
		t.Errorf("an absent store, read-only: %v, want ErrNotStore", err)
	}
	for text, want := range map[string]error{
		`{"version":2}`: ErrNewer,
		`{"version":1,"incompatible":["time-travel"]}`:         ErrNewer,
		`{"version":1,"read_only_compatible":["time-travel"]}`: ErrNewer,
		`{"version":1,"compatible":["time-travel"]}`:           nil,
		`nonsense`: ErrDamaged,
		`{}`:       ErrDamaged,
	} {
		s := newStore(t)
		if err := os.WriteFile(filepath.Join(s.root, "format"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(s.root, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
		if err := repairFormat(nil, s.root); err != nil { // the store is checked in the end
			t.Fatal(err)
		}
	}
	s := newStore(t)
	ro, err := Open(s.root, &Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ro.Load(t.Context(), image(t), nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("load into a read-only store: %v", err)
	}
}
