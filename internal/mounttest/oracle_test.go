package mounttest_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// An oracle is what an image must look like.
type oracle struct {
	image  treetest.Image
	merged *treetest.Snapshot   // kernel overlayfs
	layers []*treetest.Snapshot // each layer alone, as unpacked
}

// newOracle extracts the layers of an image and mounts them with overlayfs.
func newOracle(t testing.TB, img treetest.Image) *oracle {
	t.Helper()
	testenv.Require(t, "root", "overlayfs", "tar")
	work := t.TempDir()
	o := &oracle{image: img}
	var layers []*treetest.Layer
	var dirs []string
	for i, name := range img.Tars {
		l, err := treetest.Extract(name, filepath.Join(work, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		snap, err := treetest.Take(l.Dir)
		if err != nil {
			t.Fatal(err)
		}
		layers, dirs, o.layers = append(layers, l), append(dirs, l.Dir), append(o.layers, snap)
	}
	if err := treetest.Stack(layers); err != nil {
		t.Fatal(err)
	}
	merged, umount, err := treetest.OverlayMount(dirs, work)
	if err != nil {
		t.Fatal(err)
	}
	defer umount()
	if o.merged, err = treetest.Take(merged); err != nil {
		t.Fatal(err)
	}
	return o
}

// archives lists the images to test.
func archives(t testing.TB) []string {
	t.Helper()
	dirs := []string{filepath.Join(testenv.Shared(t), "images")}
	if more := os.Getenv("LAYERFS_TEST_IMAGES"); more != "" {
		dirs = append(dirs, more)
	}
	var list []string
	for _, d := range dirs {
		for _, pattern := range []string{"*.tar", "*.oci"} {
			found, err := filepath.Glob(filepath.Join(d, pattern))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, found...)
		}
	}
	if len(list) == 0 {
		t.Fatalf("no images in %q", dirs)
	}
	return list
}

// intact returns a layout in which blobs that were symlinks, and that a checkout
// turned into text files with the target, have their content again: one of the
// shared images is so.
func intact(t testing.TB, name string) string {
	t.Helper()
	blobs, err := filepath.Glob(filepath.Join(name, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), filepath.Base(name))
	copied := false
	for _, b := range blobs {
		st, err := os.Stat(b)
		if err != nil || st.Size() > 200 {
			continue
		}
		target, err := os.ReadFile(b)
		if err != nil || !strings.HasPrefix(string(target), "../../") {
			continue
		}
		if !copied {
			copyTree(t, name, out)
			copied = true
		}
		blob := filepath.Join(out, "blobs/sha256", filepath.Base(b))
		data, err := os.ReadFile(filepath.Join(filepath.Dir(blob), string(target)))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blob, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if copied {
		return out
	}
	return name
}

// TestOracle compares each image with kernel overlayfs: type, mode, owner, size,
// content, link target, time, device, xattrs, link count and hard links of every
// path; and each layer with its unpacked tar.
func TestOracle(t *testing.T) {
	testenv.Require(t, "root", "fuse", "overlayfs")
	for _, name := range archives(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			images, err := treetest.ReadArchive(intact(t, name), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			s := newStore(t, nil)
			loaded := strings.Fields(strings.ReplaceAll(s.ok("load", "-q", "-i", name), "Loaded image: ", ""))
			if len(loaded) != len(images) {
				t.Fatalf("loaded %q, the archive has %d images", loaded, len(images))
			}
			mnt := s.mount()
			for _, img := range images {
				config := fmt.Sprintf("%x", sha256.Sum256(img.Config))
				compareImage(t, s, mnt, "by-id/"+config, newOracle(t, img))
			}
			for _, n := range loaded {
				if _, err := os.Stat(filepath.Join(imageDir(mnt, n), "rootfs")); err != nil {
					t.Error(err)
				}
			}
			s.checkClean()
		})
	}
}

// compareImage holds everything that the mount shows of an image against the
// oracle.
func compareImage(t *testing.T, s *store, mnt, name string, o *oracle) {
	t.Helper()
	dir := imageDir(mnt, name)
	got := s.take(filepath.Join(dir, "rootfs"))
	report(t, "rootfs", treetest.Diff(o.merged, got, &treetest.Options{DirNlink: true}))
	// A second look, which the kernel answers from what it remembers.
	report(t, "second look", treetest.Diff(got, s.take(filepath.Join(dir, "rootfs")), &treetest.Options{DirNlink: true}))
	sameFile(t, filepath.Join(dir, "config.json"), o.image.Config)
	if o.image.Manifest != nil {
		sameFile(t, filepath.Join(dir, "manifest.json"), o.image.Manifest)
	}
	links, err := os.ReadDir(filepath.Join(dir, "layers"))
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != len(o.image.DiffIDs) {
		t.Errorf("layers/ has %d names, want %d", len(links), len(o.image.DiffIDs))
	}
	for i, id := range o.image.DiffIDs {
		compareLayer(t, s, mnt, id, o.layers[i])
		if i < len(links) {
			end, err := filepath.EvalSymlinks(filepath.Join(dir, "layers", links[i].Name()))
			if want := filepath.Join(mnt, "layers/sha256", id); err != nil || end != want {
				t.Errorf("layers/%s leads to %q (%v), want %q", links[i].Name(), end, err, want)
			}
		}
	}
}

// compareLayer holds layer.tar, diff/ and the verb diff against the layer's tar.
func compareLayer(t *testing.T, s *store, mnt, id string, want *treetest.Snapshot) {
	t.Helper()
	dir := filepath.Join(mnt, "layers/sha256", id)
	if got := fileDigest(t, filepath.Join(dir, "layer.tar")); got != id {
		t.Errorf("layer.tar of %s has the digest %s", id, got)
	}
	if got := diffDigest(t, s, id); got != id {
		t.Errorf("diff %s writes the digest %s", id, got)
	}
	if want != nil {
		report(t, "diff/ of "+id[:12], treetest.Diff(want, s.take(filepath.Join(dir, "diff")), nil))
	}
}

func sameFile(t testing.TB, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Error(err)
	} else if string(got) != string(want) {
		t.Errorf("%s: differs from what was loaded:\ngot  %q\nwant %q", name, got, want)
	}
}

// fileDigest reads a whole file; its size must be what stat says.
func fileDigest(t testing.TB, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, struct{ io.Reader }{f})
	if err != nil {
		t.Error(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != n {
		t.Errorf("%s: %d bytes read; stat: %v %v", name, n, st.Size(), err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// diffDigest hashes what `layerfs diff` writes.
func diffDigest(t testing.TB, s *store, id string) string {
	t.Helper()
	cmd := s.command(t.Context(), "diff", "sha256:"+id)
	h := sha256.New()
	cmd.Stdout = h
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("diff %s: %v: %s", id, err, stderr.String())
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
