package layers

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/testenv"
)

// readBlob reads a layer blob out of the store.
func readBlob(t testing.TB, s *Store, desc ocispec.Descriptor) []byte {
	t.Helper()
	b, err := s.OpenLayerBlob(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	raw, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	if b.Size() != int64(len(raw)) {
		t.Errorf("%d bytes came out, but Size says %d", len(raw), b.Size())
	}
	return raw
}

// recompress gives the layers of an image another compressed form; the config, and
// with it the ID, stays.
func recompress(t testing.TB, src *memSource, level int) *memSource {
	t.Helper()
	var m ocispec.Manifest
	if err := unmarshal(src.Raw, &m); err != nil {
		t.Fatal(err)
	}
	out := &memSource{Blobs: map[digest.Digest][]byte{m.Config.Digest: src.Blobs[m.Config.Digest]}}
	for i, l := range m.Layers {
		r, err := gzip.NewReader(bytes.NewReader(src.Blobs[l.Digest]))
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		z, err := gzip.NewWriterLevel(&buf, level)
		if err != nil {
			t.Fatal(err)
		}
		z.Comment = "another form"
		if _, err := io.Copy(z, r); err != nil {
			t.Fatal(err)
		}
		z.Close()
		m.Layers[i] = ocispec.Descriptor{MediaType: l.MediaType, Digest: digest.FromBytes(buf.Bytes()), Size: int64(buf.Len())}
		out.Blobs[m.Layers[i].Digest] = buf.Bytes()
	}
	out.Raw = marshal(t, m)
	out.Desc = ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(out.Raw), Size: int64(len(out.Raw))}
	return out
}

func forms(t testing.TB, s *Store) map[digest.Digest]LayerForm {
	t.Helper()
	list, err := s.LayerForms(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[digest.Digest]LayerForm{}
	for _, f := range list {
		out[f.Digest] = f
	}
	return out
}

func TestBlobsAreKept(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, file("a", "hello"), file("b", strings.Repeat("large", 100_000))), archive(t, file("c", "top")))
	img := load(t, s, src, "x")
	for i, l := range img.Manifests[0].Layers {
		if got := readBlob(t, s, l); !bytes.Equal(got, src.Blobs[l.Digest]) {
			t.Errorf("blob %d differs from what came in", i)
		}
		if f := forms(t, s)[l.Digest]; f.How != "kept" || f.Size != l.Size || f.Layer != img.DiffIDs()[i] {
			t.Errorf("form %d: %+v", i, f)
		}
		plain := ocispec.Descriptor{Digest: img.Layers[i]}
		if got := digest.FromBytes(readBlob(t, s, plain)); got != img.Layers[i] {
			t.Errorf("the uncompressed layer comes out as %s", got)
		}
	}
	if _, err := s.OpenLayerBlob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("absent")}); !errors.Is(err, ErrLayerUnknown) {
		t.Errorf("an unknown blob: %v", err)
	}
	if _, err := s.OpenLayerBlob(t.Context(), ocispec.Descriptor{Digest: img.Manifests[0].Layers[0].Digest, Size: 7}); !errors.Is(err, ErrVerification) {
		t.Errorf("a wrong size: %v", err)
	}
}

func TestSecondFormIsAdded(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, file("a", strings.Repeat("hello", 1000))))
	img := load(t, s, src, "x")
	other := recompress(t, src, 1)
	both := load(t, s, other, "x")
	if both.ID != img.ID || len(both.Manifests) != 2 {
		t.Fatalf("got %+v", both)
	}
	for i, from := range []*memSource{src, other} {
		l := both.Manifests[i].Layers[0]
		if got := readBlob(t, s, l); !bytes.Equal(got, from.Blobs[l.Digest]) {
			t.Errorf("form %d differs from what came in", i)
		}
	}
	before := listing(t, s.root)
	load(t, s, src, "x")
	load(t, s, other, "x")
	if after := listing(t, s.root); !slices.Equal(before, after) {
		t.Errorf("loading again changed files:\n%s\n%s", before, after)
	}
	if _, err := s.Remove(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	if left := forms(t, s); len(left) != 0 {
		t.Errorf("forms without a layer: %v", left)
	}
}

// TestWrongFormIsRefused loads a manifest that says of a blob that it is a layer
// which the store has, and it is not.
func TestWrongFormIsRefused(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, file("a", "truth")))
	load(t, s, src, "x")
	before := listing(t, s.root)
	lie := recompress(t, src, 1)
	var m ocispec.Manifest
	if err := unmarshal(lie.Raw, &m); err != nil {
		t.Fatal(err)
	}
	other := image(t, archive(t, file("a", "a lie")))
	var om ocispec.Manifest
	if err := unmarshal(other.Raw, &om); err != nil {
		t.Fatal(err)
	}
	m.Layers = om.Layers
	lie.Raw = marshal(t, m)
	lie.Desc.Digest, lie.Desc.Size = digest.FromBytes(lie.Raw), int64(len(lie.Raw))
	lie.Blobs[om.Layers[0].Digest] = other.Blobs[om.Layers[0].Digest]
	if _, err := s.Load(t.Context(), lie, nil); !errors.Is(err, ErrVerification) {
		t.Errorf("got %v, want ErrVerification", err)
	}
	if after := listing(t, s.root); !slices.Equal(before, after) {
		t.Errorf("the failed load changed files:\n%s\n%s", before, after)
	}
}

func TestDropBlobs(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, file("a", "hello")))
	img, err := s.Load(t.Context(), src, &LoadOptions{Names: []string{"x"}, DropBlobs: true})
	if err != nil {
		t.Fatal(err)
	}
	l := img.Manifests[0].Layers[0]
	if _, err := s.OpenLayerBlob(t.Context(), l); !errors.Is(err, ErrBlobGone) {
		t.Errorf("got %v, want ErrBlobGone", err)
	}
	load(t, s, src, "x") // and now it is wanted
	if got := readBlob(t, s, l); !bytes.Equal(got, src.Blobs[l.Digest]) {
		t.Error("the blob that came later differs")
	}
	if _, err := s.Load(t.Context(), src, &LoadOptions{DropBlobs: true}); err != nil {
		t.Fatal(err)
	}
	readBlob(t, s, l) // a blob that is there is not dropped
}

// TestDamagedBlob changes a kept blob on the disk: nobody gets wrong bytes without
// an error, check says so, and loading it again repairs it.
func TestDamagedBlob(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, file("a", strings.Repeat("hello", 1000))))
	img := load(t, s, src, "x")
	l := img.Manifests[0].Layers[0]
	path := filepath.Join(s.root, "blobs", "sha256", l.Digest.Encoded()[:2], l.Digest.Encoded())
	for name, damage := range map[string]func(raw []byte) []byte{
		"flipped": func(raw []byte) []byte { raw[len(raw)/2] ^= 1; return raw },
		"short":   func(raw []byte) []byte { return raw[:len(raw)-1] },
		"long":    func(raw []byte) []byte { return append(raw, 0) },
	} {
		raw := damage(bytes.Clone(src.Blobs[l.Digest]))
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := s.OpenLayerBlob(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: read with %v, want ErrDamaged", name, err)
		}
		b.Close()
		r, err := s.Check(t.Context(), nil)
		if err != nil || len(r.Problems) != 1 || len(r.Problems[0].Images) != 1 || r.Problems[0].Images[0].ID != img.ID {
			t.Errorf("%s: check found %+v, %v", name, r, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenLayerBlob(t.Context(), l); !errors.Is(err, ErrDamaged) {
		t.Errorf("a missing blob: %v, want ErrDamaged", err)
	}
	if r, err := s.Check(t.Context(), &CheckOptions{Fast: true}); err != nil || len(r.Problems) != 1 {
		t.Errorf("fast check found %+v, %v", r, err)
	}
	load(t, s, src, "x")
	readBlob(t, s, l)
}

// TestOrphansAreCollected leaves what a killed load leaves: blobs without a form,
// and forms without a layer.
func TestOrphansAreCollected(t *testing.T) {
	s := newStore(t)
	img := load(t, s, image(t, archive(t, file("a", "hello"))), "x")
	before := listing(t, s.root)
	orphan := filepath.Join(s.root, "blobs", "sha256", "00", strings.Repeat("0", 64))
	correction := filepath.Join(s.root, "blobs", "corrections", "00", strings.Repeat("0", 64))
	for _, p := range []string{orphan, correction} {
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("orphan"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := s.index.Update(t.Context(), "test", func(tx *index.Tx) error {
		return tx.PutForm(index.Sum{}, index.Form{Layer: index.Sum{1}, Size: 6, How: index.FormKept})
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.GC(t.Context(), false)
	if err != nil || c.Blobs != 2 {
		t.Errorf("got %+v, %v; want two blobs", c, err)
	}
	after := slices.DeleteFunc(listing(t, s.root), func(p string) bool { return strings.HasPrefix(p, "/blobs/corrections") })
	if !slices.Equal(withoutShards(before), withoutShards(after)) {
		t.Errorf("something is left:\n%s\n%s", before, after)
	}
	if len(forms(t, s)) != 1 {
		t.Errorf("forms: %v", forms(t, s))
	}
	readBlob(t, s, img.Manifests[0].Layers[0])
}

func TestRealBlobsComeOutBitForBit(t *testing.T) {
	shared := testenv.Shared(t)
	s := newStore(t)
	for _, src := range layout(t, filepath.Join(shared, "images", "alpine.zstd3.oci")) {
		img := load(t, s, src)
		for _, l := range img.Manifests[0].Layers {
			want, err := os.ReadFile(src.path(l.Digest))
			if err != nil {
				t.Fatal(err)
			}
			if got := readBlob(t, s, l); !bytes.Equal(got, want) {
				t.Errorf("blob %s differs", l.Digest)
			}
		}
	}
}
