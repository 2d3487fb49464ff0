package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/testenv"
)

// writeTo writes images in a format and returns where.
func writeTo(t testing.TB, format Format, images []SaveImage) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	var err error
	if format == FormatOCIDir {
		err = WriteDir(context.Background(), path, images, nil)
	} else {
		var buf bytes.Buffer
		err = Write(context.Background(), &buf, format, images, &WriteOptions{TempDir: t.TempDir()})
		err = errors.Join(err, os.WriteFile(path, buf.Bytes(), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// contents returns name, size and digest of all files of an archive or directory.
func contents(t testing.TB, path string) []string {
	t.Helper()
	var out []string
	add := func(name string, r io.Reader) {
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name+" "+digest.FromBytes(data).String())
	}
	if fi, err := os.Stat(path); err != nil {
		t.Fatal(err)
	} else if fi.IsDir() {
		err := fs.WalkDir(os.DirFS(path), ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			f, err := os.Open(filepath.Join(path, name))
			if err == nil {
				defer f.Close()
				add(name, f)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeDir {
			add(h.Name, r)
		}
	}
}

var allFormats = []Format{FormatDockerArchive, FormatOCIArchive, FormatOCIDir}

var transports = map[Format]string{FormatDockerArchive: "docker-archive:", FormatOCIArchive: "oci-archive:", FormatOCIDir: "oci:"}

// skopeoConfig returns the config that skopeo finds.
func skopeoConfig(t testing.TB, format Format, path string) []byte {
	t.Helper()
	out, err := exec.Command("skopeo", "inspect", "--config", "--raw", transports[format]+path).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo inspect %v: %v: %s", format, err, out)
	}
	return out
}

// What is written reads back as it was, by us and by skopeo, and writing it again
// gives the same bytes.
func TestRoundTrip(t *testing.T) {
	testenv.Require(t, "skopeo")
	dir := filepath.Join(testenv.Shared(t), "images")
	for _, name := range []string{"alpine.zstd3.oci", "tiny-busybox.oci.tar", "alpine.docker.tar"} {
		img := saveImage(t, mustOpen(t, filepath.Join(dir, name)).Images()[0])
		for _, format := range allFormats {
			t.Run(name+" "+format.String(), func(t *testing.T) {
				path := writeTo(t, format, []SaveImage{img})
				if again := writeTo(t, format, []SaveImage{img}); !slices.Equal(contents(t, path), contents(t, again)) || format != FormatOCIDir && !sameFile(t, path, again) {
					t.Error("the second time the bytes were others")
				}
				a := mustOpen(t, path)
				if a.Format() != format || len(a.Images()) != 1 || !slices.Equal(a.Images()[0].Names, img.Names) {
					t.Fatalf("got %v, %+v", a.Format(), a.Images())
				}
				got := saveImage(t, a.Images()[0])
				if !bytes.Equal(got.Config, img.Config) || !slices.EqualFunc(got.Layers, img.Layers, func(a, b SaveLayer) bool { return a.DiffID == b.DiffID }) {
					t.Error("config or layers differ")
				}
				plain := img.Layers[0].Desc.Digest == img.Layers[0].DiffID
				if plain && format != FormatDockerArchive && got.Desc.Digest != img.Desc.Digest {
					t.Errorf("manifest %s, want %s as it came", got.Desc.Digest, img.Desc.Digest)
				}
				if config := skopeoConfig(t, format, path); !bytes.Equal(config, img.Config) {
					t.Errorf("skopeo finds the config %s", config)
				}
				copied := filepath.Join(t.TempDir(), "dir")
				if out, err := exec.Command("skopeo", "--insecure-policy", "copy", "-q", transports[format]+path, "dir:"+copied).CombinedOutput(); err != nil {
					t.Errorf("skopeo copy: %v: %s", err, out)
				}
			})
		}
	}
}

func sameFile(t testing.TB, a, b string) bool {
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return bytes.Equal(x, y)
}

// podman takes what is written and gives the image the same ID and names.
func TestPodmanLoad(t *testing.T) {
	testenv.Require(t, "podman", "root")
	dir := filepath.Join(testenv.Shared(t), "images")
	img := saveImage(t, mustOpen(t, filepath.Join(dir, "tiny-busybox.docker.tar")).Images()[0])
	img.Names = []string{"example.com/tiny:7"}
	for _, format := range allFormats {
		storage, err := os.MkdirTemp("", "archive-test-") // podman wants lower case, see below
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(storage) })
		podman := func(args ...string) string {
			t.Helper()
			args = append([]string{"--root", filepath.Join(storage, "root"), "--runroot", filepath.Join(storage, "run"), "--storage-driver", "vfs"}, args...)
			out, err := exec.Command("podman", args...).CombinedOutput()
			if err != nil {
				t.Fatalf("podman %v: %v: %s", args, err, out)
			}
			return string(out)
		}
		path := filepath.Join(storage, "image")
		if err := os.Rename(writeTo(t, format, []SaveImage{img}), path); err != nil {
			t.Fatal(err)
		}
		out := podman("load", "-q", "-i", path)
		// podman names a directory after its path.
		if !strings.Contains(out, "example.com/tiny:7") && format != FormatOCIDir {
			t.Errorf("%v: podman load says %s", format, out)
		}
		if ids := podman("images", "-q", "--no-trunc"); strings.TrimSpace(ids) != digest.FromBytes(img.Config).String() {
			t.Errorf("%v: podman has the image %s", format, ids)
		}
	}
}

// Several images share layers, configs and names of one manifest.
func TestSeveralImages(t *testing.T) {
	one, two := makeTar(t, member{name: "one"}), makeTar(t, member{name: "two"})
	l := newLayout(t)
	l.list(l.image(amd64, one), "one:1")
	l.list(l.image(amd64, one, two, one), "two:1")
	l.list(l.image(arm64, one, two), "")
	var images []SaveImage
	for _, img := range mustOpenTar(t, l.members()...).Images() {
		s := saveImage(t, img)
		for i := range s.Layers {
			l := &s.Layers[i]
			// One that came compressed in some way.
			if l.DiffID == digest.FromBytes(two) {
				l.Desc = ocispec.Descriptor{
					MediaType: ocispec.MediaTypeImageLayerZstd, Digest: digest.FromString("zstd"), Size: 1,
					Annotations: map[string]string{"io.github.containers.zstd-chunked.manifest-checksum": "x", "note": "kept"},
				}
				s.Manifest = replaceLayer(t, s.Manifest, digest.FromBytes(two), l.Desc)
			}
		}
		images = append(images, s)
	}
	images[0].Names = append(images[0].Names, "docker.io/library/more:2", "docker.io/library/one@"+images[0].Desc.Digest.String(), "docker.io/library/gone@"+digest.FromString("x").String())
	for _, format := range allFormats {
		path := writeTo(t, format, images)
		list := contents(t, path)
		sorted := slices.Sorted(slices.Values(list))
		if len(slices.Compact(sorted)) != len(list) {
			t.Errorf("%v: something is there twice: %q", format, list)
		}
		got := mustOpen(t, path).Images()
		if len(got) != len(images) {
			t.Fatalf("%v: got %d images", format, len(got))
		}
		for i := range got {
			want := images[i].Names
			if i == 0 {
				want = want[:3]
				if format == FormatDockerArchive {
					want = want[:2]
				}
			}
			if !slices.Equal(got[i].Names, want) || got[i].ID != digest.FromBytes(images[i].Config) {
				t.Errorf("%v: got %q, want %q", format, got[i].Names, want)
			}
			back := saveImage(t, got[i])
			for j, l := range back.Layers {
				if l.DiffID != images[i].Layers[j].DiffID {
					t.Errorf("%v: image %d, layer %d is %s", format, i, j, l.DiffID)
				}
				if a := l.Desc.Annotations; format != FormatDockerArchive && l.DiffID == digest.FromBytes(two) && (len(a) != 1 || a["note"] != "kept" || l.Desc.MediaType != ocispec.MediaTypeImageLayerGzip) {
					t.Errorf("%v: recompressed layer is %+v", format, l.Desc)
				}
			}
		}
	}
}

// replaceLayer changes a layer's descriptor in a manifest and adds a field that we
// do not know.
func replaceLayer(t testing.TB, raw []byte, old digest.Digest, desc ocispec.Descriptor) []byte {
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for i := range m.Layers {
		if m.Layers[i].Digest == old {
			m.Layers[i] = desc
		}
	}
	return append(bytes.TrimSuffix(toJSON(t, m), []byte("}")), `,"x-unknown":{"b":1.50,"a":[]}}`...)
}

func TestRewriteManifest(t *testing.T) {
	raw := []byte(`{ "schemaVersion": 2, "layers": [{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.zstd","digest":"sha256:aa","size":1}], "x": 1.50 }`)
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if got, err := rewriteManifest(raw, m.Layers); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("same layers: got %s, %v", got, err)
	}
	desc := recompressed(m.Layers[0], ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: "sha256:bb", Size: 2})
	want := `{"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"sha256:bb","size":2}],"schemaVersion":2,"x":1.50}`
	if got, err := rewriteManifest(raw, []ocispec.Descriptor{desc}); err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	if _, err := rewriteManifest(raw, nil); !errors.Is(err, ErrVerification) {
		t.Errorf("too few layers: %v", err)
	}
}

// A layer that is not what it should be stops the writing, and nothing is left.
func TestWriteErrors(t *testing.T) {
	layer := makeTar(t, member{name: "x"})
	l := newLayout(t)
	l.list(l.image(amd64, layer), "a:1")
	good := saveImage(t, mustOpenTar(t, l.members()...).Images()[0])
	open := func(data []byte, err error) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(data), errReader{err})), nil
		}
	}
	full := errors.New("disk is on fire")
	for name, tt := range map[string]struct {
		open func() (io.ReadCloser, error)
		want error
	}{
		"short":   {open(layer[:100], io.EOF), ErrVerification},
		"long":    {open(append(layer[:len(layer):len(layer)], 0), io.EOF), ErrVerification},
		"other":   {open(append(layer[:len(layer)-1:len(layer)-1], 1), io.EOF), ErrVerification},
		"error":   {open(layer[:100], full), full},
		"no open": {func() (io.ReadCloser, error) { return nil, full }, full},
	} {
		for _, compressed := range []bool{false, true} {
			img := good
			img.Layers = slices.Clone(good.Layers)
			img.Layers[0].Open = tt.open
			if compressed {
				img.Layers[0].Desc.Digest = digest.FromString("gzip")
			}
			for _, format := range allFormats {
				dir := t.TempDir()
				var err error
				if format == FormatOCIDir {
					err = WriteDir(context.Background(), filepath.Join(dir, "out"), []SaveImage{img}, nil)
				} else {
					err = Write(context.Background(), io.Discard, format, []SaveImage{img}, &WriteOptions{TempDir: dir})
				}
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "layer sha256:") {
					t.Errorf("%s, %v: got %v, want %v", name, format, err, tt.want)
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
					t.Errorf("%s, %v: left %v, %v", name, format, left, err)
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Write(ctx, io.Discard, FormatOCIArchive, []SaveImage{good}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	if err := Write(context.Background(), io.Discard, FormatOCIArchive, nil, nil); !errors.Is(err, ErrNoImage) {
		t.Errorf("no images: got %v", err)
	}
	if err := Write(context.Background(), io.Discard, FormatOCIDir, []SaveImage{good}, nil); err == nil {
		t.Error("a directory was written to a stream")
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestWriteDirTarget(t *testing.T) {
	l := newLayout(t)
	l.list(l.image(amd64, makeTar(t)), "a:1")
	images := []SaveImage{saveImage(t, mustOpenTar(t, l.members()...).Images()[0])}
	dir := t.TempDir() // empty
	if err := WriteDir(context.Background(), dir, images, nil); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm()&0o700 != 0o700 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	before := contents(t, dir)
	if err := WriteDir(context.Background(), dir, images, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("not empty: got %v, want ErrExist", err)
	}
	if !slices.Equal(contents(t, dir), before) {
		t.Error("what was there has changed")
	}
	if err := WriteDir(context.Background(), filepath.Join(dir, "index.json"), images, nil); err == nil {
		t.Error("a file was replaced by a directory")
	}
}

func TestFormat(t *testing.T) {
	for _, f := range allFormats {
		if got, err := ParseFormat(f.String()); err != nil || got != f {
			t.Errorf("%v: got %v, %v", f, got, err)
		}
	}
	if _, err := ParseFormat("zip"); err == nil || FormatUnset.String() != "Format(0)" {
		t.Errorf("got %v", err)
	}
}
