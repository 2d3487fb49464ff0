package registry

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/layers"
)

// newArtifact makes an artifact with two blobs and the empty config of OCI.
func newArtifact(t testing.TB) *registrytest.Image {
	t.Helper()
	a := &registrytest.Image{Config: []byte("{}")}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.model", Config: ocispec.DescriptorEmptyJSON,
	}
	for seed, size := range []int{3 << 20, 500} {
		raw := randomBytes(uint64(seed), size)
		l := registrytest.Layer{Desc: registrytest.Describe("application/vnd.example.weights", raw), Blob: raw}
		a.Layers = append(a.Layers, l)
		m.Layers = append(m.Layers, l.Desc)
	}
	a.Manifest = registrytest.Encode(t, m)
	a.Desc = registrytest.Describe(m.MediaType, a.Manifest)
	return a
}

// An artifact is kept and listed, comes out as it came, and is not shown in a mount.
func TestArtifact(t *testing.T) {
	reg := registrytest.Start(t, nil)
	a := newArtifact(t)
	a.Put(t, reg.Addr, "model", "v1")
	st, c := newStore(t), newClient(t, nil)
	name := reg.Addr + "/model:v1"
	img, err := pull(t, c, st, name)
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != a.Desc.Digest || img.Artifact != "application/vnd.example.model" || img.Size != 3<<20+500 || len(img.Layers) != 0 {
		t.Errorf("got %+v", img)
	}
	if list, err := st.Images(t.Context()); err != nil || len(list) != 1 || list[0].Size != img.Size {
		t.Errorf("images: %v, %v", list, err)
	}
	cat, err := st.Catalogue(t.Context())
	if err != nil || len(cat.Images) != 0 || len(cat.Names) != 0 {
		t.Errorf("the catalogue has %v %v, %v", cat.Images, cat.Names, err)
	}
	if _, err := st.CreateContainer(t.Context(), &layers.ContainerOptions{Image: name}); !errors.Is(err, layers.ErrInvalidImage) {
		t.Errorf("container: got %v", err)
	}
	if left := partials(t, st); len(left) > 0 {
		t.Errorf("partial files are left: %v", left)
	}
	if _, err := st.GC(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	for _, l := range a.Layers {
		rc, err := st.Outgoing(img, name).Blob(t.Context(), l.Desc)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := io.ReadAll(rc); err != nil || !bytes.Equal(raw, l.Blob) {
			t.Errorf("blob %s is not what it was: %v", l.Desc.Digest, err)
		}
		rc.Close()
	}
	other := registrytest.Start(t, nil)
	if d, err := push(t, c, st, name, other.Addr+"/model:v2"); err != nil || d != a.Desc.Digest {
		t.Errorf("push: got %s, %v", d, err)
	}
	if report, err := st.Check(t.Context(), nil); err != nil || len(report.Problems) != 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
	hex := a.Layers[0].Desc.Digest.Encoded()
	if err := os.Truncate(filepath.Join(st.Root(), "blobs", "sha256", hex[:2], hex), 1000); err != nil {
		t.Fatal(err)
	}
	if report, err := st.Check(t.Context(), nil); err != nil || len(report.Problems) != 1 {
		t.Errorf("check of a damaged blob: %+v, %v", report, err)
	}
	if _, err := pull(t, c, st, name); err != nil { // another pull repairs it
		t.Fatal(err)
	}
	if report, err := st.Check(t.Context(), nil); err != nil || len(report.Problems) != 0 {
		t.Errorf("check after another pull: %+v, %v", report, err)
	}
	// With the last name everything goes.
	if _, err := st.Remove(t.Context(), name, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := st.GC(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if info, err := st.Info(t.Context()); err != nil || info.BlobBytes != 0 {
		t.Errorf("after removal: %+v, %v", info, err)
	}
}
