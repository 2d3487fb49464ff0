package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/testenv"
)

// realImage loads an image as it is pulled.
func realImage(t testing.TB, s *Store, names ...string) *Image {
	t.Helper()
	return load(t, s, layout(t, filepath.Join(testenv.Shared(t), "images", "alpine.zstd3.oci"))[0], names...)
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// R1.1: ID given or generated, names, top layer, metadata, date; taken ones are refused
// with nothing changed.
func TestImageCreate(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	base := realImage(t, s, "alpine:1")
	top := string(Chain(base.DiffIDs()))
	date := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	id := strings.Repeat("0f", 32)
	img, err := s.CreateImage(ctx, top, &CreateImageOptions{ID: id, Names: []string{"a:1", "a:1", "b:1"}, Created: date, Metadata: "text", Flags: map[string]string{"f": "1"}})
	must(t, err)
	if img.ID.Encoded() != id || len(img.Names) != 2 || !img.Created.Equal(date) || img.Metadata != "text" || img.Flags["f"] != "1" || !slices.Equal(img.Layers, base.Layers) {
		t.Errorf("got %+v", img)
	}
	if raw, err := s.Blob(img.Config.Digest); err != nil || digest.FromBytes(raw) == img.ID {
		t.Errorf("config %q, %v", raw, err)
	}
	before, _ := s.Images(ctx)
	for what, o := range map[string]*CreateImageOptions{
		"id": {ID: id}, "id of another kind": {ID: digest.Digest(Chain(base.DiffIDs())).Encoded()},
	} {
		_, err := s.CreateImage(ctx, top, o)
		wantErr(t, what, err, ErrDuplicateID)
	}
	_, err = s.CreateImage(ctx, top, &CreateImageOptions{Names: []string{"new:1", "b:1"}})
	wantErr(t, "name", err, ErrDuplicateName)
	_, err = s.CreateImage(ctx, "absent", nil)
	wantErr(t, "layer", err, ErrLayerUnknown)
	_, err = s.CreateImage(ctx, top, &CreateImageOptions{ID: "xyz"})
	wantErr(t, "bad id", err, ErrInvalidName)
	_, err = s.CreateImage(ctx, top, &CreateImageOptions{Config: []byte(`{"rootfs":{"type":"layers","diff_ids":[]}}`)})
	wantErr(t, "config of other layers", err, ErrInvalidImage)
	if after, _ := s.Images(ctx); len(after) != len(before) {
		t.Errorf("a refused image is there: %v", after)
	}
	// The same twice: the second gets an ID that is no digest.
	one, err := s.CreateImage(ctx, top, &CreateImageOptions{Created: date})
	must(t, err)
	two, err := s.CreateImage(ctx, top, &CreateImageOptions{Created: date})
	if err != nil || one.ID == two.ID || one.Config.Digest != two.Config.Digest || one.ID != one.Config.Digest {
		t.Errorf("got %v and %v, %v", one, two, err)
	}
	// R2.10: lists by top layer.
	if list, err := s.ImagesByTopLayer(ctx, top); err != nil || len(list) != 4 {
		t.Errorf("got %d images on %s, %v", len(list), top, err)
	}
	empty, err := s.CreateImage(ctx, "", nil)
	if err != nil || len(empty.Layers) != 0 {
		t.Errorf("an image of nothing: %+v, %v", empty, err)
	}
}

// R1.2, R2.3: by ID, name and unique abbreviation, over all kinds.
func TestItemsAreFound(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := realImage(t, s, "alpine:1")
	rec, err := s.CreateLayer(ctx, &CreateLayerOptions{ID: "abc1" + strings.Repeat("0", 60), Names: []string{"rec"}})
	must(t, err)
	_, err = s.CreateLayer(ctx, &CreateLayerOptions{ID: "abc2" + strings.Repeat("0", 60)})
	must(t, err)
	c, err := s.CreateContainer(ctx, &ContainerOptions{Image: "alpine:1", ID: "abc3" + strings.Repeat("0", 60), Names: []string{"box"}})
	must(t, err)
	top := digest.Digest(Chain(img.DiffIDs())).Encoded()
	for name, want := range map[string]string{
		"alpine:1": img.ID.Encoded(), string(img.ID): img.ID.Encoded(), img.ID.Encoded()[:12]: img.ID.Encoded(),
		"rec": rec.ID, rec.ID: rec.ID, "abc1": rec.ID, "box": c.ID, c.ID: c.ID, "abc3": c.ID, top: top, "sha256:" + top: top,
	} {
		if id, err := s.Lookup(ctx, name); err != nil || id != want {
			t.Errorf("%s: got %s, %v, want %s", name, id, err, want)
		}
		if ok, err := s.Exists(ctx, name); !ok || err != nil {
			t.Errorf("%s: does not exist, %v", name, err)
		}
	}
	_, err = s.Lookup(ctx, "abc")
	wantErr(t, "abbreviation", err, ErrAmbiguous)
	for _, id := range []string{rec.ID, "abc2" + strings.Repeat("0", 60)} {
		if !strings.Contains(err.Error(), id) {
			t.Errorf("%v does not list %s", err, id)
		}
	}
	for _, name := range []string{"absent", strings.Repeat("9", 64), "", "ab"} {
		_, err := s.Item(ctx, name)
		wantErr(t, name, err, ErrNotAnID)
		wantErr(t, name, s.SetMetadata(ctx, name, "x"), ErrNotAnID)
		wantErr(t, name, s.SetNames(ctx, name, "x"), ErrNotAnID)
	}
}

// R1.3, R1.4, R1.6: names move, metadata and flags, on all kinds.
func TestItemsAreChanged(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := realImage(t, s, "alpine:1")
	other := load(t, s, image(t, archive(t, file("a", "a"))), "other:1", "other:2")
	one, err := s.CreateLayer(ctx, &CreateLayerOptions{Names: []string{"one", "uno"}})
	must(t, err)
	_, err = s.CreateLayer(ctx, &CreateLayerOptions{Names: []string{"two"}})
	must(t, err)
	for _, name := range []string{"box", "crate"} {
		_, err := s.CreateContainer(ctx, &ContainerOptions{Image: "alpine:1", Names: []string{name, name + "2"}})
		must(t, err)
	}
	top := string(Chain(img.DiffIDs()))
	for _, item := range []string{string(img.ID), "two", "box", top} {
		must(t, s.SetMetadata(ctx, item, "text of "+item))
		must(t, s.SetFlag(ctx, item, "set", "v"))
		must(t, s.SetFlag(ctx, item, "cleared", ""))
		must(t, s.ClearFlag(ctx, item, "cleared"))
		must(t, s.ClearFlag(ctx, item, "never"))
		it, err := s.Item(ctx, item)
		if err != nil || it.Metadata != "text of "+item || len(it.Flags) != 1 || it.Flags["set"] != "v" {
			t.Errorf("%s: got %+v, %v", item, it, err)
		}
	}
	wantErr(t, "flag", s.SetFlag(ctx, "two", "", "v"), ErrInvalidName)
	wantErr(t, "metadata", s.SetMetadata(ctx, "two", "\xff"), ErrInvalidName)
	must(t, s.SetNames(ctx, string(img.ID), "other:1", "x:1", "other:1"))
	must(t, s.SetNames(ctx, "two", "one", "two", "one"))
	must(t, s.SetNames(ctx, "box", "crate", "box"))
	for name, want := range map[string]string{"other:1": img.ID.Encoded(), "x:1": img.ID.Encoded(), "other:2": other.ID.Encoded(), "uno": one.ID} {
		if id, err := s.Lookup(ctx, name); err != nil || id != want {
			t.Errorf("%s: got %s, %v", name, id, err)
		}
	}
	if a, b := lookup(t, s, "one"), lookup(t, s, "two"); a != b {
		t.Errorf("the name of a layer record did not move: %s, %s", a, b)
	}
	if a, b := lookup(t, s, "crate"), lookup(t, s, "box"); a != b || lookup(t, s, "crate2") == a {
		t.Errorf("the name of a container did not move: %s, %s", a, b)
	}
	wantErr(t, "old name", s.SetNames(ctx, "alpine:1", "y"), ErrNotAnID)
	must(t, s.SetNames(ctx, string(img.ID)))
	if got, err := s.Image(ctx, string(img.ID)); err != nil || len(got.Names) != 0 {
		t.Errorf("an image may have no name: %v, %v", got, err)
	}
}

func lookup(t testing.TB, s *Store, name string) string {
	t.Helper()
	id, err := s.Lookup(t.Context(), name)
	must(t, err)
	return id
}

// R1.5: any bytes in a key, any size, never a path.
func TestBigDataKeys(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := realImage(t, s, "alpine:1")
	rec, err := s.CreateLayer(ctx, nil)
	must(t, err)
	c, err := s.CreateContainer(ctx, &ContainerOptions{Image: "alpine:1"})
	must(t, err)
	keys := []string{"", ".", "..", "/", "/etc/passwd", "../../x", "a\x00b", "a\nb", "\xff\xfe", strings.Repeat("k", index.MaxDataKey), "ключ", "sha256:" + strings.Repeat("0", 64)}
	large := make([]byte, 5<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range large {
		large[i] = byte(r.Uint32())
	}
	for _, item := range []string{string(img.ID), rec.ID, c.ID} {
		for i, key := range keys {
			data := append([]byte(item+key), large[:i*400_000]...)
			d, err := s.SetBigData(ctx, item, []byte(key), bytes.NewReader(data))
			if err != nil || d.Size != int64(len(data)) || d.Digest != digest.FromBytes(data) {
				t.Fatalf("%.20q: got %+v, %v", key, d, err)
			}
			got, rc, err := s.BigData(ctx, item, []byte(key))
			must(t, err)
			raw, err := io.ReadAll(rc)
			if err = errors.Join(err, rc.Close()); err != nil || !bytes.Equal(raw, data) || got.Digest != d.Digest {
				t.Fatalf("%.20q: got %d bytes, %v", key, len(raw), err)
			}
		}
		list, err := s.ListBigData(ctx, item)
		if err != nil || len(list) != len(keys) || !slices.IsSortedFunc(list, func(a, b DataItem) int { return bytes.Compare(a.Key, b.Key) }) {
			t.Errorf("got %d keys, %v", len(list), err)
		}
		must(t, s.RemoveBigData(ctx, item, []byte("..")))
		wantErr(t, "removed twice", s.RemoveBigData(ctx, item, []byte("..")), ErrNoData)
		_, _, err = s.BigData(ctx, item, []byte(".."))
		wantErr(t, "removed", err, ErrNoData)
	}
	_, err = s.SetBigData(ctx, rec.ID, make([]byte, index.MaxDataKey+1), strings.NewReader("x"))
	wantErr(t, "long key", err, ErrInvalidName)
	_, err = s.SetBigData(ctx, rec.ID, []byte("k"), io.MultiReader(strings.NewReader("half"), &failingReader{}))
	if err == nil {
		t.Error("data that cannot be read to its end is stored")
	}
	wantErr(t, "half", s.RemoveBigData(ctx, rec.ID, []byte("k")), ErrNoData)
	_, err = s.GC(ctx, false)
	must(t, err)
	wantExact(t, s)
	d, rc, err := s.BigData(ctx, rec.ID, nil)
	must(t, err)
	must(t, rc.Close())
	must(t, os.WriteFile(filepath.Join(s.root, "blobs", "sha256", d.Digest.Encoded()[:2], d.Digest.Encoded()), []byte("other"), 0o600))
	_, rc, err = s.BigData(ctx, rec.ID, nil)
	must(t, err)
	_, err = io.ReadAll(rc)
	wantErr(t, "damaged", errors.Join(err, rc.Close()), ErrDamaged)
	_, err = s.SetBigData(ctx, rec.ID, nil, strings.NewReader(rec.ID)) // repairs it
	must(t, err)
}

type failingReader struct{}

func (*failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// R2.1, R2.4, R2.5, R2.8: layers on layers, the checks, and the cascade.
func TestLayerRecords(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := realImage(t, s, "alpine:1")
	chain := string(Chain(img.DiffIDs()))
	tarOf := func(name string) io.Reader { return bytes.NewReader(archive(t, file(name, name))) }
	a, err := s.CreateLayerFrom(ctx, &CreateLayerOptions{Parent: chain, Names: []string{"a"}}, tarOf("a"), nil)
	must(t, err)
	b, err := s.CreateLayer(ctx, &CreateLayerOptions{Parent: "a", Names: []string{"b"}, Metadata: "m"})
	must(t, err)
	if len(a.Layers) != len(img.Layers)+1 || len(b.Layers) != len(a.Layers) || b.Parent != a.ID || b.Size != -1 {
		t.Errorf("got %+v and %+v", a, b)
	}
	_, err = s.CreateContainer(ctx, &ContainerOptions{Image: "alpine:1", Names: []string{"box"}})
	must(t, err)
	for what, o := range map[string]struct {
		o    CreateLayerOptions
		want error
	}{
		"container": {CreateLayerOptions{Parent: "box"}, ErrParentIsContainer}, "parent": {CreateLayerOptions{Parent: "absent"}, ErrLayerUnknown},
		"id": {CreateLayerOptions{ID: a.ID}, ErrDuplicateID}, "image id": {CreateLayerOptions{ID: img.ID.Encoded()}, ErrDuplicateID},
		"chain id": {CreateLayerOptions{ID: digest.Digest(chain).Encoded()}, ErrDuplicateID}, "name": {CreateLayerOptions{Names: []string{"a"}}, ErrDuplicateName},
		"bad id": {CreateLayerOptions{ID: "short"}, ErrInvalidName}, "bad name": {CreateLayerOptions{Names: []string{"a\nb"}}, ErrInvalidName},
	} {
		_, err := s.CreateLayer(ctx, &o.o)
		wantErr(t, what, err, o.want)
		_, err = s.CreateLayerFrom(ctx, &o.o, tarOf("x"), nil)
		wantErr(t, what+" from a tar", err, o.want)
	}
	before := onDisk(t, s)
	for _, bad := range []string{"no tar at all, whatever it is called, and long enough to be one if it wanted to", "\x1f\x8b\x08"} {
		if _, err := s.ApplyLayer(ctx, "b", strings.NewReader(bad), nil); err == nil {
			t.Errorf("%q was applied", bad)
		}
	}
	_, err = s.ApplyLayer(ctx, "b", tarOf("b"), &ApplyOptions{MaxBytes: 100})
	wantErr(t, "large", err, ErrTooLarge)
	if after := onDisk(t, s); len(after) != len(before) {
		t.Errorf("failed applies have left something: %v, %v", before, after)
	}
	b, err = s.ApplyLayer(ctx, "b", tarOf("b"), nil)
	if err != nil || b.Blob == nil || b.Blob.Digest != b.DiffID.Algorithm().FromBytes(archive(t, file("b", "b"))) {
		t.Fatalf("got %+v, %v", b, err)
	}
	_, err = s.ApplyLayer(ctx, "b", tarOf("b"), nil)
	wantErr(t, "twice", err, ErrApplied)
	_, err = s.ApplyLayer(ctx, chain, tarOf("b"), nil)
	wantErr(t, "an image's layer", err, ErrApplied)
	if list, err := s.LayersByDigest(ctx, b.DiffID); err != nil || len(list) != 1 || list[0].DiffID != b.DiffID {
		t.Errorf("by digest: %v, %v", list, err)
	}

	_, err = s.DeleteLayer(ctx, "a", false)
	wantErr(t, "below b", err, ErrLayerHasChildren)
	_, err = s.DeleteLayer(ctx, chain, false)
	wantErr(t, "below a", err, ErrLayerHasChildren)
	made, err := s.CreateImage(ctx, "b", &CreateImageOptions{Names: []string{"made:1"}})
	must(t, err)
	_, err = s.DeleteLayer(ctx, "b", false)
	wantErr(t, "of an image", err, ErrLayerUsedByImage)
	_, err = s.DeleteLayer(ctx, string(b.DiffID), false)
	wantErr(t, "by its DiffID", err, ErrLayerUsedByImage)
	_, err = s.CreateContainer(ctx, &ContainerOptions{Image: "made:1", Names: []string{"made"}})
	must(t, err)
	_, err = s.Remove(ctx, "made:1", nil)
	wantErr(t, "of a container", err, ErrImageUsedByContainer)

	// Without checks: the container keeps its layers, and then is what uses them.
	_, err = s.Delete(ctx, string(made.ID))
	must(t, err)
	if _, err := s.LayerNode(ctx, "b"); err == nil {
		t.Error("the records that only the image needed are still there")
	}
	top := string(Chain(made.DiffIDs()))
	_, err = s.DeleteLayer(ctx, top, false)
	wantErr(t, "of a container alone", err, ErrLayerUsedByContainer)
	_, err = s.Delete(ctx, "made")
	must(t, err)
	_, err = s.DeleteContainer(ctx, "box", false)
	must(t, err)
	r, err := s.Remove(ctx, "alpine:1", nil)
	if err != nil || len(r.Layers) != len(img.Layers) {
		t.Errorf("got %+v, %v", r, err)
	}
	wantExact(t, s)
	if left := onDisk(t, s); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// R1.8: every mutation of a read-only store is ErrStoreIsReadOnly.
func TestReadOnlyStore(t *testing.T) {
	s := newStore(t)
	img := realImage(t, s, "alpine:1")
	ro, err := Open(s.root, &Options{ReadOnly: true})
	must(t, err)
	defer ro.Close()
	ctx := t.Context()
	tar := func() io.Reader { return bytes.NewReader(archive(t, file("a", "a"))) }
	for what, fn := range map[string]func() error{
		"tag": func() error { return ro.Tag(ctx, "alpine:1", "b") }, "names": func() error { return ro.SetNames(ctx, "alpine:1", "b") },
		"untag": func() error { _, err := ro.Untag(ctx, "alpine:1"); return err }, "metadata": func() error { return ro.SetMetadata(ctx, "alpine:1", "b") },
		"flag": func() error { return ro.SetFlag(ctx, "alpine:1", "b", "") }, "clear": func() error { return ro.ClearFlag(ctx, "alpine:1", "b") },
		"bigdata":    func() error { _, err := ro.SetBigData(ctx, "alpine:1", nil, tar()); return err },
		"bigdata rm": func() error { return ro.RemoveBigData(ctx, "alpine:1", nil) },
		"rmi":        func() error { _, err := ro.Remove(ctx, "alpine:1", nil); return err }, "delete": func() error { _, err := ro.Delete(ctx, "alpine:1"); return err },
		"wipe": func() error { _, err := ro.Wipe(ctx); return err }, "gc": func() error { _, err := ro.GC(ctx, false); return err },
		"layer": func() error { _, err := ro.CreateLayer(ctx, nil); return err }, "apply": func() error { _, err := ro.ApplyLayer(ctx, "x", tar(), nil); return err },
		"layer from": func() error { _, err := ro.CreateLayerFrom(ctx, nil, tar(), nil); return err },
		"layer rm":   func() error { _, err := ro.DeleteLayer(ctx, "x", false); return err },
		"image":      func() error { _, err := ro.CreateImage(ctx, "", nil); return err }, "import": func() error { _, err := ro.Import(ctx, tar(), nil); return err },
		"load":   func() error { _, err := ro.Load(ctx, image(t, archive(t)), nil); return err },
		"create": func() error { _, err := ro.CreateContainer(ctx, &ContainerOptions{Image: "alpine:1"}); return err },
		"lease":  func() error { _, err := ro.NewLease(ctx, "x"); return err },
	} {
		wantErr(t, what, fn(), ErrStoreIsReadOnly)
	}
	if got, err := s.Image(ctx, "alpine:1"); err != nil || got.ID != img.ID || len(got.Names) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

// R3.6: parents, children and heads.
func TestFamily(t *testing.T) {
	s := newStore(t)
	a, b, c := archive(t, file("a", "a")), archive(t, file("b", "b")), archive(t, file("c", "c"))
	one, two, three := load(t, s, image(t, a)), load(t, s, image(t, a, b)), load(t, s, image(t, a, b, c))
	side, alone := load(t, s, image(t, a, c)), load(t, s, image(t, c))
	f, err := s.Family(t.Context())
	must(t, err)
	want := map[digest.Digest]digest.Digest{two.ID: one.ID, three.ID: two.ID, side.ID: one.ID}
	for _, img := range []*Image{one, two, three, side, alone} {
		if f.Parents[img.ID] != want[img.ID] {
			t.Errorf("parent of %s: %s", img.ID, f.Parents[img.ID])
		}
	}
	if len(f.Children[one.ID]) != 2 || len(f.Heads) != 3 || slices.Contains(f.Heads, one.ID) || slices.Contains(f.Heads, two.ID) {
		t.Errorf("got %+v", f)
	}
	if got := f.Ancestors(three.ID); !slices.Equal(got, []digest.Digest{two.ID, one.ID}) {
		t.Errorf("ancestors %v", got)
	}
}

// R3.7: what a lease holds stays, also beside a collection, until it ends.
func TestLeases(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	img := realImage(t, s, "alpine:1")
	lease, err := s.NewLease(ctx, "test")
	must(t, err)
	_, err = lease.RetainLayer(ctx, string(img.Layers[0]))
	must(t, err)
	_, err = lease.RetainLayer(ctx, strings.Repeat("8", 64))
	wantErr(t, "unknown layer", err, ErrLayerUnknown)
	_, err = lease.RetainImage(ctx, "absent:1")
	wantErr(t, "unknown image", err, ErrImageUnknown)
	must(t, lease.RetainBlob(ctx, img.Config.Digest))
	r, err := s.Remove(ctx, "alpine:1", nil)
	if err != nil || slices.Contains(r.Layers, img.Layers[0]) {
		t.Errorf("got %+v, %v", r, err)
	}
	if got := tarDigest(t, s, DiffID(img.Layers[0])); got != img.Layers[0] {
		t.Errorf("the layer that is held comes out as %s", got)
	}
	if _, err := s.Blob(img.Config.Digest); err != nil {
		t.Errorf("the blob that is held: %v", err)
	}
	rec, err := s.CreateLayer(ctx, nil)
	must(t, err)
	_, err = lease.RetainLayer(ctx, rec.ID)
	must(t, err)
	_, err = s.DeleteLayer(ctx, rec.ID, false)
	wantErr(t, "a record that is held", err, ErrInUse)
	list, err := s.Leases(ctx)
	if err != nil || len(list) != 1 || list[0].PID != os.Getpid() || list[0].Purpose != "test" || len(list[0].Layers) != 1 || len(list[0].Records) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	must(t, lease.Close())
	must(t, lease.Close())
	_, err = lease.RetainLayer(ctx, rec.ID)
	if err == nil {
		t.Error("a lease was used after its end")
	}
	_, err = s.DeleteLayer(ctx, rec.ID, false)
	must(t, err)
	_, err = s.GC(ctx, false)
	must(t, err)
	wantExact(t, s)
	if left := onDisk(t, s); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A collection does not wait for a load that is running, nor take what it relies on.
func TestCollectBesideLoad(t *testing.T) {
	s := newStore(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	a, b := archive(t, file("a", strings.Repeat("a", 1000)), file("big", strings.Repeat("big", 100_000))), archive(t, file("b", "b"))
	img := load(t, s, image(t, a), "first:1")
	src := &slowSource{memSource: image(t, a, b), at: make(chan struct{}), goOn: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := s.Load(ctx, src, &LoadOptions{Names: []string{"second:1"}})
		done <- err
	}()
	<-src.at // it knows the first layer and reads the second
	r, err := s.Remove(ctx, "first:1", nil)
	must(t, err)
	if len(r.Deleted) != 1 || len(r.Layers) != 0 || r.Deferred {
		t.Errorf("got %+v", r)
	}
	_, err = s.GC(ctx, false)
	must(t, err)
	close(src.goOn)
	must(t, <-done)
	if got := tarDigest(t, s, DiffID(img.Layers[0])); got != img.Layers[0] {
		t.Errorf("the common layer comes out as %s", got)
	}
	wantExact(t, s)
}

// A slowSource waits before it gives the last layer.
type slowSource struct {
	*memSource
	at, goOn chan struct{}
}

// Blob waits when it is asked for a layer.
func (s *slowSource) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if desc.MediaType == ocispec.MediaTypeImageLayerGzip {
		close(s.at)
		<-s.goOn
	}
	return s.memSource.Blob(ctx, desc)
}

// ErrBusy names who collects.
func TestCollectionBusy(t *testing.T) {
	s := newStore(t)
	release, err := s.lockGC(t.Context(), 0)
	must(t, err)
	s.timeout = 20 * time.Millisecond
	_, err = s.GC(t.Context(), false)
	wantErr(t, "a second collection", err, ErrBusy)
	if !strings.Contains(err.Error(), fmt.Sprintf("process %d (gc)", os.Getpid())) {
		t.Errorf("%v does not name process %d", err, os.Getpid())
	}
	img := load(t, s, image(t, archive(t, file("a", "a"))), "a:1")
	r, err := s.Remove(t.Context(), "a:1", nil)
	if err != nil || !r.Deferred || len(r.Deleted) != 1 || r.Deleted[0] != img.ID {
		t.Errorf("beside a collection: %+v, %v", r, err)
	}
	release()
	// Whoever comes next does what was left.
	c, err := s.CollectPending(t.Context())
	if err != nil || c == nil || len(c.Layers) != 1 {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := s.CollectPending(t.Context()); c != nil || err != nil {
		t.Errorf("nothing is pending, but got %+v, %v", c, err)
	}
	wantExact(t, s)
}
