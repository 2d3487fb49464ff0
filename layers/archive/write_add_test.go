package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// memoryBlob is a blob as it came.
type memoryBlob struct{ *bytes.Reader }

func (b memoryBlob) Close() error { return nil }

// artifact adds an artifact with blobs to a layout and returns it ready to be written.
func (l *layout) artifact(blobs ...[]byte) (ocispec.Descriptor, SaveImage) {
	const kind = "application/vnd.example.model"
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind,
		Config: l.blob(ocispec.MediaTypeEmptyJSON, []byte("{}")),
	}
	img := SaveImage{Config: []byte("{}"), ArtifactType: kind, Names: []string{"quay.io/me/model:1"}}
	for _, data := range blobs {
		desc := l.blob("application/vnd.example.weights", data)
		m.Layers = append(m.Layers, desc)
		img.Layers = append(img.Layers, SaveLayer{Desc: desc, Blob: func(context.Context) (Blob, error) {
			return memoryBlob{bytes.NewReader(data)}, nil
		}})
	}
	img.Manifest = toJSON(l.t, m)
	img.Desc = l.blob(ocispec.MediaTypeImageManifest, img.Manifest)
	return img.Desc, img
}

// An artifact goes in and out as it is; attestations beside an image are left out.
func TestArtifact(t *testing.T) {
	l := newLayout(t)
	desc, img := l.artifact([]byte("weights"), []byte("{}"))
	l.list(desc, img.Names[0])
	beside, _ := l.artifact([]byte("attestation"))
	l.list(l.nested(l.image(amd64, makeTar(t)), beside), "quay.io/me/app:1")
	images := mustOpenTar(t, l.members()...).Images()
	got, err := Select(images, nil)
	if err != nil || len(got) != 2 || !got[0].Artifact || got[1].Artifact || !slices.Equal(got[0].Names, img.Names) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := Select(images, &amd64); err != nil || len(got) != 1 || got[0].Artifact {
		t.Errorf("for a platform: got %+v, %v", got, err)
	}
	for _, format := range []Format{FormatOCIArchive, FormatOCIDir} {
		for _, c := range []Compression{KeepCompression, CompressZstd, CompressNone} {
			path := filepath.Join(t.TempDir(), "out")
			o := &WriteOptions{Compression: c, Changed: func(*SaveImage, ocispec.Descriptor) { t.Error("the artifact has changed") }}
			if format == FormatOCIDir {
				err = WriteDir(t.Context(), path, []SaveImage{img}, o)
			} else {
				var buf bytes.Buffer
				err = errors.Join(Write(t.Context(), &buf, format, []SaveImage{img}, o), os.WriteFile(path, buf.Bytes(), 0o644))
			}
			if err != nil {
				t.Fatal(err)
			}
			back := mustOpen(t, path).Images()
			if len(back) != 1 || !back[0].Artifact || !slices.Equal(back[0].Names, img.Names) || back[0].Source.desc.ArtifactType != img.ArtifactType {
				t.Fatalf("%v, %v: got %+v", format, c, back)
			}
			raw, _, err := back[0].Source.Manifest(t.Context())
			if err != nil || !bytes.Equal(raw, img.Manifest) {
				t.Errorf("%v, %v: another manifest, %v", format, c, err)
			}
			for _, layer := range img.Layers {
				if data, err := readBlob(back[0].Source, layer.Desc); err != nil || digest.FromBytes(data) != layer.Desc.Digest {
					t.Errorf("%v, %v: another blob, %v", format, c, err)
				}
			}
		}
	}
	if err := Write(t.Context(), io.Discard, FormatDockerArchive, []SaveImage{img}, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("docker-archive: got %v", err)
	}
	img.Layers[0].Blob = nil
	if err := Write(t.Context(), io.Discard, FormatOCIArchive, []SaveImage{img}, nil); err == nil {
		t.Error("written without a blob")
	}
}

// manyImages returns images with a layer of their own and one that all have.
func manyImages(t testing.TB, n int) []SaveImage {
	l := newLayout(t)
	base := makeTar(t, member{name: "base"})
	for i := range n {
		l.list(l.image(amd64, base, makeTar(t, member{name: fmt.Sprint("file", i)})), fmt.Sprintf("quay.io/me/app%d:1", i))
	}
	var out []SaveImage
	for _, img := range mustOpenTar(t, l.members()...).Images() {
		out = append(out, saveImage(t, img))
	}
	return out
}

// What is added to a layout is there beside what was.
func TestAddToDir(t *testing.T) {
	images := manyImages(t, 3)
	dir := filepath.Join(t.TempDir(), "layout")
	names := func() map[string]digest.Digest {
		t.Helper()
		for _, img := range mustOpen(t, dir).Images() {
			saveImage(t, img) // checks every digest
		}
		got := map[string]digest.Digest{}
		for _, d := range readIndex(t, dir).Manifests {
			got[d.Annotations[ocispec.AnnotationRefName]] = d.Digest
		}
		return got
	}
	id := func(i int) digest.Digest { return images[i].Desc.Digest }
	add := func(i int, name string) {
		t.Helper()
		img := images[i]
		img.RefName, img.Names = name, nil
		if err := AddToDir(t.Context(), dir, img, nil); err != nil {
			t.Fatal(err)
		}
	}
	add(0, "v1")
	index := filepath.Join(dir, "index.json")
	raw, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(index, append(bytes.TrimSuffix(raw, []byte("}")), `,"x-unknown":{"b":1.50}}`...), 0o644); err != nil {
		t.Fatal(err)
	}
	add(1, "v2")
	add(1, "v2")
	add(1, "also-v2")
	if got := names(); len(got) != 3 || got["v1"] != id(0) || got["v2"] != id(1) || got["also-v2"] != id(1) {
		t.Errorf("got %v", got)
	}
	// Another image takes the name; a damaged blob is written again.
	blob := filepath.Join(dir, "blobs", "sha256", images[2].Layers[0].DiffID.Encoded())
	if err := os.WriteFile(blob, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	add(2, "v1")
	if got := names(); len(got) != 4 || got["v1"] != id(2) || got[""] != id(0) {
		t.Errorf("after a name has moved: got %v", got)
	}
	raw, err = os.ReadFile(index)
	if err != nil || !strings.Contains(string(raw), `"x-unknown":{"b":1.50}`) {
		t.Errorf("index.json is %s, %v", raw, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("in the layout is %v, %v", entries, err)
	}

	// A failure leaves the index as it was, and no temporary files.
	bad := images[1]
	bad.Layers = slices.Clone(bad.Layers)
	bad.Layers[1] = SaveLayer{DiffID: digest.FromString("x"), Desc: ocispec.Descriptor{Digest: digest.FromString("x")}, Open: func() (io.ReadCloser, error) { return nil, fs.ErrPermission }}
	if err := AddToDir(t.Context(), dir, bad, nil); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(index); err != nil || !bytes.Equal(after, raw) {
		t.Errorf("the index has changed, %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := AddToDir(t.Context(), other, images[0], nil); !errors.Is(err, ErrNotArchive) {
		t.Errorf("no layout: got %v", err)
	}
	skopeo := filepath.Join(t.TempDir(), "dir")
	if _, err := WriteSkopeoDir(t.Context(), skopeo, images[0], nil); err != nil {
		t.Fatal(err)
	}
	if err := AddToDir(t.Context(), skopeo, images[0], nil); !errors.Is(err, ErrNotArchive) {
		t.Errorf("a directory of dir: got %v", err)
	}
}

// Several add to one layout at the same time, which some of them make.
func TestAddTogether(t *testing.T) {
	images := manyImages(t, 8)
	dir := filepath.Join(t.TempDir(), "layout")
	var wg sync.WaitGroup
	for _, img := range images {
		wg.Go(func() {
			if err := AddToDir(t.Context(), dir, img, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := mustOpen(t, dir).Images()
	for _, img := range got {
		saveImage(t, img)
	}
	if len(got) != len(images) {
		t.Errorf("got %d images, want %d", len(got), len(images))
	}
	if index := readIndex(t, dir); len(index.Manifests) != len(images) {
		t.Errorf("index.json is %+v", index)
	}
}

func readIndex(t testing.TB, dir string) (index ocispec.Index) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(raw, &index)
	}
	if err != nil {
		t.Fatal(err)
	}
	return index
}
