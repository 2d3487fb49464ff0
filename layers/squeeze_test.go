package layers

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/storetest"
)

// words is text that compresses as text does.
func words(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < n {
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], r.Uint64()>>r.UintN(60))
		b.WriteString(strings.Repeat(string(bytes.TrimRight(w[:], "\x00")), 1+int(r.UintN(3))))
		b.WriteByte(' ')
	}
	return b.String()
}

func squeeze(t testing.TB, s *Store) []Squeezed {
	t.Helper()
	out, err := s.Squeeze(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSqueeze(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, file("text", words(300_000))), archive(t, file("more", words(50_000)), file("big", words(600_000))))
	other := recompress(t, src, 1)
	img := load(t, s, src, "x")
	load(t, s, other, "x")
	out := squeeze(t, s)
	if len(out) != 4 {
		t.Fatalf("squeezed %+v, want four blobs", out)
	}
	for _, q := range out {
		if q.Kept != "" || q.Stored >= q.Size {
			t.Errorf("got %+v", q)
		}
		path := filepath.Join(s.root, "blobs", "sha256", q.Digest.Encoded()[:2], q.Digest.Encoded())
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the blob is still there: %v", err)
		}
	}
	for _, from := range []*memSource{src, other} {
		var m ocispec.Manifest
		if err := unmarshal(from.Raw, &m); err != nil {
			t.Fatal(err)
		}
		for _, l := range m.Layers {
			if got := readBlob(t, s, l); !bytes.Equal(got, from.Blobs[l.Digest]) {
				t.Errorf("blob %s is not what came in", l.Digest)
			}
		}
	}
	if again := squeeze(t, s); len(again) != 0 {
		t.Errorf("the second squeeze did %+v", again)
	}
	if c, err := s.GC(t.Context(), false); err != nil || c.Blobs != 0 {
		t.Errorf("gc removed %+v, %v", c, err)
	}
	info, err := s.Info(t.Context())
	if err != nil || info.Forms.Corrected != 4 || info.Forms.Kept != 0 || info.Forms.CorrectionBytes == 0 {
		t.Errorf("info: %+v, %v", info.Forms, err)
	}
	before := listing(t, s.root)
	load(t, s, src, "x") // nothing to read
	if after := listing(t, s.root); !slices.Equal(before, after) {
		t.Errorf("loading a squeezed image again changed files:\n%s\n%s", before, after)
	}
	// A reader that stops in the middle leaves nothing behind (wantClean looks).
	b, err := s.OpenLayerBlob(t.Context(), img.Manifests[0].Layers[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Remove(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.root, "blobs", "*", "*", "*")); len(left) != 0 {
		t.Errorf("left after the image was removed: %v", left)
	}
}

// TestSqueezeKeeps squeezes what has no correction: the blob stays and is not tried
// each time.
func TestSqueezeKeeps(t *testing.T) {
	s := newStore(t)
	var noise [100_000]byte
	rand.NewChaCha8([32]byte{}).Read(noise[:])
	src := image(t, archive(t, file("noise", string(noise[:])), file("a", "text")))
	var m ocispec.Manifest
	if err := unmarshal(src.Raw, &m); err != nil {
		t.Fatal(err)
	}
	l := m.Layers[0]
	load(t, s, src, "x")
	path := filepath.Join(s.root, "blobs", "sha256", l.Digest.Encoded()[:2], l.Digest.Encoded())
	raw := bytes.Clone(src.Blobs[l.Digest])
	raw[100] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out := squeeze(t, s)
	if len(out) != 1 || out[0].Kept == "" || out[0].Stored != out[0].Size {
		t.Fatalf("a damaged blob: %+v", out)
	}
	if again := squeeze(t, s); len(again) != 0 {
		t.Errorf("it was tried again: %+v", again)
	}
	if err := os.WriteFile(path, src.Blobs[l.Digest], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Squeeze(t.Context(), &SqueezeOptions{Again: true}); err != nil || len(out) != 1 || out[0].Kept != "" {
		t.Errorf("again: %+v, %v", out, err)
	}
	readBlob(t, s, l)
}

func TestSqueezeOnce(t *testing.T) {
	s := newStore(t)
	load(t, s, image(t, archive(t, file("a", words(10_000)))), "x")
	lock, err := s.lockSqueeze()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Squeeze(t.Context(), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("two at once: %v, want ErrBusy", err)
	}
	lock.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Squeeze(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if out := squeeze(t, s); len(out) != 1 || out[0].Kept != "" {
		t.Errorf("afterwards: %+v", out)
	}
}

// TestSqueezeFaults fails the first, the second, the third … operation on the disk
// until squeezing succeeds. After each failure the blob comes out right, and the next
// squeeze completes the work.
func TestSqueezeFaults(t *testing.T) {
	src := image(t, archive(t, file("a", words(20_000))))
	var m ocispec.Manifest
	if err := unmarshal(src.Raw, &m); err != nil {
		t.Fatal(err)
	}
	l := m.Layers[0]
	for n := int64(1); ; n++ {
		s := newStore(t)
		load(t, s, src, "x")
		d, count := failNth(n, unix.ENOSPC)
		faulty, err := Open(s.root, &Options{Disk: d})
		if err != nil {
			t.Fatal(err)
		}
		count.Store(0)
		_, err = faulty.Squeeze(t.Context(), nil)
		faulty.Close()
		if got := readBlob(t, s, l); !bytes.Equal(got, src.Blobs[l.Digest]) {
			t.Fatalf("operation %d: the blob is not what it was", n)
		}
		s.sweepTemp()
		if _, gcErr := s.GC(t.Context(), false); gcErr != nil {
			t.Fatal(gcErr)
		}
		squeeze(t, s)
		if f := forms(t, s)[l.Digest]; f.How != "corrected" {
			t.Fatalf("operation %d: afterwards %+v", n, f)
		}
		if got := readBlob(t, s, l); !bytes.Equal(got, src.Blobs[l.Digest]) {
			t.Fatalf("operation %d: the corrected blob is not what it was", n)
		}
		if files := withoutShards(listing(t, s.root)); slices.ContainsFunc(files, func(p string) bool {
			return strings.HasSuffix(p, l.Digest.Encoded()) && strings.HasPrefix(p, "/blobs/sha256")
		}) {
			t.Fatalf("operation %d: the blob is still there: %v", n, files)
		}
		if err == nil {
			if count.Load() >= n {
				t.Fatalf("operation %d failed, but squeezing did not", n)
			}
			break
		}
	}
}

// TestDamagedCorrection: nobody gets wrong bytes without an error, check says so, and
// loading again repairs.
func TestDamagedCorrection(t *testing.T) {
	s := newStore(t)
	src := image(t, archive(t, file("a", words(200_000))))
	img := load(t, s, src, "x")
	l := img.Manifests[0].Layers[0]
	squeeze(t, s)
	path := filepath.Join(s.root, "blobs", "corrections", l.Digest.Encoded()[:2], l.Digest.Encoded())
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 1 + len(good)/20 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := s.OpenLayerBlob(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := io.Copy(&got, b); err == nil && !bytes.Equal(got.Bytes(), src.Blobs[l.Digest]) {
			t.Errorf("byte %d: wrong bytes without an error", i)
		}
		b.Close()
	}
	if err := os.WriteFile(path, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Check(t.Context(), nil); err != nil || len(r.Problems) != 1 {
		t.Errorf("check found %+v, %v", r, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenLayerBlob(t.Context(), l); !errors.Is(err, ErrDamaged) {
		t.Errorf("a missing correction: %v, want ErrDamaged", err)
	}
	load(t, s, src, "x")
	if f := forms(t, s)[l.Digest]; f.How != index.FormKept.String() {
		t.Errorf("loaded again: %+v", f)
	}
	readBlob(t, s, l)
}

// TestSqueezeMembers squeezes a layer of several gzip members with odd headers and
// zeros behind.
func TestSqueezeMembers(t *testing.T) {
	s := newStore(t)
	tar := archive(t, file("a", words(100_000)), file("b", words(100_000)))
	var blob bytes.Buffer
	for _, part := range [][]byte{tar[:70_000], nil, tar[70_000:]} {
		z, _ := gzip.NewWriterLevel(&blob, gzip.BestCompression)
		z.Name, z.Comment, z.Extra = "name", "comment", []byte("extra")
		z.Write(part)
		z.Close()
	}
	blob.Write(make([]byte, 512))
	src := storetest.Image(t, "", storetest.Gzipped(tar, blob.Bytes()))
	img := load(t, s, src, "x")
	if out := squeeze(t, s); len(out) != 1 || out[0].Kept != "" {
		t.Errorf("got %+v", out)
	}
	if got := readBlob(t, s, img.Manifests[0].Layers[0]); !bytes.Equal(got, blob.Bytes()) {
		t.Error("it is not what came in")
	}
}
