package archive

import (
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A directory of the dir: transport may hold an index and only some of its images.
func TestSkopeoDirIndex(t *testing.T) {
	config := toJSON(t, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}, RootFS: ocispec.RootFS{Type: "layers"}})
	manifest := toJSON(t, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: describeBlob(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{},
	})
	here := describeBlob(ocispec.MediaTypeImageManifest, manifest)
	absent := describeBlob(ocispec.MediaTypeImageManifest, []byte("not copied"))
	index := toJSON(t, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{absent, here},
	})
	files := []member{
		{name: "version", data: []byte("Directory Transport Version: 1.1\n")},
		{name: "manifest.json", data: index},
		{name: here.Digest.Encoded() + ".manifest.json", data: manifest},
		{name: describeBlob("", config).Digest.Encoded(), data: config},
	}
	a, err := Open(unpackTo(t, t.TempDir(), files), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if a.Format() != FormatSkopeoDir || len(a.Images()) != 1 || a.Images()[0].Platform.Architecture != "arm64" {
		t.Errorf("got %v, %+v", a.Format(), a.Images())
	}
	raw, desc, err := a.Images()[0].Source.Manifest(t.Context())
	if err != nil || string(raw) != string(manifest) || desc.Digest != here.Digest {
		t.Errorf("got manifest %q, %v", raw, err)
	}
	// One without any of its images says so.
	if _, err := Open(unpackTo(t, t.TempDir(), files[:2]), nil); !errors.Is(err, errMissing) {
		t.Errorf("got %v, want %v", err, errMissing)
	}
	// A blob that is not what its name says is refused.
	files[2].data = append([]byte(" "), manifest...)
	if _, err := Open(unpackTo(t, t.TempDir(), files), nil); !errors.Is(err, ErrVerification) {
		t.Errorf("got %v, want %v", err, ErrVerification)
	}
}

func describeBlob(mediaType string, blob []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
}
