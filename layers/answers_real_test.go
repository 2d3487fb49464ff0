package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
	"github.com/layerfs/layerfs/layers/union"
)

// realStore holds the real images under their short names.
func realStore(t *testing.T, names ...string) *layers.Store {
	t.Helper()
	images := filepath.Join(testenv.Shared(t), "images")
	s, err := layers.Open(filepath.Join(t.TempDir(), "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for _, name := range names {
		loadReal(t, s, filepath.Join(images, name+".oci.tar"), name)
	}
	return s
}

func loadReal(t *testing.T, s *layers.Store, path, name string) *layers.Image {
	t.Helper()
	a, err := archive.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	img, err := s.Load(t.Context(), a.Images()[0].Source, &layers.LoadOptions{Names: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// A seen is what a walk through an image sees of a file, told in another way than
// the answers tell it.
type seen struct {
	kind  tree.Kind
	text  string
	layer layers.DiffID
}

func walkImage(t *testing.T, s *layers.Store, name string) map[string]seen {
	t.Helper()
	img, err := s.Image(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var trees []*tree.Tree
	for _, d := range img.DiffIDs() {
		l, err := s.OpenLayer(d)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		trees = append(trees, l.Tree())
	}
	stack, out := union.New(trees), map[string]seen{}
	err = stack.Walk(func(path []byte, n union.Node) error {
		a, err := stack.Attr(n)
		if err != nil {
			return err
		}
		text := fmt.Sprint(a.Kind, a.Mode, a.UID, a.GID, a.MtimeSec, a.MtimeNsec, a.Size, a.Major, a.Minor)
		if n.Kind != tree.KindDirectory {
			text += fmt.Sprint(" links ", a.Nlink)
		}
		if n.Kind == tree.KindRegular {
			b, _, err := trees[n.Layer].Body(n.Ino)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", b.Sum)
		}
		if n.Kind == tree.KindSymlink {
			target, err := trees[n.Layer].Symlink(n.Ino)
			if err != nil {
				return err
			}
			text += " -> " + string(target)
		}
		err = stack.EachXattr(n, func(name, value []byte) bool { text += fmt.Sprintf(" %s=%x", name, value); return true })
		out["/"+string(path)] = seen{n.Kind, text, img.DiffIDs()[n.Layer]}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAnswersOfRealImages compares the answers with those that a walk gives.
func TestAnswersOfRealImages(t *testing.T) {
	names := []string{"alpine", "mini-debian", "tiny-busybox"}
	s := realStore(t, names...)
	walked := map[string]map[string]seen{}
	for _, name := range names {
		walked[name] = walkImage(t, s, name)
		whichAgrees(t, s, name, walked[name])
	}
	for _, a := range names {
		for _, b := range names {
			diffAgrees(t, s, a, b, walked[a], walked[b])
		}
	}
	findAgrees(t, s, walked)
}

// whichAgrees asks for every tenth file.
func whichAgrees(t *testing.T, s *layers.Store, name string, files map[string]seen) {
	t.Helper()
	for i, path := range slices.Sorted(maps.Keys(files)) {
		f := files[path]
		if f.kind == tree.KindDirectory || i%10 != 0 && len(files) > 1000 {
			continue
		}
		o, err := s.Which(t.Context(), name, path, &layers.WhichOptions{NoFollow: true})
		if err != nil {
			t.Fatalf("%s %s: %v", name, path, err)
		}
		if !o.Exists || o.Path != path || layers.DiffID(o.Touches[0].Layer) != f.layer {
			t.Errorf("%s %s: got %+v, want layer %s", name, path, o, f.layer)
		}
	}
}

func diffAgrees(t *testing.T, s *layers.Store, a, b string, x, y map[string]seen) {
	t.Helper()
	var got []string
	err := s.DiffImages(t.Context(), a, b, func(c *layers.ImageChange) error {
		if c.Path != "/" {
			got = append(got, c.Kind+" "+c.Path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for path, f := range x {
		g, ok := y[path]
		parent, up := y[filepath.Dir(path)]
		switch {
		case ok && f.text != g.text:
			want = append(want, "changed "+path)
		case !ok && (filepath.Dir(path) == "/" || up && parent.kind == tree.KindDirectory):
			want = append(want, "deleted "+path)
		}
	}
	for path := range y {
		if _, ok := x[path]; !ok {
			want = append(want, "added "+path)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s %s: %d changes, want %d", a, b, len(got), len(want))
		for _, line := range got {
			if _, ok := slices.BinarySearch(want, line); !ok {
				t.Errorf("too much: %s", line)
			}
		}
	}
}

func findAgrees(t *testing.T, s *layers.Store, walked map[string]map[string]seen) {
	t.Helper()
	got, want := map[string]int{}, 0
	err := s.Find(t.Context(), &layers.FindOptions{Types: "fldcbp"}, func(f *layers.Found) error {
		for _, r := range f.Images {
			name := strings.TrimSuffix(strings.TrimPrefix(r.Names[0], "docker.io/library/"), ":latest")
			if _, ok := walked[name][f.Path]; !ok {
				t.Errorf("%s does not show %s", name, f.Path)
			}
			got[name+f.Path]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range walked {
		for path, f := range files {
			want++
			if n := got[name+path]; n == 0 && f.kind != tree.KindDirectory || n > 1 {
				t.Errorf("%s%s was found %d times", name, path, n)
			}
		}
	}
	if len(got) < want*9/10 {
		t.Errorf("found %d of %d files", len(got), want)
	}
}

// exampleStore is a store with an image of one layer.
func exampleStore() (s *layers.Store, remove func()) {
	dir, err := os.MkdirTemp("", "layerfs")
	check(err)
	s, err = layers.Open(filepath.Join(dir, "store"), nil)
	check(err)
	for name, text := range map[string]string{"app:1": "listen 80\n", "app:2": "listen 443\n"} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		check(w.WriteHeader(&tar.Header{Name: "etc/app.conf", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}))
		_, err = w.Write([]byte(text))
		check(err)
		check(w.Close())
		_, err = s.Import(context.Background(), &buf, &layers.ImportOptions{Names: []string{name}})
		check(err)
	}
	return s, func() { s.Close(); os.RemoveAll(dir) }
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func ExampleStore_Which() {
	s, remove := exampleStore()
	defer remove()
	origin, err := s.Which(context.Background(), "app:1", "etc/app.conf", nil)
	check(err)
	for _, t := range origin.Touches {
		fmt.Println(t.Index, t.Action, origin.Path, t.CreatedBy)
	}
	// Output: 1 added /etc/app.conf layerfs import
}

func ExampleStore_Find() {
	s, remove := exampleStore()
	defer remove()
	o := &layers.FindOptions{Digest: digest.FromString("listen 80\n")}
	err := s.Find(context.Background(), o, func(f *layers.Found) error {
		fmt.Println(f.Path, f.Images[0])
		return nil
	})
	check(err)
	// Output: /etc/app.conf docker.io/library/app:1
}

func ExampleStore_DiffImages() {
	s, remove := exampleStore()
	defer remove()
	err := s.DiffImages(context.Background(), "app:1", "app:2", func(c *layers.ImageChange) error {
		fmt.Println(c.Kind, c.Path, c.What)
		return nil
	})
	check(err)
	// Output: changed /etc/app.conf [content]
}

func ExampleStore_Why() {
	s, remove := exampleStore()
	defer remove()
	why, err := s.Why(context.Background(), string(digest.FromString("listen 443\n")))
	check(err)
	fmt.Println(why.Thing, why.Layers[0].Paths, why.Images[0])
	// Output: file content [/etc/app.conf] docker.io/library/app:2
}

func ExampleStore_DiskUsage() {
	s, remove := exampleStore()
	defer remove()
	u, err := s.DiskUsage(context.Background())
	check(err)
	fmt.Println(u.Total, len(u.Roots), len(u.Images))
	// Output: 21 2 2
}
