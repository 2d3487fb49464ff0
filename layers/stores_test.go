package layers

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/testenv"
)

var makeStore = flag.String("makestore", "", "write a store of the present format into testdata/stores/NAME.tar.gz")

func storesDir(t testing.TB) string {
	return filepath.Join(testenv.ModuleRoot(t), "testdata", "stores")
}

// oldLayers are the tars in every store of testdata/stores: they must not be changed.
func oldLayers(t testing.TB) (base, top []byte) {
	large := strings.Repeat("0123456789abcdef", 10_000)
	return archive(t, dir("etc/"), file("etc/hostname", "old\n"), file("large", large), symlink("link", "etc/hostname")),
		archive(t, file("etc/.wh.hostname", ""), link("again", "large"), file("top", "top\n"))
}

// TestMakeStore makes a store for testdata/stores, when it is asked to. Do so for each
// new format version, and never for an old one.
func TestMakeStore(t *testing.T) {
	if *makeStore == "" {
		t.Skip("only with -makestore")
	}
	s := newStore(t)
	base, top := oldLayers(t)
	img := load(t, s, image(t, base, top), "old:1", "old:2")
	must(t, s.SetMetadata(t.Context(), "old:1", "metadata of the image"))
	must(t, s.SetFlag(t.Context(), "old:1", "flag", "value"))
	_, err := s.SetBigData(t.Context(), "old:1", []byte("a/../key"), strings.NewReader("big data\n"))
	must(t, err)
	_, err = s.CreateLayerFrom(t.Context(), &CreateLayerOptions{Names: []string{"rec"}, Parent: string(Chain(img.DiffIDs()))}, strings.NewReader(string(top)), nil)
	must(t, err)
	_, err = s.CreateContainer(t.Context(), &ContainerOptions{Image: "old:1", Names: []string{"box"}, Labels: map[string]string{"k": "v"}})
	must(t, err)
	must(t, os.MkdirAll(storesDir(t), 0o755))
	writeTree(t, s.root, filepath.Join(storesDir(t), *makeStore+".tar.gz"))
}

func writeTree(t *testing.T, root, path string) {
	f, err := os.Create(path)
	must(t, err)
	z := gzip.NewWriter(f)
	w := tar.NewWriter(z)
	must(t, w.AddFS(os.DirFS(root)))
	must(t, errors.Join(w.Close(), z.Close(), f.Close()))
}

// TestOldStores opens every store that was ever written, checks and reads it, and goes
// on working with it.
func TestOldStores(t *testing.T) {
	stores, err := filepath.Glob(filepath.Join(storesDir(t), "*.tar.gz"))
	must(t, err)
	if len(stores) == 0 {
		t.Fatal("no store in testdata/stores")
	}
	for _, path := range stores {
		t.Run(filepath.Base(path), func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "store")
			readTree(t, path, root)
			ro, err := Open(root, &Options{ReadOnly: true})
			must(t, err)
			wantOld(t, ro)
			must(t, ro.Close())
			s, err := Open(root, nil)
			must(t, err)
			defer s.Close()
			wantOld(t, s)
			wantExact(t, s)
			base, top := oldLayers(t)
			before := onDisk(t, s)
			load(t, s, image(t, base), "new:1")
			if len(onDisk(t, s)) != len(before)+2 { // a config and a manifest
				t.Errorf("the layers of the old store are not used again:\n%v\n%v", before, onDisk(t, s))
			}
			load(t, s, image(t, top), "new:2")
			for _, name := range []string{"box", "rec", "old:1", "old:2", "new:1", "new:2"} {
				_, err := s.Delete(t.Context(), name)
				if err != nil && name != "old:2" { // it went with old:1
					t.Errorf("delete %s: %v", name, err)
				}
			}
			wantExact(t, s)
			for path := range onDisk(t, s) {
				t.Errorf("%s is left", path)
			}
		})
	}
}

func readTree(t *testing.T, path, root string) {
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	must(t, os.MkdirAll(root, 0o700))
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		must(t, err)
		to := filepath.Join(root, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			must(t, os.MkdirAll(to, 0o700))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(to), 0o700))
		raw, err := io.ReadAll(r)
		must(t, err)
		must(t, os.WriteFile(to, raw, 0o600))
	}
}

// wantOld checks that all that was put into an old store is there.
func wantOld(t *testing.T, s *Store) {
	t.Helper()
	wantClean(t, s)
	base, top := oldLayers(t)
	img, err := s.Image(t.Context(), "old:2")
	must(t, err)
	if img.Metadata != "metadata of the image" || img.Flags["flag"] != "value" || len(img.Names) != 2 {
		t.Errorf("got %+v", img)
	}
	for i, tar := range [][]byte{base, top} {
		want := digest.FromBytes(tar)
		if img.Layers[i] != want || tarDigest(t, s, DiffID(want)) != want {
			t.Errorf("layer %d: %s, which comes out as %s, want %s", i, img.Layers[i], tarDigest(t, s, DiffID(img.Layers[i])), want)
		}
	}
	_, r, err := s.BigData(t.Context(), "old:1", []byte("a/../key"))
	must(t, err)
	defer r.Close()
	if raw, err := io.ReadAll(r); string(raw) != "big data\n" || err != nil {
		t.Errorf("big data %q, %v", raw, err)
	}
	n, err := s.LayerNode(t.Context(), "rec")
	if err != nil || len(n.Layers) != 3 || n.Parent != digest.Digest(Chain(img.DiffIDs())).Encoded() {
		t.Errorf("got %+v, %v", n, err)
	}
	c, err := s.Container(t.Context(), "box")
	if err != nil || c.Image != img.ID || c.Labels["k"] != "v" {
		t.Errorf("got %+v, %v", c, err)
	}
	i, err := s.Info(t.Context())
	if err != nil || i.Images != 1 || i.Layers != 2 || i.Objects != 1 || i.ObjectBytes != 160_000 || i.Forms.Kept != 2 {
		t.Errorf("got %+v, %v", i, err)
	}
}

// TestNewerStores: what a newer layerfs has written is refused in a sentence that says
// what to do.
func TestNewerStores(t *testing.T) {
	for text, want := range map[string]string{
		`{"version": 2}`: "has format 2, but this layerfs knows only up to 1; use a newer layerfs",
		`{"version": 1, "incompatible": ["pack-v1", "pack-v9"]}`:                `needs the feature "pack-v9", which this layerfs does not know; use a newer layerfs`,
		`{"version": 1, "incompatible": [], "read_only_compatible": ["quota"]}`: `has the feature "quota", without which it can only be read; use a newer layerfs`,
	} {
		s := newStore(t)
		must(t, os.WriteFile(filepath.Join(s.root, "format"), []byte(text), 0o600))
		_, err := Open(s.root, nil)
		if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
		_, err = Open(s.root, &Options{ReadOnly: true})
		if readable := strings.Contains(text, "quota"); (err == nil) != readable {
			t.Errorf("%s: read-only: got %v", text, err)
		}
		must(t, repairFormat(nil, s.root)) // the store is checked in the end
	}
	if ErrNewer != index.ErrNewer {
		t.Error("the store and its index have different errors")
	}
}
