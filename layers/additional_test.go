package layers

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// withLower returns a store with an additional one, which is loaded by fill and then
// made read-only. What fill leaves must be untouched at the end of the test.
func withLower(t *testing.T, fill func(s *Store)) (s *Store, root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "lower")
	low, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	fill(low)
	low.Close()
	os.Remove(filepath.Join(root, "index.db.lock")) // as on a copy made without it
	os.Remove(filepath.Join(root, "import.lock"))
	before := fingerprint(t, root)
	t.Cleanup(func() {
		if after := fingerprint(t, root); !slices.Equal(before, after) {
			t.Errorf("the additional store was changed:\n%s\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
	})
	s, err = Open(filepath.Join(t.TempDir(), "own"), &Options{Timeout: 10 * time.Second, Additional: []string{root}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		wantClean(t, s)
		s.Close()
	})
	return s, root
}

// fingerprint describes every file of a directory, times included.
func fingerprint(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			out = append(out, strings.Join([]string{path, info.Mode().String(), info.ModTime().String()}, " "))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func twoLayers(t testing.TB) (base, top []byte) {
	return archive(t, dir("a/"), file("a/b", "hello"), file("a/c", strings.Repeat("large", 100_000))), archive(t, link("d", "a/b"), file("e", "top"))
}

// Everything that reads works on the images of an additional store.
func TestAdditionalIsRead(t *testing.T) {
	base, top := twoLayers(t)
	var want *Image
	s, root := withLower(t, func(low *Store) { want = load(t, low, image(t, base, top), "app:1") })
	for _, name := range []string{"app:1", string(want.ID), want.ID.Encoded()[:12]} {
		img, err := s.Image(t.Context(), name)
		if err != nil || img.ID != want.ID || img.Store != root || !img.ReadOnly() {
			t.Fatalf("%s: got %+v, %v", name, img, err)
		}
	}
	list, err := s.Images(t.Context())
	if err != nil || len(list) != 1 || !list[0].ReadOnly() || list[0].Size != want.Size {
		t.Errorf("got %+v, %v", list, err)
	}
	all, err := s.Layers(t.Context())
	if err != nil || len(all) != 2 || all[0].Store != root {
		t.Errorf("got %+v, %v", all, err)
	}
	l, err := s.Layer(t.Context(), want.Layers[0].Encoded()[:12])
	if err != nil || l.DiffID != want.Layers[0] || l.Store != root || len(l.Images) != 1 {
		t.Errorf("got %+v, %v", l, err)
	}
	for _, d := range want.DiffIDs() {
		if got := tarDigest(t, s, d); got != digest.Digest(d) {
			t.Errorf("layer %s comes out as %s", d, got)
		}
	}
	if raw, err := s.Blob(want.ID); err != nil || digest.FromBytes(raw) != want.ID {
		t.Errorf("config: %s, %v", raw, err)
	}
	if _, err := s.Image(t.Context(), "nope"); !errors.Is(err, ErrImageUnknown) {
		t.Errorf("got %v, want ErrImageUnknown", err)
	}
	info := s.Additional(t.Context())
	if len(info) != 1 || info[0].Images != 1 || info[0].Layers != 2 || info[0].Error != "" {
		t.Errorf("got %+v", info)
	}
}

// Nothing changes an image of an additional store.
func TestAdditionalIsNotChanged(t *testing.T) {
	base, _ := twoLayers(t)
	s, root := withLower(t, func(low *Store) { load(t, low, image(t, base), "app:1") })
	_, untag := s.Untag(t.Context(), "app:1")
	_, remove := s.Remove(t.Context(), "app:1", nil)
	_, dry := s.Remove(t.Context(), "app:1", &RemoveOptions{DryRun: true})
	for what, err := range map[string]error{"untag": untag, "rmi": remove, "rmi --dry-run": dry} {
		if !errors.Is(err, ErrReadOnly) || !strings.Contains(err.Error(), root) {
			t.Errorf("%s: got %v, want ErrReadOnly with the store", what, err)
		}
	}
	if _, err := s.Remove(t.Context(), "nope", nil); !errors.Is(err, ErrImageUnknown) {
		t.Errorf("got %v, want ErrImageUnknown", err)
	}
	if _, err := s.GC(t.Context(), false); err != nil {
		t.Error(err)
	}
	if _, err := s.Image(t.Context(), "app:1"); err != nil {
		t.Error(err)
	}
}

// An image whose layers an additional store has is loaded without them, lives on
// them, and leaves nothing when it goes.
func TestLoadOnAdditional(t *testing.T) {
	base, top := twoLayers(t)
	s, root := withLower(t, func(low *Store) { load(t, low, image(t, base), "base:1") })
	src := image(t, base, top) // the hard link in top leads into base
	for d := range src.Blobs {
		if d == diffBlob(t, src, 0) {
			delete(src.Blobs, d) // nobody must ask for it
		}
	}
	img := load(t, s, src, "app:1")
	if img.ReadOnly() || img.Size == 0 {
		t.Errorf("got %+v", img)
	}
	if objects, _ := filepath.Glob(s.root + "/objects/*/*"); len(objects) != 0 {
		t.Errorf("the large file of the base was stored again: %v", objects)
	}
	for _, d := range img.DiffIDs() {
		if got := tarDigest(t, s, d); got != digest.Digest(d) {
			t.Errorf("layer %s comes out as %s", d, got)
		}
	}
	if _, err := s.GC(t.Context(), false); err != nil {
		t.Error(err)
	}
	wantClean(t, s)
	list, err := s.Images(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("got %+v, %v; want both images", list, err)
	}

	// Without the additional store there is a clear error, and all else works.
	gone := root + ".gone"
	if err := os.Rename(root, gone); err != nil {
		t.Fatal(err)
	}
	_, err = s.OpenLayer(img.DiffIDs()[0])
	if !errors.Is(err, ErrStoreGone) || !strings.Contains(err.Error(), root) {
		t.Errorf("got %v, want ErrStoreGone with the path", err)
	}
	if l, err := s.OpenLayer(img.DiffIDs()[1]); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
	if _, err := s.Image(t.Context(), "base:1"); !errors.Is(err, ErrImageUnknown) || !strings.Contains(err.Error(), "not searched") {
		t.Errorf("got %v, want ErrImageUnknown that tells of the store", err)
	}
	if list, err := s.Images(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	// Loading the image again, whole, makes it independent.
	load(t, s, image(t, base, top), "app:1")
	if got := tarDigest(t, s, img.DiffIDs()[0]); got != img.Layers[0] {
		t.Errorf("comes out as %s", got)
	}
	wantClean(t, s)
	if err := os.Rename(gone, root); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Image(t.Context(), "base:1"); err != nil {
		t.Errorf("the store is back: %v", err)
	}
	if _, err := s.Remove(t.Context(), "app:1", nil); err != nil {
		t.Error(err)
	}
	if layers, _ := filepath.Glob(s.root + "/layers/*"); len(layers) != 0 {
		t.Errorf("left: %v", layers)
	}
}

// diffBlob returns the digest of the blob of layer i.
func diffBlob(t testing.TB, src *memSource, i int) digest.Digest {
	t.Helper()
	m, err := parseManifest(src.Raw, src.Desc)
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers[i].Digest
}

// A name in the own store for an image of another one: the image becomes ours, its
// content stays there.
func TestTagAdopts(t *testing.T) {
	base, top := twoLayers(t)
	var want *Image
	s, _ := withLower(t, func(low *Store) { want = load(t, low, image(t, base, top), "app:1") })
	if err := s.Tag(t.Context(), "app:1", "mine:1"); err != nil {
		t.Fatal(err)
	}
	img, err := s.Image(t.Context(), "mine:1")
	if err != nil || img.ID != want.ID || img.ReadOnly() {
		t.Fatalf("got %+v, %v", img, err)
	}
	if layers, _ := filepath.Glob(s.root + "/layers/*"); len(layers) != 0 {
		t.Errorf("copied: %v", layers)
	}
	list, err := s.Images(t.Context())
	if err != nil || len(list) != 1 || len(list[0].Names) != 2 {
		t.Errorf("got %+v, %v; want one image with both names", list, err)
	}
	c, err := s.Catalogue(t.Context())
	if err != nil || len(c.Images) != 1 || len(c.Names) != 2 || len(c.Layers) != 2 || c.Names[0].Image != c.Names[1].Image {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := s.Remove(t.Context(), "mine:1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Image(t.Context(), "app:1"); err != nil {
		t.Error(err)
	}
}

// The catalogue shows all, the own first, with slots that nobody else has.
func TestCatalogueWithAdditional(t *testing.T) {
	base, top := twoLayers(t)
	s, root := withLower(t, func(low *Store) {
		load(t, low, image(t, base), "shared:1")
		load(t, low, image(t, base, top), "theirs:1")
	})
	first, err := s.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	load(t, s, image(t, archive(t, file("m", "mine")), base), "mine:1")
	load(t, s, image(t, archive(t, file("x", "y"))), "shared:1")
	c, err := s.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c.Generation == first {
		t.Error("a load has not changed the generation")
	}
	if n, _ := s.Generation(t.Context()); n != c.Generation {
		t.Errorf("Generation says %d, the catalogue %d", n, c.Generation)
	}
	if len(c.Images) != 4 || len(c.Names) != 3 || len(c.Layers) != 4 {
		t.Errorf("got %d images, %d names, %d layers; want 4, 3, 4", len(c.Images), len(c.Names), len(c.Layers))
	}
	slots, views := map[uint32]bool{}, map[uint32]bool{}
	for i, l := range c.Layers {
		slots[l.Slot] = true
		if i > 0 && c.Layers[i-1].DiffID >= l.DiffID {
			t.Error("layers are not sorted")
		}
	}
	for _, n := range c.Names {
		views[n.Slot] = true
		img, err := s.Image(t.Context(), n.Name)
		if err != nil || img.ID != c.Images[n.Image].ID {
			t.Errorf("%s: the catalogue has %s, look-up %v, %v", n.Name, c.Images[n.Image].ID, img, err)
			continue
		}
		for i, d := range img.DiffIDs() {
			if got := c.Layers[c.Images[n.Image].Layers[i]].DiffID; got != d {
				t.Errorf("%s: layer %d is %s, want %s", n.Name, i, got, d)
			}
		}
	}
	for _, img := range c.Images {
		views[img.Slot] = true
	}
	if len(slots) != 4 || len(views) != 7 {
		t.Errorf("%d slots of layers, %d of views; want 4 and 7", len(slots), len(views))
	}
	again, _ := Open(s.root, &Options{Additional: []string{root}, ReadOnly: true})
	defer again.Close()
	c2, err := again.Catalogue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Names {
		if c.Names[i].Slot != c2.Names[i].Slot {
			t.Error("another process gives other slots")
		}
	}
}

func TestSlotBook(t *testing.T) {
	var b slotBook
	seen := map[uint32]bool{}
	for i := range 20_000 {
		slot := b.view(digest.FromString(string(rune(i))).String())
		if seen[slot] || slot <= index.MaxSlot || slot >= 1<<26 {
			t.Fatalf("slot %d", slot)
		}
		seen[slot] = true
	}
}

// A watcher hears of changes of additional stores, of their going and coming.
func TestWatchAdditional(t *testing.T) {
	root := filepath.Join(t.TempDir(), "lower")
	s, err := Open(filepath.Join(t.TempDir(), "own"), &Options{Additional: []string{root}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if gone := s.Gone(); len(gone) != 1 || !errors.Is(gone[0], ErrStoreGone) {
		t.Errorf("got %v, want ErrStoreGone", gone)
	}
	changed := make(chan struct{}, 100)
	go s.Watch(t.Context(), func() { changed <- struct{}{} })
	<-changed
	generation, _ := s.Generation(t.Context())
	hears := func(what string) {
		t.Helper()
		for {
			select {
			case <-changed:
			case <-time.After(5 * time.Second):
				t.Fatalf("nobody heard of: %s", what)
			}
			if now, _ := s.Generation(t.Context()); now != generation {
				generation = now
				return
			}
		}
	}
	low, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer low.Close()
	hears("the store has come")
	base, _ := twoLayers(t)
	load(t, low, image(t, base), "app:1")
	hears("a load")
	if _, err := s.Image(t.Context(), "app:1"); err != nil {
		t.Error(err)
	}
	if err := os.Rename(root, root+".gone"); err != nil {
		t.Fatal(err)
	}
	hears("the store has gone")
}

// The store itself, and what is no store, are refused with a reason.
func TestAdditionalThatIsNone(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "own")
	s, err := Open(own, &Options{Additional: []string{own, dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	broken := filepath.Join(dir, "broken")
	low, err := Open(broken, nil)
	if err != nil {
		t.Fatal(err)
	}
	base, _ := twoLayers(t)
	load(t, low, image(t, base), "base:1")
	low.Close()
	if err := os.WriteFile(filepath.Join(broken, "index.db"), bytes.Repeat([]byte("no index "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := Open(own, &Options{Additional: []string{broken}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if gone := other.Gone(); len(gone) != 1 || !errors.Is(gone[0], ErrStoreGone) || !errors.Is(gone[0], index.ErrDamaged) {
		t.Errorf("got %v, want ErrStoreGone with the damage", gone)
	}
	if list, err := other.Images(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v; want the own images alone", list, err)
	}
	load(t, other, image(t, base), "mine:1")
	gone := s.Gone()
	if len(gone) != 2 || !strings.Contains(gone[0].Error(), "the store itself") || !strings.Contains(gone[1].Error(), "there is no store") {
		t.Errorf("got %v", gone)
	}
}
