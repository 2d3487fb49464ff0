package fs

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/tarsplit"
)

// podmanJSONOf reads a list of records of the podman view, and its lock.
func podmanJSONOf[T any](t testing.TB, mnt, path string) (list []T, lock string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(mnt, "podman", path+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, raw)
	}
	token, err := os.ReadFile(filepath.Join(mnt, "podman", path+".lock"))
	if err != nil || len(token) != 64 {
		t.Fatalf("%s.lock: %q, %v; want 64 bytes", path, token, err)
	}
	return list, string(token)
}

// TestPodmanView looks at all of the view: records, documents, links, directories, split metadata.
func TestPodmanView(t *testing.T) {
	testenv.Require(t, "fuse")
	st := newStore(t)
	base, top := baseLayer(t), topLayer(t)
	img := load(t, st, newImage(t, "me", base, top), "app:1", "app:2")
	load(t, st, newImage(t, "me", base), "base:1")
	load(t, st, newImage(t, "nobody", base))
	load(t, st, newImage(t, "empty"), "empty:1")
	s := mounted(t, st, nil)
	mnt := s.Mountpoint()
	images, _ := podmanJSONOf[podmanImage](t, mnt, "overlay-images/images")
	if len(images) != 4 {
		t.Fatalf("%d images, want 4", len(images))
	}
	records, _ := podmanJSONOf[podmanLayer](t, mnt, "overlay-layers/layers")
	if len(records) != 2 {
		t.Fatalf("%d layers, want 2: one stack is the beginning of the other", len(records))
	}
	byID := map[string]podmanLayer{}
	for _, l := range records {
		byID[l.ID] = l
	}
	for _, i := range images {
		wantDocuments(t, mnt, i)
		if i.ID == img.ID.Encoded() {
			if diff := cmp.Diff([]string{"docker.io/library/app:1", "docker.io/library/app:2"}, i.Names); diff != "" {
				t.Error(diff)
			}
			l := byID[i.Layer]
			if l.DiffDigest != img.Layers[1] || byID[l.Parent].DiffDigest != img.Layers[0] || byID[l.Parent].Parent != "" {
				t.Errorf("stack of the image: %+v on %+v", l, byID[l.Parent])
			}
			if want := digest.FromString(l.Parent + "+" + l.DiffDigest.Encoded()).Encoded(); l.ID != want {
				t.Errorf("layer %s, want %s", l.ID, want)
			}
			wantPodmanLayer(t, mnt, l, "l/"+podmanLink(l.Parent))
			wantPodmanLayer(t, mnt, byID[l.Parent], "")
		}
	}
}

// wantDocuments checks the documents of an image against its record.
func wantDocuments(t testing.TB, mnt string, img podmanImage) {
	t.Helper()
	if len(img.DataNames) < 3 {
		t.Errorf("image %s has the documents %v", img.ID, img.DataNames)
	}
	for _, key := range img.DataNames {
		raw, err := os.ReadFile(filepath.Join(mnt, "podman/overlay-images", img.ID, dataName(key)))
		if err != nil || digest.FromBytes(raw) != img.DataDigests[key] || int64(len(raw)) != img.DataSizes[key] {
			t.Errorf("image %s: %s: %d bytes, %v; want %v", img.ID, key, len(raw), err, img.DataDigests[key])
		}
	}
}

// wantPodmanLayer checks the directory of a layer: it shows the same files as layers/, files with the same inode.
func wantPodmanLayer(t testing.TB, mnt string, l podmanLayer, lower string) {
	t.Helper()
	dir := filepath.Join(mnt, "podman/overlay", l.ID)
	link, err := os.ReadFile(dir + "/link")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(dir + "/lower"); string(got) != lower {
		t.Errorf("lower: %q, want %q", got, lower)
	}
	other := filepath.Join(mnt, "layers/sha256", l.DiffDigest.Encoded(), "diff")
	short := filepath.Join(mnt, "podman/overlay/l", string(link))
	if target, _ := os.Readlink(short); target != "../"+l.ID+"/diff" {
		t.Errorf("link to %q", target)
	}
	sameFiles(t, other, dir+"/diff")
	behind, err := filepath.EvalSymlinks(short)
	if err != nil {
		t.Fatal(err)
	}
	sameFiles(t, behind, other)
	f, err := os.Open(filepath.Join(mnt, "podman/overlay-layers", l.ID+".tar-split.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if info, _ := f.Stat(); err != nil || info.Size() != int64(len(raw)) {
		t.Errorf("tar-split: %d bytes, %v; its size is %d", len(raw), err, info.Size())
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	open := func(name string) (io.ReadCloser, error) { return os.Open(filepath.Join(dir, "diff", name)) }
	var tar bytes.Buffer
	put := func(r io.Reader, size int64) (tarsplit.Sum, error) {
		_, err := io.CopyN(&tar, r, size)
		return tarsplit.Sum{}, err
	}
	if err := tarsplit.FromJSON(z, tarsplit.NewWriter(io.Discard), open, put); err != nil {
		t.Errorf("tar-split: %v", err)
	}
}

// sameFiles wants regular files to be the same in both directories, and directories not to be: each has one place.
func sameFiles(t testing.TB, a, b string) {
	t.Helper()
	err := filepath.WalkDir(a, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		x, err1 := os.Lstat(path)
		y, err2 := os.Lstat(b + strings.TrimPrefix(path, a))
		if err1 != nil || err2 != nil {
			t.Errorf("%s: %v, %v", path, err1, err2)
			return nil
		}
		if os.SameFile(x, y) == e.IsDir() {
			t.Errorf("%s: same %t, directory %t", path, os.SameFile(x, y), e.IsDir())
		}
		up1, err1 := os.Stat(filepath.Join(path, ".."))
		up2, err2 := os.Stat(filepath.Join(b+strings.TrimPrefix(path, a), ".."))
		if e.IsDir() && (err1 != nil || err2 != nil || os.SameFile(up1, up2)) {
			t.Errorf("%s: .. leads to the same place: %v, %v", path, err1, err2)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPodmanFollows changes the store below an open view: lists and locks change together, what is open stays
// readable, a directory in use too.
func TestPodmanFollows(t *testing.T) {
	testenv.Require(t, "fuse")
	st := newStore(t)
	base := baseLayer(t)
	load(t, st, newImage(t, "me", base), "base:1")
	s := mounted(t, st, nil)
	mnt := s.Mountpoint()
	_, imagesWas := podmanJSONOf[podmanImage](t, mnt, "overlay-images/images")
	layers, layersWas := podmanJSONOf[podmanLayer](t, mnt, "overlay-layers/layers")
	open, err := os.Open(filepath.Join(mnt, "podman/overlay-images/images.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	used, err := os.Open(filepath.Join(mnt, "podman/overlay", layers[0].ID, "diff/etc"))
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	load(t, st, newImage(t, "other", tarOf(t, file("only", "this"))), "other:1")
	soon(t, "the new image is in the lists", func() bool {
		images, lock := podmanJSONOf[podmanImage](t, mnt, "overlay-images/images")
		return len(images) == 2 && lock != imagesWas
	})
	if l, lock := podmanJSONOf[podmanLayer](t, mnt, "overlay-layers/layers"); len(l) != 2 || lock == layersWas {
		t.Errorf("%d layers, lock changed: %t", len(l), lock != layersWas)
	}
	if raw, err := io.ReadAll(open); err != nil || !json.Valid(raw) || bytes.Contains(raw, []byte("other")) {
		t.Errorf("the list that was open: %s, %v", raw, err)
	}
	if err := st.Tag(t.Context(), "other:1", "more:1"); err != nil {
		t.Fatal(err)
	}
	soon(t, "the new name is in the list", func() bool {
		raw, _ := os.ReadFile(filepath.Join(mnt, "podman/overlay-images/images.json"))
		return bytes.Contains(raw, []byte("more:1"))
	})
	if _, err := st.Remove(t.Context(), "base:1", nil); err != nil {
		t.Fatal(err)
	}
	soon(t, "the image is gone", func() bool {
		images, _ := podmanJSONOf[podmanImage](t, mnt, "overlay-images/images")
		return len(images) == 1
	})
	var stat unix.Stat_t
	if err := unix.Fstatat(int(used.Fd()), "passwd", &stat, 0); err != nil {
		t.Errorf("a file below a directory in use: %v", err)
	}
	if _, err := os.Stat(filepath.Join(mnt, "podman/overlay", layers[0].ID)); !os.IsNotExist(err) {
		t.Errorf("the directory of the removed layer: %v", err)
	}
}
