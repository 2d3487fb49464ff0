package layers

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index"
)

// fillRecords puts the records of n images into the index, with three layers of their
// own and five that others have too, two names each and bodies.
func fillRecords(t testing.TB, s *Store, n int) {
	t.Helper()
	id := func(kind string, i int) digest.Digest { return digest.FromString(fmt.Sprint(kind, i)) }
	layer := func(tx *index.Tx, d digest.Digest) error {
		if _, err := tx.Layer(d); err == nil {
			return nil
		}
		slot, err := tx.NextLayerSlot()
		must(t, err)
		return tx.PutLayer(index.Layer{
			DiffID: d, Slot: slot, Size: 1 << 20, Created: now(), Entries: 100, Files: 90, Bytes: 1_000_000, Bodies: 90,
			BodyBytes: 900_000, MetaBytes: 10_000, Blobs: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: id("blob", slotOf(d)), Size: 400_000}},
		})
	}
	must(t, s.index.Update(t.Context(), "test", func(tx *index.Tx) error {
		for i := range n {
			img := index.Image{ID: id("image", i), Loaded: now(), Config: ocispec.Descriptor{Digest: id("image", i), Size: 2000}}
			img.Slot, _ = tx.NextViewSlot()
			for j := range 8 {
				d := id("shared", i/10*5+j)
				if j >= 5 {
					d = id("own", 3*i+j)
				}
				img.Layers = append(img.Layers, d)
				must(t, layer(tx, d))
			}
			manifest := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: id("manifest", i), Size: 1500}
			img.Manifests = []index.Manifest{{Descriptor: manifest}}
			for _, d := range img.Layers {
				img.Manifests[0].Layers = append(img.Manifests[0].Layers, ocispec.Descriptor{Digest: d, Size: 1 << 20, MediaType: ocispec.MediaTypeImageLayer})
			}
			must(t, tx.PutImage(img))
			for j := range 2 {
				must(t, setName(tx, fmt.Sprintf("docker.io/library/image-%d:%d", i, j), img.ID, manifest))
			}
			for j := range 10 {
				var sum index.Sum
				binary.BigEndian.PutUint64(sum[:], uint64(i*10+j)*0x9e3779b97f4a7c15)
				_, err := tx.AddBody(sum, index.Body{Pack: uint64(i + 1), Offset: int64(j) * 1000, Size: 1000})
				must(t, err)
			}
		}
		return nil
	}))
}

func slotOf(d digest.Digest) int { return int(d[10]) }

// TestThousandImages: the sizes of 1,000 images come from the index, in some ten
// milliseconds; and the index gives back their space when they have gone.
func TestThousandImages(t *testing.T) {
	s, err := Open(t.TempDir()+"/store", nil) // without content, so that it cannot be checked
	must(t, err)
	defer s.Close()
	fillRecords(t, s, 1000)
	for what, fn := range map[string]func() error{
		"info": func() error {
			i, err := s.Info(t.Context())
			if err == nil && (i.Images != 1000 || i.Names != 2000 || i.PackedFiles != 10_000 || i.Sizes.Layers != int64(i.Layers)*910_000) {
				t.Errorf("got %+v", i)
			}
			return err
		},
		"images": func() error {
			list, err := s.Images(t.Context())
			if err == nil && (len(list) != 1000 || list[0].Size != 8_000_000 || list[0].Unique != 3_000_000 || list[0].Shared != 5_000_000) {
				t.Errorf("got %d, %+v", len(list), list[0])
			}
			return err
		},
		"family": func() error { _, err := s.Family(t.Context()); return err },
		"nodes":  func() error { _, err := s.LayerNodes(t.Context(), false); return err },
	} {
		best, cpu := time.Hour, time.Hour
		for range 5 {
			start, used := time.Now(), cpuTime(t)
			must(t, fn())
			best, cpu = min(best, time.Since(start)), min(cpu, cpuTime(t)-used)
		}
		t.Logf("%s of 1,000 images: %v, of which %v of processor", what, best, cpu)
		// The time by the clock depends on what else the machine does.
		if cpu > 200*time.Millisecond && (what == "info" || what == "images") {
			t.Errorf("%s of 1,000 images takes %v of processor", what, cpu)
		}
	}
	before := indexSize(t, s)
	start := time.Now()
	r, err := s.Wipe(t.Context())
	must(t, err)
	if len(r.Deleted) != 1000 || indexSize(t, s) > before/10 {
		t.Errorf("%d images removed; the index had %d bytes and has %d", len(r.Deleted), before, indexSize(t, s))
	}
	t.Logf("wiped in %v; the index had %d bytes and has %d", time.Since(start), before, indexSize(t, s))
}

// cpuTime is the time that this process has had of all processors.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func indexSize(t testing.TB, s *Store) int64 {
	t.Helper()
	info, err := os.Stat(s.index.Path())
	must(t, err)
	return info.Size()
}
