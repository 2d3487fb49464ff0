package layers_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
)

// donors opens the images of archives.
func donors(t *testing.T, names ...string) []layers.Source {
	t.Helper()
	var out []layers.Source
	for _, name := range names {
		a, err := archive.Open(filepath.Join(testenv.Shared(t), "images", name+".oci.tar"), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		out = append(out, a.Images()[0].Source)
	}
	return out
}

// named lists the images with their names, and the containers.
func named(t *testing.T, s *layers.Store) string {
	t.Helper()
	images, err := s.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, img := range images {
		for _, n := range img.Names {
			out = append(out, fmt.Sprint(n.Name, " ", img.ID, " ", n.Slot, " ", img.Slot, " ", img.Loaded))
		}
	}
	boxes, err := s.Containers(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range boxes {
		out = append(out, fmt.Sprint(b.Names, b.Image, b.Labels))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// TestRepair damages each kind of file of a store in each way. Check names it, a
// repair without anything keeps the rest working, a repair from the archives leaves
// nothing.
func TestRepair(t *testing.T) {
	names := []string{"alpine", "tiny-busybox"}
	s := realStore(t, names...)
	root := s.Root()
	if _, err := s.CreateContainer(t.Context(), &layers.ContainerOptions{Image: "alpine", Names: []string{"box"}, Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	want := named(t, s)
	seen := map[string]string{}
	for _, name := range names {
		seen[name] = fmt.Sprint(walkImage(t, s, name))
	}
	s.Close()
	from := donors(t, names...)
	for _, kind := range []string{"index.db", "index.journal", "format", "objects", "packs", "tree", "split.zst", "blobs"} {
		ways := slices.Sorted(maps.Keys(damages))
		if !strings.HasPrefix(kind, "index") && kind != "format" {
			ways = []string{"removed", "flipped"} // TestLoadHeals has the others
		}
		for _, how := range ways {
			what := kind + " " + how
			path := storeFiles(t, root)[kind]
			if err := damages[how](path); err != nil {
				t.Fatal(what, err)
			}
			s := reopen(t, root)
			found := problems(t, s)
			healsItself := how == "removed" && (kind == "format" || kind == "index.journal")
			if len(found) == 0 && !healsItself {
				t.Errorf("%s: check found nothing", what)
			}
			r, err := s.Repair(t.Context(), nil)
			if err != nil {
				t.Fatalf("%s: repair: %v", what, err)
			}
			s = reopen(t, root)
			wantOthersWork(t, s, what, r, names, seen)
			r, err = s.Repair(t.Context(), &layers.RepairOptions{From: from})
			if err != nil {
				t.Fatalf("%s: repair from archives: %v", what, err)
			}
			for _, p := range r.Problems {
				if p.State != layers.StateRepaired {
					t.Errorf("%s: left after the repair: %s", what, p)
				}
			}
			s = reopen(t, root)
			if found := problems(t, s); len(found) > 0 {
				t.Fatalf("%s: after the repair: %s", what, strings.Join(found[:min(3, len(found))], "; "))
			}
			if got := named(t, s); got != want {
				t.Fatalf("%s: the store has\n%s\nwant\n%s", what, got, want)
			}
			if _, err := s.GC(t.Context(), false); err != nil {
				t.Errorf("%s: gc: %v", what, err)
			}
			s.Close()
		}
	}
	s = reopen(t, root)
	for _, name := range names {
		if got := fmt.Sprint(walkImage(t, s, name)); got != seen[name] {
			t.Errorf("%s is not what it was", name)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "quarantine", "bodies")); err == nil {
		t.Error("there are still damaged bodies on the list")
	}
}

// wantOthersWork checks that images which no problem names are as they were, and
// that the collection goes on.
func wantOthersWork(t *testing.T, s *layers.Store, what string, r *layers.CheckReport, names []string, seen map[string]string) {
	t.Helper()
	hit := map[string]bool{}
	for _, p := range r.Problems {
		for _, img := range p.Images {
			if p.State != layers.StateRepaired {
				hit[img.String()] = true
			}
		}
	}
	for _, name := range names {
		if hit["docker.io/library/"+name+":latest"] {
			continue
		}
		if got := fmt.Sprint(walkImage(t, s, name)); got != seen[name] {
			t.Errorf("%s: %s is not what it was", what, name)
		}
	}
	if _, err := s.GC(t.Context(), false); err != nil {
		t.Errorf("%s: gc after the repair: %v", what, err)
	}
}
