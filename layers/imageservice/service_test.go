package imageservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/internal/registrytest"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// memory is an image in memory as a source.
type memory struct{ *registrytest.Image }

func (m memory) Manifest(context.Context) ([]byte, ocispec.Descriptor, error) {
	return m.Image.Manifest, ocispec.Descriptor{MediaType: m.Desc.MediaType, Digest: m.Desc.Digest, Size: m.Desc.Size}, nil
}

func (m memory) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	for _, l := range m.Layers {
		if l.Desc.Digest == desc.Digest {
			return io.NopCloser(strings.NewReader(string(l.Blob))), nil
		}
	}
	return io.NopCloser(strings.NewReader(string(m.Config))), nil
}

func image(t testing.TB, n int) *registrytest.Image {
	t.Helper()
	p := ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: fmt.Sprint("v", n)} // another config, the same layer
	return registrytest.NewImage(t, p, nil, registrytest.Tar(t, "etc/file", []byte("one layer for all")))
}

func newService(t testing.TB, conf string) (*Service, *layers.Store) {
	t.Helper()
	st, err := layers.Open(filepath.Join(t.TempDir(), "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	file := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := New(st, &registry.Options{RegistriesConf: file, Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return s, st
}

func load(t testing.TB, st *layers.Store, n int, names ...string) digest.Digest {
	t.Helper()
	img, err := st.Load(t.Context(), memory{image(t, n)}, &layers.LoadOptions{Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return img.ID
}

const twoRegistries = `unqualified-search-registries = ["quay.io", "docker.io"]`

// An ID prefix of three digits wins, a qualified name stays itself, a short name is
// tried at each registry, and a bare ID is no name.
func TestResolveNames(t *testing.T) {
	s, st := newService(t, twoRegistries)
	id := load(t, st, 1, "quay.io/me/app:1")
	hex := id.Encoded()
	load(t, st, 2, "docker.io/library/"+hex[:5]+":latest") // a name like an ID
	other := strings.Repeat("0123456789abcdef", 4)
	tests := []struct {
		name string
		want []string
		err  error
	}{
		{hex, []string{hex}, nil},
		{"sha256:" + hex, []string{hex}, nil},
		{hex[:12], []string{hex}, nil},
		{hex[:5], []string{hex}, nil},
		{hex[:2], []string{"quay.io/" + hex[:2] + ":latest", "docker.io/library/" + hex[:2] + ":latest"}, nil},
		{"wibble:2", []string{"quay.io/wibble:2", "docker.io/library/wibble:2"}, nil},
		{"me/wibble", []string{"quay.io/me/wibble:latest", "docker.io/me/wibble:latest"}, nil},
		{"localhost/x", []string{"localhost/x:latest"}, nil},
		{"example.com:5000/x@sha256:" + other, []string{"example.com:5000/x@sha256:" + other}, nil},
		{other, nil, layers.ErrInvalidName},
		{"NOT a name", nil, layers.ErrInvalidName},
	}
	for _, tt := range tests {
		got, err := s.ResolveNames(t.Context(), tt.name)
		if !reflect.DeepEqual(got, tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%s: got %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	none, _ := newService(t, "")
	if _, err := none.ResolveNames(t.Context(), "wibble"); !errors.Is(err, registry.ErrShortName) {
		t.Errorf("without registries: got %v, want %v", err, registry.ErrShortName)
	}
}

// Status, filters, untag and remove.
func TestImages(t *testing.T) {
	ctx := t.Context()
	s, st := newService(t, twoRegistries)
	id := load(t, st, 1, "quay.io/me/app:1", "quay.io/me/app:2", "docker.io/library/wibble:latest")
	desc := image(t, 1).Desc.Digest
	for _, name := range []string{"me/app:1", "quay.io/me/app:2", "wibble", id.Encoded(), id.Encoded()[:4], "quay.io/me/app@" + string(desc)} {
		img, err := s.Status(ctx, name)
		if err != nil || img.ID != id {
			t.Errorf("%s: got %v, %v", name, img, err)
		}
	}
	img, err := s.Status(ctx, "wibble")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"docker.io/library/wibble:latest", "quay.io/me/app:1", "quay.io/me/app:2"}; !reflect.DeepEqual(img.RepoTags, want) {
		t.Errorf("tags %q, want %q", img.RepoTags, want)
	}
	if want := []string{"docker.io/library/wibble@" + string(desc), "quay.io/me/app@" + string(desc)}; !reflect.DeepEqual(img.RepoDigests, want) {
		t.Errorf("digests %q, want %q", img.RepoDigests, want)
	}
	if img.Digest != desc || img.ConfigDigest != id || img.Size == 0 {
		t.Errorf("got %+v", img)
	}
	if list, err := s.List(ctx, "nothing-like-it"); err != nil || len(list) != 0 {
		t.Errorf("filter: got %v, %v", list, err)
	}
	if list, err := s.List(ctx, "me/app:2"); err != nil || len(list) != 1 {
		t.Errorf("filter: got %v, %v", list, err)
	}
	if err := s.Untag(ctx, id.Encoded()); !errors.Is(err, layers.ErrInvalidName) {
		t.Errorf("untag of an ID: got %v", err)
	}
	for i, name := range []string{"me/app:1", "me/app:2", "wibble"} {
		if err := s.Untag(ctx, name); err != nil {
			t.Fatal(err)
		}
		list, err := s.List(ctx, "")
		if err != nil || len(list) != map[bool]int{true: 0, false: 1}[i == 2] {
			t.Errorf("after %d names: %v, %v", i+1, list, err)
		}
	}
	load(t, st, 1, "quay.io/me/app:1", "quay.io/me/app:2")
	if err := s.Remove(ctx, "me/app:1"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(ctx, ""); err != nil || len(list) != 0 {
		t.Errorf("after remove: %v, %v", list, err)
	}
	if err := s.Remove(ctx, "me/app:1"); !errors.Is(err, layers.ErrImageUnknown) {
		t.Errorf("remove again: got %v", err)
	}
}

// Prepare fetches the manifest and the config only; what it says can be pulled can.
func TestPrepareAndPull(t *testing.T) {
	ctx := t.Context()
	reg := registrytest.Start(t, nil)
	proxy := registrytest.NewProxy(t, reg.Addr)
	img := image(t, 1)
	img.Put(t, reg.Addr, "me/app", "v1")
	s, st := newService(t, fmt.Sprintf("unqualified-search-registries = [%q]", proxy.Addr))
	p, err := s.Prepare(ctx, "me/app:v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.ID != digest.FromBytes(img.Config) || string(p.Config) != string(img.Config) || p.Digest != img.Desc.Digest {
		t.Errorf("got %s %s", p.ID, p.Digest)
	}
	for _, line := range proxy.Requests() {
		if strings.Contains(line, img.Layers[0].Desc.Digest.Encoded()) {
			t.Errorf("a layer is fetched: %s", line)
		}
	}
	if list, err := s.List(ctx, ""); err != nil || len(list) != 0 {
		t.Errorf("after Prepare: %v, %v", list, err)
	}
	got, err := s.Pull(ctx, p, nil)
	if err != nil || got.Name != proxy.Addr+"/me/app:v1" {
		t.Fatalf("got %v, %v", got, err)
	}
	byDigest, err := s.Prepare(ctx, "me/app@"+string(img.Desc.Digest), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(ctx, byDigest, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Image(ctx, proxy.Addr+"/me/app@"+string(img.Desc.Digest)); err != nil {
		t.Error(err)
	}
	if err := s.CanPull(ctx, "me/app:absent"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("got %v, want %v", err, registry.ErrNotFound)
	}
}

// A list is made again only when something has changed, by whomever.
func TestListIsCached(t *testing.T) {
	s, st := newService(t, twoRegistries)
	fill(t, st, 20)
	list := func() []Image {
		t.Helper()
		list, err := s.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	first, again := list(), list()
	if len(first) != 20 || &first[0] != &again[0] {
		t.Errorf("an unchanged list of %d images is made again", len(first))
	}
	other, err := layers.Open(st.Root(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	load(t, other, 5000, "quay.io/changed:1")
	if changed := list(); len(changed) != 21 || changed[0].Name != "quay.io/changed:1" {
		t.Errorf("got %d images after a change, the first %s", len(changed), changed[0].Name)
	}
}

// fill makes images without their layers' cost: all have the same layer.
func fill(t testing.TB, st *layers.Store, n int) {
	t.Helper()
	for i := range n {
		load(t, st, i, fmt.Sprintf("quay.io/team/app%d:v1", i))
	}
}

// BenchmarkList lists 1,000 images; 50 ms is what is allowed.
func BenchmarkList(b *testing.B) {
	s, st := newService(b, twoRegistries)
	fill(b, st, 1000)
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.List(b.Context(), ""); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("changed", func(b *testing.B) {
		for b.Loop() {
			s.known = false
			if _, err := s.List(b.Context(), ""); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			s.known, s.users = false, map[digest.Digest]string{}
			if _, err := s.List(b.Context(), ""); err != nil {
				b.Fatal(err)
			}
		}
	})
}
