package layers

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// answersStore holds an image with everything that can happen to a path.
func answersStore(t *testing.T) *Store {
	s := newStore(t)
	load(t, s, image(t,
		archive(t, dir("usr/"), dir("usr/bin/"), symlink("bin", "usr/bin"), file("usr/bin/sh", "shell"), symlink("usr/bin/loop", "loop"),
			dir("etc/"), file("etc/a", "one"), file("etc/b", "two"), dir("var/"), file("var/log", "log"), file("solid", "x"),
			dir("deep/"), dir("deep/er/"), file("deep/er/file", "f")),
		archive(t, file("etc/a", "one changed"), file("etc/.wh.b", ""), link("usr/bin/ash", "usr/bin/sh"), file("implied/new", "n")),
		archive(t, file("deep/.wh..wh..opq", ""), file(".wh.var", ""), dir("solid/"), file("solid/in", "y")),
	), "app:1")
	return s
}

func TestWhich(t *testing.T) {
	s := answersStore(t)
	for _, c := range []struct{ path, want string }{
		{"/etc/a", "/etc/a true: 2 changed; 1 added"},
		{"etc/a", "/etc/a true: 2 changed; 1 added"},
		{"//etc/.//a/", "/etc/a true: 2 changed; 1 added"},
		{"etc/x/../a", "none: not exist"}, // x is not there: as in a container
		{"etc/b", "/etc/b false: 2 deleted (whiteout of /etc/b); 1 added"},
		{"bin/sh", "/usr/bin/sh true: 1 added"},
		{"bin/ash", "/usr/bin/ash true: 2 added (hard link to /usr/bin/sh of a lower layer)"},
		{"var/log", "/var/log false: 3 deleted (whiteout of /var); 1 added"},
		{"deep/er/file", "/deep/er/file false: 3 deleted (opaque directory /deep); 1 added"},
		{"solid", "/solid true: 3 changed; 1 added"},
		{"solid/in", "/solid/in true: 3 added"},
		{"implied", "/implied true: 2 added (a directory without an entry of its own)"},
		{"etc", "/etc true: 1 added"},
		{"bin/loop", "none: not exist"},
		{"absent", "none: not exist"},
	} {
		got := whichText(t, s, c.path, nil)
		if got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.path, got, c.want)
		}
	}
	if got, want := whichText(t, s, "bin", &WhichOptions{NoFollow: true}), "/bin true: 1 added"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := s.Which(t.Context(), "absent", "x", nil); !errors.Is(err, ErrImageUnknown) {
		t.Errorf("got %v", err)
	}
}

func whichText(t *testing.T, s *Store, path string, o *WhichOptions) string {
	t.Helper()
	r, err := s.Which(t.Context(), "app:1", path, o)
	if errors.Is(err, fs.ErrNotExist) {
		return "none: not exist"
	}
	if err != nil {
		t.Fatal(err)
	}
	var touches []string
	for _, x := range r.Touches {
		text := fmt.Sprintf("%d %s", x.Index, x.Action)
		if x.Note != "" {
			text += " (" + x.Note + ")"
		}
		touches = append(touches, text)
	}
	return fmt.Sprintf("%s %v: %s", r.Path, r.Exists, strings.Join(touches, "; "))
}

func TestFind(t *testing.T) {
	s := answersStore(t)
	load(t, s, image(t, archive(t, file("copy", "one"), file("empty", ""))), "other:1")
	find := func(o FindOptions) string {
		t.Helper()
		var out []string
		err := s.Find(t.Context(), &o, func(f *Found) error {
			for _, r := range f.Images {
				out = append(out, f.Path+" "+f.Kind+" "+r.Names[0])
			}
			for _, r := range f.HiddenIn {
				out = append(out, f.Path+" "+f.Kind+" hidden in "+r.Names[0])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(out)
		return strings.Join(out, "; ")
	}
	one := digest.FromString("one")
	for _, c := range []struct {
		o    FindOptions
		want string
	}{
		{FindOptions{Digest: one}, "/copy f docker.io/library/other:1"},
		{FindOptions{Digest: one, Hidden: true}, "/copy f docker.io/library/other:1; /etc/a f hidden in docker.io/library/app:1"},
		{FindOptions{Digest: one, Images: []string{"app:1"}}, ""},
		{FindOptions{Digest: digest.FromString("shell")}, "/usr/bin/ash f docker.io/library/app:1; /usr/bin/sh f docker.io/library/app:1"},
		{FindOptions{Digest: digest.FromString("")}, "/empty f docker.io/library/other:1"},
		{FindOptions{Name: "*sh"}, "/usr/bin/ash f docker.io/library/app:1; /usr/bin/sh f docker.io/library/app:1"},
		{FindOptions{Name: "/etc/*"}, "/etc/a f docker.io/library/app:1"},
		{FindOptions{Name: "*", Types: "l"}, "/bin l docker.io/library/app:1; /usr/bin/loop l docker.io/library/app:1"},
		{FindOptions{Types: "d", Images: []string{"app:1"}}, "/deep d docker.io/library/app:1; /etc d docker.io/library/app:1; " +
			"/solid d docker.io/library/app:1; /usr d docker.io/library/app:1; /usr/bin d docker.io/library/app:1"},
	} {
		if got := find(c.o); got != c.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", c.o, got, c.want)
		}
	}
	for _, bad := range []FindOptions{{Name: "["}, {Types: "x"}, {Digest: "sha256:12"}} {
		if err := s.Find(t.Context(), &bad, nil); !errors.Is(err, ErrInvalidName) {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
	stop := errors.New("stop")
	if err := s.Find(t.Context(), &FindOptions{Types: "f"}, func(*Found) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestDiffImages(t *testing.T) {
	s := newStore(t)
	base := archive(t, dir("etc/"), file("etc/a", "one"), file("etc/b", "two"), dir("same/"), file("same/x", "x"),
		dir("gone/"), file("gone/x", "x"), file("becomes", "f"), symlink("l", "a"), file("h1", "h"), link("h2", "h1"))
	mode := file("etc/b", "two")
	mode.Mode, mode.Uid = 0o600, 7
	load(t, s, image(t, base), "a")
	load(t, s, image(t, base, archive(t, file("etc/a", "won"), mode, file(".wh.gone", ""), dir("becomes/"), file("becomes/y", "y"),
		symlink("l", "b"), file("new", "n"), file("h2", "h"))), "b")
	load(t, s, image(t), "empty")
	diff := func(a, b string) string {
		t.Helper()
		var out []string
		err := s.DiffImages(t.Context(), a, b, func(c *ImageChange) error {
			text := strings.ToUpper(c.Kind[:1]) + " " + c.Path
			if len(c.What) > 0 {
				text += " " + strings.Join(c.What, ",")
			}
			if (c.From == nil) != (c.Kind == ActionAdded) || (c.To == nil) != (c.Kind == ActionDeleted) {
				t.Errorf("%s: from %v to %v", text, c.From, c.To)
			}
			out = append(out, text)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(out, "; ")
	}
	for _, c := range [][3]string{
		{"a", "b", "C /becomes kind; A /becomes/y; C /etc/a content; C /etc/b mode,owner; D /gone; C /h2 links; C /l target; A /new"},
		{"b", "a", "C /becomes kind; C /etc/a content; C /etc/b mode,owner; A /gone; A /gone/x; C /h2 links; C /l target; D /new"},
		{"a", "a", ""},
		{"empty", "a", "A /becomes; A /etc; A /etc/a; A /etc/b; A /gone; A /gone/x; A /h1; A /h2; A /l; A /same; A /same/x"},
		{"a", "empty", "D /becomes; D /etc; D /gone; D /h1; D /h2; D /l; D /same"},
		{"empty", "empty", ""},
	} {
		if got := diff(c[0], c[1]); got != c[2] {
			t.Errorf("%s %s:\ngot  %s\nwant %s", c[0], c[1], got, c[2])
		}
	}
}

func TestWhy(t *testing.T) {
	s := answersStore(t)
	img, err := s.Image(t.Context(), "app:1")
	if err != nil {
		t.Fatal(err)
	}
	for what, thing := range map[string]string{
		"app:1":                      ThingImage,
		string(img.ID):               ThingImage,
		img.ID.Encoded()[:10]:        ThingImage,
		string(img.Layers[0]):        ThingLayer,
		img.Layers[2].Encoded()[:12]: ThingLayer,

		string(img.Manifests[0].Layers[0].Digest):  ThingBlob,
		string(img.Manifests[0].Descriptor.Digest): ThingManifest,
		string(digest.FromString("shell")):         ThingContent,
		digest.FromString("shell").Encoded():       ThingContent,
	} {
		w, err := s.Why(t.Context(), what)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if w.Thing != thing || len(w.Images) != 1 || w.Images[0].ID != img.ID || len(w.Images[0].Names) != 1 || !w.Kept() {
			t.Errorf("%s: got %+v, want %s", what, w, thing)
		}
		if thing == ThingContent && (len(w.Layers) != 2 || w.Layers[0].Paths == nil && w.Layers[1].Paths == nil) {
			t.Errorf("%s: got %+v", what, w.Layers)
		}
	}
	for _, what := range []string{"absent", "1234567", string(digest.FromString("absent")), ""} {
		if _, err := s.Why(t.Context(), what); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %v", what, err)
		}
	}
	if _, err := s.CreateContainer(t.Context(), &ContainerOptions{Image: "app:1", Names: []string{"box"}}); err != nil {
		t.Fatal(err)
	}
	lease, err := s.NewLease(t.Context(), "building")
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	if _, err := lease.RetainLayer(t.Context(), string(img.Layers[1])); err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]int{"app:1": 1, string(img.Layers[0]): 1, string(img.Layers[1]): 2, string(digest.FromString("f")): 1} {
		w, err := s.Why(t.Context(), what)
		if err != nil || len(w.Others) != want || !strings.HasPrefix(w.Others[0], "container box ") {
			t.Errorf("%s: got %+v, %v, want %d other reasons", what, w, err, want)
		}
	}
	raw := []byte("nobody's")
	if _, err := s.blobs.PutBlob(raw); err != nil {
		t.Fatal(err)
	}
	if w, err := s.Why(t.Context(), string(digest.FromBytes(raw))); err != nil || w.Thing != ThingUnused || w.Kept() {
		t.Errorf("got %+v, %v", w, err)
	}
}

func TestDiskUsage(t *testing.T) {
	s := newStore(t)
	base := archive(t, file("base", strings.Repeat("b", 1000)), file("common", strings.Repeat("c", 100)))
	load(t, s, image(t, base), "base")
	load(t, s, image(t, base, archive(t, file("one", strings.Repeat("1", 10)), file("again", strings.Repeat("c", 100)))), "one")
	load(t, s, image(t, base, archive(t, file("two", strings.Repeat("2", 20)))), "two")
	u, err := s.DiskUsage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if u.Total != 1130 {
		t.Errorf("total %d, want 1130", u.Total)
	}
	if len(u.Roots) != 1 || len(u.Roots[0].Children) != 2 || u.Roots[0].Images[0].Names[0] != "docker.io/library/base:latest" {
		t.Fatalf("got %+v", u.Roots)
	}
	root := u.Roots[0]
	if root.Shared != 100 || root.Total-root.Unique != 100 || root.Unique < 1000 {
		t.Errorf("got %+v", root)
	}
	one := root.Children[slices.IndexFunc(root.Children, func(l *LayerUsage) bool { return strings.Contains(l.Images[0].Names[0], "one") })]
	if one.Shared != 100 || one.Stack != root.Total+one.Total {
		t.Errorf("got %+v", one)
	}
	for _, img := range u.Images {
		if strings.Contains(img.Names[0], "base") && img.Unique != 0 || img.Total != img.Shared+img.Unique {
			t.Errorf("got %+v", img)
		}
	}
}

// TestHistory gives each layer a step, also when there are more than entries.
func TestHistory(t *testing.T) {
	s := newStore(t)
	img := load(t, s, image(t, archive(t, file("a", "1")), archive(t, file("b", "2"))), "x")
	steps, err := s.History(img)
	if err != nil || len(steps) != 2 || steps[1].Layer != img.Layers[1] {
		t.Errorf("got %+v, %v", steps, err)
	}
}
