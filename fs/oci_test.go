package fs

import (
	"bytes"
	"compress/gzip"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// gzipped makes an image like newImage, with compressed layers.
func gzipped(t testing.TB, layer []byte) (*memSource, ocispec.Descriptor, []byte) {
	t.Helper()
	src := newImage(t, "gzip", layer)
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	z.Write(layer)
	z.Close()
	blob := buf.Bytes()
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	src.Blobs[d.Digest] = blob
	old := marshal(t, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))})
	src.Raw = bytes.Replace(src.Raw, old, marshal(t, d), 1)
	src.Desc.Digest, src.Desc.Size = digest.FromBytes(src.Raw), int64(len(src.Raw))
	return src, d, blob
}

// noise is text that compresses, but not to nothing.
func noise(n int) string {
	r := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(4)))
	}
	return b.String()
}

func squeeze(t testing.TB, st *layers.Store) {
	t.Helper()
	out, err := st.Squeeze(t.Context(), nil)
	if err != nil || len(out) != 1 || out[0].Kept != "" {
		t.Fatalf("squeezed %+v, %v", out, err)
	}
}

// TestReadSqueezed reads a layer that is made again from many places at once.
func TestReadSqueezed(t *testing.T) {
	st := newStore(t)
	src, d, blob := gzipped(t, tarOf(t, file("text", noise(3_000_000))))
	load(t, st, src, "x:1")
	squeeze(t, st)
	f := offline(t, st)
	node := walkTo(t, f, "images/docker.io/library/x@1/oci/blobs/sha256/"+d.Digest.Encoded()).NodeId
	if same := walkTo(t, f, "oci/blobs/sha256/"+d.Digest.Encoded()); same.Size != uint64(len(blob)) {
		t.Errorf("size %d, want %d", same.Size, len(blob))
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			buf := make([]byte, 64<<10)
			for range 30 {
				off := r.IntN(len(blob))
				got, errno := f.Read(node, buf, int64(off))
				if want := blob[off:min(len(blob), off+len(buf))]; errno != 0 || !bytes.Equal(got, want) {
					t.Errorf("at %d: %d bytes, errno %v", off, len(got), errno)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, errno := f.Read(node, make([]byte, 10), int64(len(blob))); errno != 0 || len(got) != 0 {
		t.Errorf("at the end: %d bytes, errno %v", len(got), errno)
	}
	f.layerBlobs.trim(time.Now().Add(time.Hour))
	if n := len(f.layerBlobs.open); n != 0 {
		t.Errorf("%d files stay open", n)
	}
	if got, errno := f.Read(node, make([]byte, len(blob)), 0); errno != 0 || !bytes.Equal(got, blob) {
		t.Errorf("made a second time: %d bytes, errno %v", len(got), errno)
	}
	f.layerBlobs.close()
}

// TestReadDamagedCorrection: who reads to the end of a layer that does not come out right gets an error.
func TestReadDamagedCorrection(t *testing.T) {
	st := newStore(t)
	src, d, blob := gzipped(t, tarOf(t, file("text", noise(500_000))))
	load(t, st, src, "x:1")
	squeeze(t, st)
	path := filepath.Join(st.Root(), "blobs", "corrections", d.Digest.Encoded()[:2], d.Digest.Encoded())
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 6; i < len(raw); i += 1 + len(raw)/10 {
		bad := bytes.Clone(raw)
		bad[i] ^= 0xff
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		f := offline(t, st)
		node := walkTo(t, f, "oci/blobs/sha256/"+d.Digest.Encoded()).NodeId
		got, errno := f.Read(node, make([]byte, len(blob)), 0)
		if errno != syscall.EIO && !bytes.Equal(got, blob) {
			t.Errorf("byte %d: %d wrong bytes with errno %v", i, len(got), errno)
		}
		f.layerBlobs.close()
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOCIIsLazy: listing the root and the image directories reads no manifest.
func TestOCIIsLazy(t *testing.T) {
	st := newStore(t)
	src, d, _ := gzipped(t, tarOf(t, file("text", "hello")))
	load(t, st, src, "x:1")
	f := offline(t, st)
	for _, path := range []string{"oci", "images/docker.io/library/x@1/oci"} {
		if out := walkTo(t, f, path); out.Mode != syscall.S_IFDIR|0o555 || out.Nlink != 3 {
			t.Errorf("%s: mode %o, %d links", path, out.Mode, out.Nlink)
		}
	}
	s := f.snap.Load()
	if s.oci.made.Load() != nil {
		t.Error("the layout of the store was made for nobody")
	}
	for _, v := range s.views {
		if shownOCI(v) != nil {
			t.Error("the layout of an image was made for nobody")
		}
	}
	walkTo(t, f, "oci/blobs/sha256/"+d.Digest.Encoded())
	if s.oci.made.Load() == nil {
		t.Error("the layout of the store was not made")
	}
}
