package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/platform"
	"github.com/layerfs/layerfs/internal/testenv"
)

const alpineID = "sha256:081e808caa28042a4cf3517da5c29c94ec62a1716627602193f8db91f4956f8a"

// The real images: names and IDs are those that podman 4.3 gives them.
var realImages = []struct {
	path   string
	format Format
	names  []string
	id     string // empty: not checked
	layers int
}{
	{"alpine.docker.tar", FormatDockerArchive, []string{"docker.io/library/alpine:3.20"}, alpineID, 1},
	{"alpine.docker25.tar", FormatOCIArchive, []string{"docker.io/library/alpine:3.20"}, alpineID, 1},
	{"alpine.oci.tar", FormatOCIArchive, []string{"localhost/3.20:latest"}, alpineID, 1},
	{"alpine.zstd3.oci", FormatOCIDir, []string{"localhost/3.20:latest"}, alpineID, 1},
	{"mini-debian.oci.tar", FormatOCIArchive, []string{"localhost/12:latest"}, "sha256:43379db156440ae8b5bd5f4029133205fb9562bb00a8557d59be14dd9e2771da", 4},
	{"tiny-busybox.oci.tar", FormatOCIArchive, []string{"localhost/1:latest"}, "sha256:5d6dc14a3becd62604b616af1332363993013bbb72d16b1a11ae6184cc55ffe4", 5},
	{"tiny-busybox.docker.tar", FormatDockerArchive, []string{"docker.io/library/tiny-busybox:1"}, "sha256:5d6dc14a3becd62604b616af1332363993013bbb72d16b1a11ae6184cc55ffe4", 5},
}

func TestRealImages(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "images")
	for _, tt := range realImages {
		t.Run(tt.path, func(t *testing.T) {
			a := mustOpen(t, filepath.Join(dir, tt.path))
			if a.Format() != tt.format || len(a.Images()) != 1 {
				t.Fatalf("got %v with %d images, want %v with one", a.Format(), len(a.Images()), tt.format)
			}
			img := a.Images()[0]
			if !slices.Equal(img.Names, tt.names) || string(img.ID) != tt.id || img.Artifact {
				t.Errorf("got %q, ID %s, artifact %v; want %q, %s", img.Names, img.ID, img.Artifact, tt.names, tt.id)
			}
			if img.Platform == nil || img.Platform.OS != "linux" || img.Platform.Architecture != "amd64" {
				t.Errorf("platform %s", platform.Text(img.Platform))
			}
			if got := saveImage(t, img); len(got.Layers) != tt.layers {
				t.Errorf("got %d layers, want %d", len(got.Layers), tt.layers)
			}
			again, d1, err1 := img.Source.Manifest(context.Background())
			b := mustOpen(t, filepath.Join(dir, tt.path))
			other, d2, err2 := b.Images()[0].Source.Manifest(context.Background())
			if err1 != nil || err2 != nil || !bytes.Equal(again, other) || d1.Digest != d2.Digest {
				t.Errorf("the manifest differs from one opening to the next (%v, %v)", err1, err2)
			}
		})
	}
}

// skopeo finds the same manifests.
func TestRealImagesSkopeo(t *testing.T) {
	testenv.Require(t, "skopeo")
	dir := filepath.Join(testenv.Shared(t), "images")
	for path, transport := range map[string]string{
		"alpine.oci.tar": "oci-archive:", "alpine.zstd3.oci": "oci:", "mini-debian.oci.tar": "oci-archive:", "tiny-busybox.oci.tar": "oci-archive:",
	} {
		want, err := exec.Command("skopeo", "inspect", "--raw", transport+filepath.Join(dir, path)).Output()
		if err != nil {
			t.Fatalf("skopeo inspect %s: %v", path, err)
		}
		got, _, err := mustOpen(t, filepath.Join(dir, path)).Images()[0].Source.Manifest(context.Background())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got the manifest %s, skopeo %s (%v)", path, got, want, err)
		}
	}
}

// The layout of busybox has links to files beside blobs/, which some ways of
// copying turn into files with the targets as text. Both forms load, as does one
// with the contents in place.
func TestBusyboxOfficial(t *testing.T) {
	src := filepath.Join(testenv.Shared(t), "images", "busybox-official.oci")
	if fi, err := os.Lstat(src); err != nil || !fi.IsDir() {
		t.Skip("no busybox-official.oci")
	}
	files := []string{"image-config.json", "image-manifest.json", "rootfs.tar.gz"}
	members := map[string][]member{}
	for _, name := range append([]string{"oci-layout", "index.json"}, files...) {
		data, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		m := member{name: name, data: data}
		for _, kind := range []string{"content", "links", "text"} {
			members[kind] = append(members[kind], m)
		}
		if slices.Contains(files, name) {
			blob := "blobs/sha256/" + digest.FromBytes(data).Encoded()
			members["content"] = append(members["content"], member{name: blob, data: data})
			members["links"] = append(members["links"], member{name: blob, link: "../../" + name})
			members["text"] = append(members["text"], member{name: blob, data: []byte("../../" + name)})
		}
	}
	for kind, m := range members {
		img := mustOpen(t, unpackTo(t, t.TempDir(), m)).Images()[0]
		if want := "docker.io/library/busybox:1.37.0-glibc"; !slices.Equal(img.Names, []string{want}) {
			t.Errorf("%s: got names %q, want %s", kind, img.Names, want)
		}
		saveImage(t, img)
	}
	out := slices.Clone(members["text"])
	out[len(out)-1].data = []byte("../../../outside")
	img := mustOpen(t, unpackTo(t, t.TempDir(), out)).Images()[0]
	if _, err := img.Source.Blob(t.Context(), layersOf(t, img)[0]); err == nil {
		t.Error("a blob outside the layout was opened")
	}
}

// layersOf returns the layers that an image's manifest names.
func layersOf(t *testing.T, img Image) []ocispec.Descriptor {
	t.Helper()
	raw, _, err := img.Source.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m.Layers
}

// None of the odd tars is an image.
func TestOddTars(t *testing.T) {
	root := filepath.Join(testenv.Shared(t), "tars")
	n := 0
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		a, err := Open(path, &Options{TempDir: t.TempDir()})
		switch {
		case err == nil:
			a.Close()
			t.Errorf("%s: it was taken for an archive of images", path)
		case !errors.Is(err, ErrNotArchive) && !errors.Is(err, ErrDamaged):
			t.Errorf("%s: got %v", path, err)
		}
		return nil
	})
	if err != nil || n < 50 {
		t.Fatalf("%d files, %v", n, err)
	}
}
