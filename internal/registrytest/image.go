package registrytest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Image is an image in memory.
type Image struct {
	Manifest []byte
	Desc     ocispec.Descriptor
	Config   []byte
	Layers   []Layer
}

// A Layer is a layer in memory.
type Layer struct {
	Desc      ocispec.Descriptor
	Blob, Tar []byte
}

// Gzip compresses a layer in the usual way.
func Gzip(tar []byte) ([]byte, string) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(tar) // a buffer takes everything
	_ = z.Close()
	return b.Bytes(), ocispec.MediaTypeImageLayerGzip
}

// Tar makes a tar with one file.
func Tar(t testing.TB, name string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// NewImage makes an image of uncompressed layers, bottom first; compress, which may be
// nil for gzip, makes the blobs and tells their media type.
func NewImage(t testing.TB, platform ocispec.Platform, compress func([]byte) ([]byte, string), tars ...[]byte) *Image {
	t.Helper()
	if compress == nil {
		compress = Gzip
	}
	if platform.OS == "" {
		platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	}
	img := &Image{}
	config := ocispec.Image{Platform: platform, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, layer := range tars {
		blob, mediaType := compress(layer)
		l := Layer{Desc: Describe(mediaType, blob), Blob: blob, Tar: layer}
		img.Layers = append(img.Layers, l)
		m.Layers = append(m.Layers, l.Desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(layer))
	}
	img.Config = Encode(t, config)
	m.Config = Describe(ocispec.MediaTypeImageConfig, img.Config)
	img.Manifest = Encode(t, m)
	img.Desc = Describe(m.MediaType, img.Manifest)
	img.Desc.Platform = &platform
	return img
}

// NewIndex makes an index of descriptors.
func NewIndex(t testing.TB, descs ...ocispec.Descriptor) ([]byte, ocispec.Descriptor) {
	t.Helper()
	raw := Encode(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: descs})
	return raw, Describe(ocispec.MediaTypeImageIndex, raw)
}

// Describe describes a blob.
func Describe(mediaType string, blob []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
}

// Encode is the JSON text of v.
func Encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Put stores an image in the registry at addr under repo and ref, by the shortest way
// that the distribution specification knows.
func (img *Image) Put(t testing.TB, addr, repo, ref string) {
	t.Helper()
	PutBlob(t, addr, repo, img.Config)
	for _, l := range img.Layers {
		PutBlob(t, addr, repo, l.Blob)
	}
	PutManifest(t, addr, repo, ref, img.Desc.MediaType, img.Manifest)
}

// PutBlob stores a blob.
func PutBlob(t testing.TB, addr, repo string, blob []byte) {
	t.Helper()
	base := "http://" + addr
	resp := send(t, http.MethodPost, base+"/v2/"+repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	if !u.IsAbs() {
		u, _ = url.Parse(base + u.String())
	}
	q := u.Query()
	q.Set("digest", string(digest.FromBytes(blob)))
	u.RawQuery = q.Encode()
	send(t, http.MethodPut, u.String(), "application/octet-stream", blob, http.StatusCreated)
}

// PutManifest stores a manifest or an index.
func PutManifest(t testing.TB, addr, repo, ref, mediaType string, raw []byte) {
	t.Helper()
	send(t, http.MethodPut, "http://"+addr+"/v2/"+repo+"/manifests/"+ref, mediaType, raw, http.StatusCreated)
}

func send(t testing.TB, method, u, mediaType string, body []byte, want int) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, u, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		raw, _ := io.ReadAll(resp.Body) // for the message only
		t.Fatalf("%s %s: %s: %s", method, u, resp.Status, raw)
	}
	return resp
}
