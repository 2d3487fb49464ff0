package layers

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// findText returns what Find finds, a line for each image.
func findText(t *testing.T, s *Store, o FindOptions) (string, error) {
	t.Helper()
	var out []string
	err := s.Find(t.Context(), &o, func(f *Found) error {
		for _, r := range f.Images {
			where := "own"
			if r.Store != "" {
				where = "theirs"
			}
			out = append(out, f.Path+" "+strings.TrimPrefix(strings.Join(r.Names, ","), "docker.io/library/")+" "+where)
		}
		return nil
	})
	slices.Sort(out)
	return strings.Join(out, "; "), err
}

// The answers are about the images of additional stores as about those of this one.
func TestAnswersOfAdditional(t *testing.T) {
	base, top := twoLayers(t)
	var theirs *Image
	s, root := withLower(t, func(low *Store) {
		theirs = load(t, low, image(t, base), "base:1")
		load(t, low, image(t, archive(t, file("x", "shadowed"))), "mine:1")
	})
	find := func(o FindOptions, want string) {
		t.Helper()
		if got, err := findText(t, s, o); err != nil || got != want {
			t.Errorf("%+v: got %q, %v; want %q", o, got, err, want)
		}
	}
	hello := digest.FromString("hello")
	find(FindOptions{Digest: hello}, "/a/b base:1 theirs")
	find(FindOptions{Digest: hello, Images: []string{"base:1"}}, "/a/b base:1 theirs")
	find(FindOptions{Name: "x", Images: []string{"mine:1"}}, "/x mine:1 theirs")

	img := load(t, s, image(t, base, top), "app:1")
	load(t, s, image(t, archive(t, file("m", "mine"))), "mine:1")
	find(FindOptions{Digest: hello}, "/a/b app:1 own; /a/b base:1 theirs; /d app:1 own")
	find(FindOptions{Name: "x"}, "/x  theirs") // its name is another image's here
	find(FindOptions{Name: "?", Types: "f", Images: []string{"mine:1"}}, "/m mine:1 own")
	if _, err := findText(t, s, FindOptions{Name: "x", Images: []string{"nope"}}); !errors.Is(err, ErrImageUnknown) {
		t.Errorf("got %v, want ErrImageUnknown", err)
	}
	if o, err := s.Which(t.Context(), "base:1", "a/b", nil); err != nil || o.Touches[0].Layer != theirs.Layers[0] {
		t.Errorf("got %+v, %v", o, err)
	}

	// The layer is borrowed: it takes no space here.
	u, err := s.DiskUsage(t.Context())
	must(t, err)
	if want := int64(len("hello") + len("top") + len("mine")); u.Total > want {
		t.Errorf("total %d, want at the most %d", u.Total, want)
	}
	i := slices.IndexFunc(u.Roots, func(l *LayerUsage) bool { return l.Layer == DiffID(img.Layers[0]) })
	if i < 0 || u.Roots[i].Store != root || u.Roots[i].Total != 0 || len(u.Roots[i].Children) != 1 || u.Roots[i].Children[0].Store != "" {
		t.Errorf("got %+v", u.Roots)
	}
	if len(u.Images) != 2 || len(u.Additional) != 1 {
		t.Fatalf("got %+v", u)
	}
	a := u.Additional[0]
	if a.Root != root || len(a.Images) != 2 || len(a.Layers) != 2 || a.Layers[0].Layer != DiffID(theirs.Layers[0]) || a.Total <= 500_000 ||
		a.Images[0].ID != theirs.ID || a.Images[0].Store != root || a.Layers[0].Images[0].ID != theirs.ID {
		t.Errorf("got %+v", a)
	}

	// Without the store what is left is searched, and the rest told of.
	must(t, os.Rename(root, root+".gone"))
	if got, err := findText(t, s, FindOptions{Types: "f"}); got != "/m mine:1 own" || !errors.Is(err, ErrStoreGone) {
		t.Errorf("got %q, %v; want ErrStoreGone", got, err)
	}
	if u, err := s.DiskUsage(t.Context()); err != nil || len(u.Additional) != 0 || len(u.Images) != 2 {
		t.Errorf("got %+v, %v", u, err)
	}
	if _, err := s.Why(t.Context(), string(hello)); err != nil {
		t.Error(err) // the hard link has made it a content of this store too
	}
	_, err = s.Why(t.Context(), string(digest.FromString("shadowed")))
	if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrStoreGone) {
		t.Errorf("got %v, want both", err)
	}
	must(t, os.Rename(root+".gone", root))
}

// Why says in which store something lies, and what keeps it there.
func TestWhyOfAdditional(t *testing.T) {
	base, top := twoLayers(t)
	var theirs *Image
	s, root := withLower(t, func(low *Store) {
		theirs = load(t, low, image(t, base), "base:1")
		_, err := low.CreateContainer(t.Context(), &ContainerOptions{Image: "base:1", Names: []string{"box"}})
		must(t, err)
	})
	large := digest.FromString(strings.Repeat("large", 100_000))
	why := func(what, thing string, images int) {
		t.Helper()
		w, err := s.Why(t.Context(), what)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		last := w.Images[len(w.Images)-1]
		if w.Thing != thing || len(w.Images) != images || last.ID != theirs.ID || last.Store != root || !w.Kept() {
			t.Errorf("%s: got %+v", what, w)
		}
		if w.Store != root {
			t.Errorf("%s: in store %q, want %s", what, w.Store, root)
		}
		if thing == ThingManifest {
			return
		}
		if len(w.Others) != 1 || !strings.HasPrefix(w.Others[0], "container box ") || !strings.HasSuffix(w.Others[0], " of "+root) {
			t.Errorf("%s: others %q", what, w.Others)
		}
	}
	blob := string(theirs.Manifests[0].Layers[0].Digest)
	manifest := string(theirs.Manifests[0].Descriptor.Digest)
	why("base:1", ThingImage, 1)
	why(string(theirs.Layers[0]), ThingLayer, 1)
	why(theirs.Layers[0].Encoded()[:12], ThingLayer, 1)
	why(blob, ThingBlob, 1)
	why(manifest, ThingManifest, 1)
	why(string(large), ThingContent, 1)

	img := load(t, s, image(t, base, top), "app:1") // stands on it
	for what, thing := range map[string]string{string(theirs.Layers[0]): ThingLayer, blob: ThingBlob, string(large): ThingContent} {
		why(what, thing, 2)
		if w, err := s.Why(t.Context(), what); err != nil || w.Images[0].ID != img.ID || w.Images[0].Store != "" {
			t.Errorf("%s: got %+v, %v; want the own image first", what, w, err)
		}
	}
	w, err := s.Why(t.Context(), string(img.Layers[1]))
	if err != nil || w.Store != "" || len(w.Images) != 1 {
		t.Errorf("got %+v, %v", w, err)
	}
	for _, what := range []string{"absent", string(digest.FromString("absent"))} {
		if _, err := s.Why(t.Context(), what); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %v", what, err)
		}
	}
}
