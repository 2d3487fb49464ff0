package registry

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/layers"
)

const zstdLayer = ocispec.MediaTypeImageLayerZstd

func zstdFrame(t testing.TB, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(data, nil)
}

// skippable is a zstd frame that decoders pass over, as zstd:chunked has them for its
// table of contents.
func skippable(data []byte) []byte {
	head := binary.LittleEndian.AppendUint32(nil, 0x184D2A50)
	return append(binary.LittleEndian.AppendUint32(head, uint32(len(data))), data...)
}

func gzipMember(t testing.TB, h gzip.Header, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Header = h
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever form a layer has in the registry, its content is read and it goes out as it
// came.
func TestLayerForms(t *testing.T) {
	reg := registrytest.Start(t, nil)
	tar := registrytest.Tar(t, "etc/file", randomBytes(1, 100_000))
	half := len(tar) / 2
	forms := map[string]func() ([]byte, string){
		"plain": func() ([]byte, string) { return tar, ocispec.MediaTypeImageLayer },
		"gzip of several members": func() ([]byte, string) {
			return append(gzipMember(t, gzip.Header{}, tar[:half]), gzipMember(t, gzip.Header{}, tar[half:])...), ocispec.MediaTypeImageLayerGzip
		},
		"gzip with an odd header": func() ([]byte, string) {
			h := gzip.Header{Name: "layer.tar", Comment: "made by hand", Extra: []byte("SG\x00\x00"), ModTime: time.Unix(1, 0), OS: 11}
			return gzipMember(t, h, tar), ocispec.MediaTypeImageLayerGzip
		},
		"eStargz": func() ([]byte, string) { // a member for each file, and a footer without content
			out := append(gzipMember(t, gzip.Header{}, tar[:half]), gzipMember(t, gzip.Header{}, tar[half:])...)
			return append(out, gzipMember(t, gzip.Header{Extra: []byte("SG\x16\x000000000000000000STARGZ")}, nil)...), ocispec.MediaTypeImageLayerGzip
		},
		"zstd": func() ([]byte, string) { return zstdFrame(t, tar), zstdLayer },
		"zstd of several frames": func() ([]byte, string) {
			return append(zstdFrame(t, tar[:half]), zstdFrame(t, tar[half:])...), zstdLayer
		},
		"zstd:chunked": func() ([]byte, string) {
			out := append(zstdFrame(t, tar[:half]), skippable([]byte("in between"))...)
			return append(append(out, zstdFrame(t, tar[half:])...), skippable(make([]byte, 64))...), zstdLayer
		},
		"wrong media type":    func() ([]byte, string) { return zstdFrame(t, tar), ocispec.MediaTypeImageLayerGzip },
		"docker's media type": func() ([]byte, string) { return gzipMember(t, gzip.Header{}, tar), layers.MediaTypeDockerLayerGzip },
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			img := registrytest.NewImage(t, ocispec.Platform{}, func([]byte) ([]byte, string) { return form() }, tar)
			repo := strings.Map(func(r rune) rune {
				if r < 'a' || r > 'z' {
					return '-'
				}
				return r
			}, strings.ToLower(name))
			img.Put(t, reg.Addr, repo, "v1")
			st, c := newStore(t), newClient(t, nil)
			if _, err := pull(t, c, st, reg.Addr+"/"+repo+":v1"); err != nil {
				t.Fatal(err)
			}
			to := reg.Addr + "/out/" + repo + ":v1"
			if d, err := push(t, c, st, reg.Addr+"/"+repo+":v1", to); err != nil || d != img.Desc.Digest {
				t.Errorf("push: got %s, %v, want %s", d, err, img.Desc.Digest)
			}
			r, err := st.OpenLayerBlob(t.Context(), img.Layers[0].Desc)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var out bytes.Buffer
			if _, err := r.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), img.Layers[0].Blob) {
				t.Errorf("the blob is not what it was: %v", err)
			}
		})
	}
}

// A foreign layer is not there, which is said.
func TestForeignLayer(t *testing.T) {
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	img := testImage(t, 1, 1000)
	var m ocispec.Manifest
	if err := json.Unmarshal(img.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	m.Layers[0].MediaType, m.Layers[0].URLs = layers.MediaTypeDockerForeign, []string{"https://example.invalid/layer"}
	img.Manifest = registrytest.Encode(t, m)
	img.Desc = registrytest.Describe(m.MediaType, img.Manifest)
	for _, b := range [][]byte{img.Config, img.Layers[0].Blob, img.Layers[1].Blob} {
		registrytest.PutBlob(t, reg.Addr, "app", b)
	}
	st := newStore(t)
	proxy.Fault(manifestOnly(img))
	_, err := pull(t, newClient(t, nil), st, proxy.Addr+"/app:v1")
	if !errors.Is(err, layers.ErrInvalidLayer) || !strings.Contains(err.Error(), "foreign address") {
		t.Errorf("got %v, want %v", err, layers.ErrInvalidLayer)
	}
	wantClean(t, st, 0)
}

// Two pulls of one image at once both succeed, and a collection beside them takes
// nothing away; one after an interrupted pull removes what it has left.
func TestPullsTogether(t *testing.T) {
	reg := registrytest.Start(t, nil)
	img := testImage(t, 1, 4<<20)
	img.Put(t, reg.Addr, "app", "v1")
	st := newStore(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := pull(t, newClient(t, nil), st, reg.Addr+"/app:v1"); err != nil {
				t.Error(err)
			}
		})
	}
	for range 5 {
		if _, err := st.GC(t.Context(), false); err != nil && !errors.Is(err, layers.ErrBusy) {
			t.Error(err)
		}
	}
	wg.Wait()
	wantClean(t, st, 1)
	if left := partials(t, st); len(left) > 0 {
		t.Errorf("partial files are left: %v", left)
	}
	kept, err := st.OpenPartial(registrytest.Describe("", []byte("kept")).Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kept.WriteAt([]byte("ke"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := st.GC(t.Context(), false); err != nil || len(partials(t, st)) != 1 {
		t.Errorf("a partial file in use is gone: %v", err)
	}
	if err := kept.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := st.GC(t.Context(), true); err != nil || c.Blobs != 1 || len(partials(t, st)) != 1 {
		t.Errorf("a dry run: %+v, %v", c, err)
	}
	if _, err := st.GC(t.Context(), false); err != nil || len(partials(t, st)) != 0 {
		t.Errorf("a partial file that nobody uses is left: %v", err)
	}
}

// manifestOnly answers requests for manifests with that of an image that no registry
// would take.
func manifestOnly(img *registrytest.Image) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", img.Desc.MediaType)
		_, err := w.Write(img.Manifest)
		return err == nil
	}
}
