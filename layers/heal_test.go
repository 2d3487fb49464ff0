package layers_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
)

// damages are what can happen to a file.
var damages = map[string]func(path string) error{
	"removed": os.Remove,
	"flipped": func(path string) error { return change(path, func(p []byte) []byte { p[len(p)/2] ^= 0x40; return p }) },
	"cut off": func(path string) error { return change(path, func(p []byte) []byte { return p[:len(p)/2] }) },
	"emptied": func(path string) error { return os.Truncate(path, 0) },
	"zeroed":  func(path string) error { return change(path, func(p []byte) []byte { clear(p); return p }) },
}

func change(path string, fn func([]byte) []byte) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fn(raw), 0o600)
}

// storeFiles returns a file of each kind: the largest one, whose damage can be seen.
func storeFiles(t *testing.T, root string) map[string]string {
	t.Helper()
	found, sizes := map[string]string{}, map[string]int64{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, ".lock") {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		kind := strings.Split(rel, "/")[0]
		if kind == "layers" {
			kind = filepath.Base(path)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		// By the space that it takes: a file of nothing but zeros is not damaged by zeros.
		if n := info.Sys().(*syscall.Stat_t).Blocks; n > sizes[kind] {
			found[kind], sizes[kind] = path, n
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// problems checks the store and returns what is wrong.
func problems(t *testing.T, s *layers.Store) []string {
	t.Helper()
	r, err := s.Check(t.Context(), &layers.CheckOptions{Deep: true})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range r.Problems {
		out = append(out, p.String())
	}
	return out
}

func reopen(t *testing.T, root string) *layers.Store {
	t.Helper()
	s, err := layers.Open(root, &layers.Options{Repair: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestLoadHeals damages each kind of file in each way; the same load again makes the
// store whole.
func TestLoadHeals(t *testing.T) {
	images := filepath.Join(testenv.Shared(t), "images")
	s := realStore(t, "alpine", "tiny-busybox")
	root := s.Root()
	want := walkImage(t, s, "alpine")
	for _, kind := range []string{"objects", "packs", "tree", "split.zst", "blobs"} {
		for _, how := range []string{"removed", "flipped", "cut off"} {
			damage := damages[how]
			s := reopen(t, root)
			path := storeFiles(t, root)[kind]
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			if found := problems(t, s); len(found) == 0 {
				t.Errorf("%s %s: check found nothing", kind, how)
			}
			s = reopen(t, root)
			for _, name := range []string{"alpine", "tiny-busybox"} {
				loadReal(t, s, filepath.Join(images, name+".oci.tar"), name)
			}
			if found := problems(t, s); len(found) > 0 {
				t.Fatalf("%s %s (%s): after the load: %s", kind, how, path, strings.Join(found[:min(3, len(found))], "; "))
			}
		}
	}
	if got := walkImage(t, reopen(t, root), "alpine"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Error("the image is not what it was")
	}
}
