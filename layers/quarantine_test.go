package layers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
)

// bareStore holds real images without their compressed layers, so that there is
// nothing to repair from.
func bareStore(t *testing.T, names ...string) *layers.Store {
	t.Helper()
	s := realStore(t)
	for _, name := range names {
		loadBare(t, s, name)
	}
	return s
}

func loadBare(t *testing.T, s *layers.Store, name string) *layers.Image {
	t.Helper()
	a, err := archive.Open(filepath.Join(testenv.Shared(t), "images", name+".oci.tar"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	img, err := s.Load(t.Context(), a.Images()[0].Source, &layers.LoadOptions{Names: []string{name}, DropBlobs: true})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// readAll reads every file of an image and returns the first error.
func readAll(t *testing.T, s *layers.Store, name string) error {
	t.Helper()
	img, err := s.Image(t.Context(), name)
	if err != nil {
		return err
	}
	for _, d := range img.DiffIDs() {
		l, err := s.OpenLayer(d)
		if err != nil {
			return err
		}
		buf := make([]byte, 64<<10)
		for i := l.Tree().Dirs(); i < l.Tree().Inodes() && err == nil; i++ {
			err = readFile(l, i, buf)
		}
		l.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// TestQuarantine damages what nothing can give back: it is put aside, reading it is
// an error that says what to do, everything else works, and a load makes it whole.
func TestQuarantine(t *testing.T) {
	s := bareStore(t, "alpine", "tiny-busybox")
	root := s.Root()
	alpine, err := s.Image(t.Context(), "alpine")
	if err != nil {
		t.Fatal(err)
	}
	layer := filepath.Join(root, "layers", alpine.DiffIDs()[0].Hex())
	want, other := fmt.Sprint(walkImage(t, s, "alpine")), fmt.Sprint(walkImage(t, s, "tiny-busybox"))
	s.Close()
	for what, c := range map[string]struct {
		damage func() error
		state  string
		broken bool // the image's files cannot all be read
	}{
		"object": {func() error { return damages["flipped"](storeFiles(t, root)["objects"]) }, layers.StateQuarantined, true},
		"pack":   {func() error { return damages["zeroed"](storeFiles(t, root)["packs"]) }, layers.StateQuarantined, true},
		"layer":  {func() error { return os.RemoveAll(layer) }, layers.StateQuarantined, true},
		"tables": {func() error {
			return errors.Join(os.Remove(filepath.Join(layer, "tree")), os.Remove(filepath.Join(layer, "split.zst")))
		}, layers.StateQuarantined, true},
		"tree":  {func() error { return damages["flipped"](filepath.Join(layer, "tree")) }, layers.StateRepaired, false},
		"split": {func() error { return damages["flipped"](filepath.Join(layer, "split.zst")) }, layers.StateLeft, false},
	} {
		if err := c.damage(); err != nil {
			t.Fatal(what, err)
		}
		s := reopen(t, root)
		r, err := s.Repair(t.Context(), nil)
		if err != nil || len(r.Problems) == 0 {
			t.Fatalf("%s: %+v, %v", what, r, err)
		}
		for _, p := range r.Problems {
			if p.State != c.state || len(p.Images) != 1 || p.Images[0].Names[0] != "docker.io/library/alpine:latest" {
				t.Errorf("%s: got %s %s, want %s of alpine", what, p, p.Images, c.state)
			}
		}
		s = reopen(t, root)
		err = readAll(t, s, "alpine")
		if c.broken && (!errors.Is(err, layers.ErrDamaged) || !strings.Contains(err.Error(), "check --repair")) || !c.broken && err != nil {
			t.Errorf("%s: reading it: %v", what, err)
		}
		if got := fmt.Sprint(walkImage(t, s, "tiny-busybox")); got != other || readAll(t, s, "tiny-busybox") != nil {
			t.Errorf("%s: the other image does not work: %v", what, readAll(t, s, "tiny-busybox"))
		}
		if _, err := s.GC(t.Context(), false); err != nil {
			t.Errorf("%s: gc: %v", what, err)
		}
		if again, err := s.Repair(t.Context(), nil); err != nil || len(again.Problems) == 0 && c.state != layers.StateRepaired {
			t.Errorf("%s: a second repair: %+v, %v", what, again, err)
		}
		loadBare(t, s, "alpine")
		s = reopen(t, root)
		if found := problems(t, s); len(found) > 0 {
			t.Fatalf("%s: after the load: %s", what, found[:min(3, len(found))])
		}
		if got := fmt.Sprint(walkImage(t, s, "alpine")); got != want || readAll(t, s, "alpine") != nil {
			t.Errorf("%s: after the load alpine is not what it was: %v", what, readAll(t, s, "alpine"))
		}
		s.Close()
	}
}

// TestRebuildFromNothing takes index and journal away: the images come back without
// their names.
func TestRebuildFromNothing(t *testing.T) {
	s := realStore(t, "alpine", "tiny-busybox")
	root := s.Root()
	want := map[string]bool{}
	for _, name := range []string{"alpine", "tiny-busybox"} {
		img, err := s.Image(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		want[string(img.ID)] = true
	}
	s.Close()
	for _, name := range []string{"index.db", "index.journal"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := layers.Open(root, nil); !errors.Is(err, layers.ErrDamaged) || !strings.Contains(err.Error(), "check --repair") {
		t.Errorf("opened with %v", err)
	}
	s = reopen(t, root)
	if found := problems(t, s); len(found) == 0 {
		t.Error("check found nothing")
	}
	if _, err := s.Repair(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, root)
	images, err := s.Images(t.Context())
	if err != nil || len(images) != 2 {
		t.Fatalf("%d images, %v", len(images), err)
	}
	for _, img := range images {
		if !want[string(img.ID)] || readAll(t, s, string(img.ID)) != nil {
			t.Errorf("image %s: %v", img.ID, readAll(t, s, string(img.ID)))
		}
	}
	if found := problems(t, s); len(found) > 0 {
		t.Errorf("after the repair: %s", found[0])
	}
}

// TestCheckBesideChanges checks again and again while images come and go: there is
// no damage, so none is found.
func TestCheckBesideChanges(t *testing.T) {
	s := realStore(t, "alpine")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, name := range []string{"tiny-busybox", "mini-debian"} {
		wg.Go(func() {
			for ctx.Err() == nil {
				loadReal(t, s, filepath.Join(testenv.Shared(t), "images", name+".oci.tar"), name)
				if _, err := s.Remove(t.Context(), name, nil); err != nil && !errors.Is(err, layers.ErrBusy) {
					t.Error(err)
					return
				}
			}
		})
	}
	n := 0
	for ctx.Err() == nil {
		other := reopen(t, s.Root())
		r, err := other.Check(t.Context(), &layers.CheckOptions{Fast: n%2 == 1})
		if err != nil {
			t.Error(err)
			break
		}
		for _, p := range r.Problems {
			t.Errorf("check %d: %s", n, p)
		}
		n++
		other.Close()
	}
	wg.Wait()
	t.Logf("%d checks", n)
}

func readFile(l *layers.Layer, i uint32, buf []byte) error {
	a, err := l.Tree().Attr(tree.Ino(i))
	if err != nil || a.Kind != tree.KindRegular {
		return err
	}
	for off := int64(0); off < a.Size; off += int64(len(buf)) {
		if _, err := l.ReadAt(tree.Ino(i), buf, off); err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}
