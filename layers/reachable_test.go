package layers

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
)

// A picture is what must be on the disk, or what is there: for each file its bytes,
// of a pack those that are no holes.
type picture map[string]int64

// reachable computes from the records alone what must be on the disk when nobody
// holds a lease. It shares no code with the collection.
func reachable(t testing.TB, s *Store) picture {
	t.Helper()
	p := picture{}
	needed := map[digest.Digest]bool{}
	blob := func(dir string, d digest.Digest) {
		p[fmt.Sprintf("blobs/%s/%s/%s", dir, d.Encoded()[:2], d.Encoded())] = -1
	}
	err := s.view(t.Context(), func(tx *index.Tx) error {
		need := func(stack []digest.Digest) {
			for _, d := range stack {
				needed[d] = true
			}
		}
		must(t, tx.EachImage(func(img index.Image) error {
			need(img.Layers)
			blob("sha256", img.Config.Digest)
			for _, m := range img.Manifests {
				blob("sha256", m.Descriptor.Digest)
			}
			return nil
		}))
		must(t, tx.EachLayerRecord(func(r index.LayerRecord) error { need(r.Layers); return nil }))
		must(t, tx.EachContainer(func(c index.Container) error {
			need(c.Layers)
			p["containers/"+c.ID] = -1
			return nil
		}))
		must(t, tx.EachOwnedData(func(_ index.Owner, _ []byte, d index.Data) error { blob("sha256", d.Digest); return nil }))
		return tx.EachLayer(func(l index.Layer) error {
			if !needed[l.DiffID] {
				t.Errorf("nothing needs the layer %s, but it has a record", l.DiffID)
			}
			delete(needed, l.DiffID)
			p["layers/"+l.DiffID.Encoded()] = -1
			for _, b := range l.Blobs {
				switch f, err := tx.Form(sumOf(b.Digest)); {
				case err != nil:
					return err
				case f.How == index.FormKept:
					blob("sha256", b.Digest)
				case f.How == index.FormCorrected:
					blob("corrections", b.Digest)
				}
			}
			return nil
		})
	})
	must(t, err)
	for d := range needed {
		t.Errorf("the layer %s is needed, but it has no record", d)
	}
	addBodies(t, s, p)
	return p
}

// addBodies adds the files that hold the bodies of the layers, and compares the index
// of bodies with them.
func addBodies(t testing.TB, s *Store, p picture) {
	bodies := map[tree.Sum]tree.Body{}
	blocks := map[string]map[int64]bool{}
	for path := range maps.Clone(p) {
		if !strings.HasPrefix(path, "layers/") {
			continue
		}
		tr, err := tree.Open(filepath.Join(s.root, path, "tree"))
		must(t, err)
		must(t, tr.EachBody(func(b tree.Body) error {
			bodies[b.Sum] = b
			if b.Place.Pack == 0 {
				p[fmt.Sprintf("objects/%02x/%x", b.Sum[0], b.Sum)] = -1
				return nil
			}
			pack := fmt.Sprintf("packs/%016x", b.Place.Pack)
			if blocks[pack] == nil {
				blocks[pack] = map[int64]bool{}
			}
			for n := b.Place.Offset / 4096; n <= (b.Place.Offset+b.Size-1)/4096; n++ {
				blocks[pack][n] = true
			}
			return nil
		}))
		must(t, tr.Close())
	}
	for pack, used := range blocks {
		p[pack] = int64(len(used)) * 4096
	}
	must(t, s.view(t.Context(), func(tx *index.Tx) error {
		return tx.EachBody(index.Sum{}, func(sum index.Sum, b index.Body) error {
			want, ok := bodies[sum]
			if !ok || want.Place.Pack != b.Pack || want.Place.Offset != b.Offset || want.Size != b.Size {
				t.Errorf("the index has the body %x at %+v, want %+v, %v", sum, b, want, ok)
			}
			delete(bodies, sum)
			return nil
		})
	}))
	for sum := range bodies {
		t.Errorf("the index does not have the body %x", sum)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onDisk lists what is there.
func onDisk(t testing.TB, s *Store) picture {
	t.Helper()
	p := picture{}
	for pattern, packs := range map[string]bool{
		"layers/*": false, "containers/*": false, "objects/*/*": false, "blobs/*/*/*": false, "leases/*": false,
		"tmp/*": false, "blobs/partial/*": false, "packs/*": true,
	} {
		paths, err := filepath.Glob(filepath.Join(s.root, pattern))
		must(t, err)
		for _, path := range paths {
			n := int64(-1)
			if packs {
				n = dataOf(t, path)
			}
			p[strings.TrimPrefix(path, s.root+"/")] = n
		}
	}
	return p
}

// dataOf returns how many bytes of a file are no holes, in whole blocks.
func dataOf(t testing.TB, path string) (sum int64) {
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	for off := int64(0); off < info.Size(); {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err != nil {
			break
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		must(t, err)
		sum += (hole - data + 4095) / 4096 * 4096
		off = hole
	}
	return sum
}

// wantExact fails unless what is on the disk is what is reachable, to the byte.
func wantExact(t testing.TB, s *Store) {
	t.Helper()
	want, got := reachable(t, s), onDisk(t, s)
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if n, ok := got[path]; !ok || n != want[path] {
			t.Errorf("%s: %d bytes on the disk (%v), want %d", path, n, ok, want[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is on the disk, but nothing needs it", path)
		}
	}
}

// space is what the store takes on the disk, without the index, the locks and the
// directories that stay when they are empty.
func space(t testing.TB, s *Store) (sum int64) {
	t.Helper()
	must(t, filepath.WalkDir(s.root, func(path string, e fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, s.root+"/")
		inLayer := strings.HasPrefix(name, "layers/")
		if err != nil || e.IsDir() && !inLayer || !strings.Contains(name, "/") {
			return err
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		sum += st.Blocks * 512
		return err
	}))
	return sum
}
