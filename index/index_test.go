package index

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func open(t *testing.T) *DB {
	t.Helper()
	return New(filepath.Join(t.TempDir(), "index.db"), time.Second)
}

func mustUpdate(t *testing.T, db *DB, fn func(*Tx) error) {
	t.Helper()
	if err := db.Update(t.Context(), "test", fn); err != nil {
		t.Fatal(err)
	}
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func sample(tx *Tx) error {
	layer := digest.FromString("layer")
	config := digest.FromString("config")
	manifest := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("manifest"), Size: 8}
	blob := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("gz"), Size: 2}
	slot, err := tx.NextLayerSlot()
	if err != nil {
		return err
	}
	if err := tx.PutLayer(Layer{DiffID: layer, Slot: slot, Size: 1024, Blobs: []ocispec.Descriptor{blob}, Created: epoch, Entries: 3, Files: 2, Bytes: 10, Bodies: 1, BodyBytes: 5, MetaBytes: 300}); err != nil {
		return err
	}
	if err := tx.PutForm(sumOf(blob.Digest), Form{Layer: sumOf(layer), Size: blob.Size, How: FormKept, Stored: blob.Size}); err != nil {
		return err
	}
	if slot, err = tx.NextViewSlot(); err != nil {
		return err
	}
	if err := tx.PutImage(Image{
		ID: config, Slot: slot, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config, Size: 6},
		Manifests: []Manifest{{Descriptor: manifest, Layers: []ocispec.Descriptor{blob}}},
		Layers:    []digest.Digest{layer}, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Created: &epoch, Loaded: epoch,
	}); err != nil {
		return err
	}
	if slot, err = tx.NextViewSlot(); err != nil {
		return err
	}
	if err := tx.PutName(Name{Name: "docker.io/library/x:1", Image: config, Manifest: manifest, Slot: slot, Created: epoch}); err != nil {
		return err
	}
	if slot, err = tx.NextContainerSlot(); err != nil {
		return err
	}
	if err := tx.PutContainer(Container{
		ID: strings.Repeat("c0", 32), Slot: slot, Names: []string{"web"}, Image: config, ImageName: "docker.io/library/x:1",
		Layers: []digest.Digest{layer}, Labels: map[string]string{"tier": "front"}, Created: epoch,
	}); err != nil {
		return err
	}
	rec := LayerRecord{ID: strings.Repeat("ab", 32), Names: []string{"base"}, DiffID: layer, Blob: &blob, Layers: []digest.Digest{layer}, Created: epoch, Metadata: "m", Flags: map[string]string{"f": ""}}
	if err := tx.PutLayerRecord(rec); err != nil {
		return err
	}
	if err := tx.PutData(Owner{KindImage, config.Encoded()}, []byte("../key"), Data{Digest: digest.FromString("data"), Size: 4, Stored: epoch}); err != nil {
		return err
	}
	_, err = tx.AddBody(Sum{1, 2, 3}, Body{Pack: 7, Offset: 4096, Size: 5})
	return err
}

// TestSchema holds the drawing in doc.go against what is really written.
func TestSchema(t *testing.T) {
	db := open(t)
	mustUpdate(t, db, sample)
	var got strings.Builder
	if err := db.Dump(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "schema.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the schema has changed; it needs a new version or feature:\n%s", got.String())
	}
}

func TestEmptyIsReadable(t *testing.T) {
	db := open(t)
	err := db.View(t.Context(), func(tx *Tx) error {
		if _, err := tx.Name("x"); !errors.Is(err, ErrNotFound) {
			t.Errorf("Name: %v, want ErrNotFound", err)
		}
		if _, ok, err := tx.Body(Sum{}); ok || err != nil {
			t.Errorf("Body: %v, %v", ok, err)
		}
		return tx.EachImage(func(Image) error { t.Error("an image"); return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUpdateIsAtomic(t *testing.T) {
	db := open(t)
	stop := errors.New("stop")
	err := db.Update(t.Context(), "test", func(tx *Tx) error {
		if err := sample(tx); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatalf("got %v, want %v", err, stop)
	}
	var dump strings.Builder
	if err := db.Dump(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	if dump.Len() != 0 {
		t.Errorf("something stayed:\n%s", dump.String())
	}
}

func TestGenerationAndSlots(t *testing.T) {
	db := open(t)
	mustUpdate(t, db, sample)
	mustUpdate(t, db, func(tx *Tx) error {
		_, err := tx.AddBody(Sum{9}, Body{Size: 1})
		return err
	})
	mustUpdate(t, db, func(tx *Tx) error {
		if g := tx.Generation(); g != 1 {
			t.Errorf("generation %d, want 1: bodies are not visible", g)
		}
		if err := tx.DeleteName("docker.io/library/x:1"); err != nil {
			return err
		}
		slot, err := tx.NextViewSlot()
		if slot != 3 {
			t.Errorf("slot %d, want 3: a slot is never given again", slot)
		}
		return err
	})
}

func TestSlotsRunOut(t *testing.T) {
	db := open(t)
	mustUpdate(t, db, func(tx *Tx) error { return tx.setCounter(keySlotLayer, MaxSlot-1) })
	mustUpdate(t, db, func(tx *Tx) error {
		if slot, err := tx.NextLayerSlot(); slot != MaxSlot || err != nil {
			t.Errorf("got %d, %v", slot, err)
		}
		if _, err := tx.NextLayerSlot(); err == nil {
			t.Error("a slot beyond the last one")
		}
		return nil
	})
}

func TestNewerVersionIsRefused(t *testing.T) {
	db := open(t)
	b, err := bolt.Open(db.Path(), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("v2")); return err })
	if err != nil || b.Close() != nil {
		t.Fatal(err)
	}
	if err := db.View(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrNewer) {
		t.Errorf("View: %v, want ErrNewer", err)
	}
	if err := db.Update(t.Context(), "test", func(*Tx) error { return nil }); !errors.Is(err, ErrNewer) {
		t.Errorf("Update: %v, want ErrNewer", err)
	}
}

func TestDamageIsAnError(t *testing.T) {
	db := open(t)
	if err := os.WriteFile(db.Path(), []byte(strings.Repeat("no index at all ", 1024)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := db.View(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

// TestDamageNeverPanics overwrites parts of an index and reads all of it, and then
// writes to it: every answer is fine but a crash or a hang.
func TestDamageNeverPanics(t *testing.T) {
	db := open(t)
	mustUpdate(t, db, func(tx *Tx) error {
		for i := range 2000 {
			if _, err := tx.AddBody(Sum{byte(i >> 8), byte(i)}, Body{Pack: 1, Size: 1}); err != nil {
				return err
			}
		}
		return sample(tx)
	})
	sound, err := os.ReadFile(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	damaged := 0
	for range 300 {
		bad := slices.Clone(sound)
		for range 1 + rnd.IntN(8) {
			at := rnd.IntN(len(bad) - 64)
			for i := range 1 + rnd.IntN(64) {
				bad[at+i] = byte(rnd.Uint32())
			}
		}
		if rnd.IntN(4) == 0 {
			bad = bad[:rnd.IntN(len(bad))]
		}
		if err := os.WriteFile(db.Path(), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := db.Dump(t.Context(), io.Discard); err != nil {
			damaged++
		}
		_ = db.Update(t.Context(), "test", func(tx *Tx) error { return tx.PutLayer(Layer{DiffID: digest.FromString("new")}) })
	}
	if damaged == 0 {
		t.Error("no damage was found in 300 damaged files")
	}
}

func TestBusyNamesTheHolder(t *testing.T) {
	db := New(filepath.Join(t.TempDir(), "index.db"), 50*time.Millisecond)
	held, done := make(chan struct{}), make(chan struct{})
	go func() {
		_ = db.Update(context.Background(), "a long load", func(*Tx) error { close(held); <-done; return nil })
	}()
	<-held
	err := db.Update(t.Context(), "tag", func(*Tx) error { return nil })
	if want := fmt.Sprintf("process %d (a long load)", os.Getpid()); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want ErrBusy with %q", err, want)
	}
	if err := db.View(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrBusy) {
		t.Errorf("View: got %v, want ErrBusy", err)
	}
	close(done)
}

// TestManyProcesses lets several processes count in one index; no count is lost.
func TestManyProcesses(t *testing.T) {
	if path := os.Getenv("INDEX_TEST_COUNT"); path != "" {
		db := New(path, 0)
		for range 50 {
			mustUpdate(t, db, func(tx *Tx) error { _, err := tx.NextViewSlot(); return err })
		}
		return
	}
	db := open(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestManyProcesses$")
			cmd.Env = append(os.Environ(), "INDEX_TEST_COUNT="+db.Path())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	mustUpdate(t, db, func(tx *Tx) error {
		if slot, _ := tx.NextViewSlot(); slot != 201 {
			t.Errorf("slot %d, want 201", slot)
		}
		return nil
	})
}

func TestPrefix(t *testing.T) {
	db := open(t)
	a := digest.NewDigestFromEncoded(digest.SHA256, strings.Repeat("a", 64))
	b := digest.NewDigestFromEncoded(digest.SHA256, "aaab"+strings.Repeat("0", 60))
	mustUpdate(t, db, func(tx *Tx) error {
		return errors.Join(tx.PutLayer(Layer{DiffID: a}), tx.PutLayer(Layer{DiffID: b}))
	})
	for prefix, want := range map[string]int{"aaa": 2, "aaaa": 1, "aaab": 1, "b": 0, "": 2} {
		err := db.View(t.Context(), func(tx *Tx) error {
			found, err := tx.LayersByPrefix(prefix, 10)
			if len(found) != want {
				t.Errorf("%q: %d layers, want %d", prefix, len(found), want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestBodies(t *testing.T) {
	db := open(t)
	mustUpdate(t, db, func(tx *Tx) error {
		for i := range 300 {
			sum := Sum{byte(i >> 8), byte(i)}
			if added, err := tx.AddBody(sum, Body{Pack: 1, Offset: int64(i), Size: 1}); !added || err != nil {
				t.Fatalf("body %d: %v, %v", i, added, err)
			}
		}
		added, err := tx.AddBody(Sum{0, 5}, Body{Pack: 2})
		if added {
			t.Error("a body was added twice")
		}
		return errors.Join(err, tx.DeleteBody(Sum{0, 7}))
	})
	n := 0
	err := db.View(t.Context(), func(tx *Tx) error {
		if b, ok, err := tx.Body(Sum{0, 5}); !ok || err != nil || b.Pack != 1 || b.Offset != 5 {
			t.Errorf("got %+v, %v, %v", b, ok, err)
		}
		return tx.EachBody(Sum{0, 200}, func(Sum, Body) error { n++; return nil })
	})
	if err != nil || n != 100 {
		t.Errorf("%d bodies from 200 on, want 100; %v", n, err)
	}
}

// TestReadOnlyDirectory reads the index of somebody else, without the right to
// make a lock file.
func TestReadOnlyDirectory(t *testing.T) {
	db := open(t)
	mustUpdate(t, db, sample)
	dir := filepath.Dir(db.Path())
	if err := os.Remove(db.Path() + ".lock"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	err := db.View(t.Context(), func(tx *Tx) error { _, err := tx.Name("docker.io/library/x:1"); return err })
	if err != nil {
		t.Error(err)
	}
}
