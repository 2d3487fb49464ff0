package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// wantError opens an archive that must be refused.
func wantError(t *testing.T, name string, members []member, target error, text string) {
	t.Helper()
	_, err := openBytes(t, makeTar(t, members...))
	if !errors.Is(err, target) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want %v with %q", name, err, target, text)
	}
}

func TestHostileDocker(t *testing.T) {
	one := makeTar(t, member{name: "one"})
	good := dockerMembers(t, nil, one)
	layer, cfg := good[1].name, good[0].name
	with := func(i int, m member) []member {
		out := slices.Clone(good)
		out[i] = m
		return out
	}
	wantError(t, "missing layer", with(1, member{name: "x.tar"}), os.ErrNotExist, "missing in the archive")
	wantError(t, "missing config", with(0, member{name: "x.json"}), os.ErrNotExist, "missing in the archive")
	wantError(t, "link to itself", with(1, member{name: layer, link: layer}), ErrDamaged, "loop")
	wantError(t, "link out", with(1, member{name: layer, link: "../../etc/shadow"}), ErrUnsupported, "leads out")
	wantError(t, "absolute link", with(1, member{name: layer, link: "/etc/shadow"}), ErrDamaged, "not in the archive")
	wantError(t, "hard link out", with(1, member{name: layer, hard: "../x"}), ErrUnsupported, "leads out")
	wantError(t, "links in a circle", append(with(1, member{name: layer, link: "a/layer.tar"}),
		member{name: "a/layer.tar", link: "../b/layer.tar"}, member{name: "b/layer.tar", link: "../" + layer}), ErrDamaged, "loop")
	wantError(t, "wrong config", with(0, member{name: cfg, data: append([]byte(" "), good[0].data...)}), ErrVerification, "digest")
	wantError(t, "two manifests", append(slices.Clone(good), good[2]), ErrDamaged, "twice")
	wantError(t, "no array", with(2, member{name: "manifest.json", data: []byte("{}")}), ErrDamaged, "manifest.json")
	wantError(t, "no images", with(2, member{name: "manifest.json", data: []byte("[]")}), ErrNoImage, "none")
	wantError(t, "huge manifest", with(2, member{name: "manifest.json", data: make([]byte, maxDocument+1)}), ErrTooLarge, "8388609")
	wantError(t, "many objects", with(2, member{name: "manifest.json", data: []byte("[" + strings.Repeat("{},", 2<<20) + "{}]")}), ErrTooLarge, "JSON objects")
	wantError(t, "many values", with(2, member{name: "manifest.json", data: []byte(`[{"Layers":[` + strings.Repeat(`"",`, 1<<20) + `""]}]`)}), ErrTooLarge, "JSON values")
	wantError(t, "bad name", dockerMembers(t, func(i *dockerItem) { i.RepoTags = []string{"../../etc:1"} }, one), ErrDamaged, "name")
	wantError(t, "config outside", dockerMembers(t, func(i *dockerItem) { i.Config = "../../etc/passwd" }, one), ErrDamaged, "config is named")
	wantError(t, "layer outside", dockerMembers(t, func(i *dockerItem) { i.Layers = []string{"../x.tar"} }, one), ErrDamaged, "layer is named")
	wantError(t, "too few layers", dockerMembers(t, func(i *dockerItem) { i.Layers = nil }, one), ErrDamaged, "0 layers")

	bad := config(t, amd64)
	bad = bytes.Replace(bad, []byte(`"diff_ids":[]`), []byte(`"diff_ids":["sha256:../../../etc/passwd"]`), 1)
	wantError(t, "digest", []member{
		{name: "c.json", data: bad},
		{name: "l.tar"},
		{name: "manifest.json", data: toJSON(t, []dockerItem{{Config: "c.json", Layers: []string{"l.tar"}}})},
	}, ErrDamaged, "digest")
}

func TestHostileOCI(t *testing.T) {
	layer := makeTar(t, member{name: "x"})
	build := func(edit func(l *layout, desc ocispec.Descriptor)) []member {
		l := newLayout(t)
		edit(l, l.image(amd64, layer))
		return l.members()
	}
	wantError(t, "manifest size", build(func(l *layout, d ocispec.Descriptor) { d.Size++; l.list(d, "a") }), ErrVerification, "descriptor says")
	wantError(t, "manifest content", build(func(l *layout, d ocispec.Descriptor) {
		last := &l.blobs[len(l.blobs)-1]
		last.data = bytes.Replace(last.data, []byte("image"), []byte("imagf"), 1)
		l.list(d, "a")
	}), ErrVerification, "digest")
	wantError(t, "config content", build(func(l *layout, d ocispec.Descriptor) {
		l.blobs[0].data = bytes.Replace(l.blobs[0].data, []byte("amd64"), []byte("amd65"), 1)
		l.list(d, "a")
	}), ErrVerification, "digest")
	wantError(t, "digest", build(func(l *layout, d ocispec.Descriptor) { d.Digest = "sha256:../../x"; l.list(d, "a") }), ErrDamaged, "digest")
	wantError(t, "algorithm", build(func(l *layout, d ocispec.Descriptor) {
		d.Digest = digest.NewDigestFromEncoded(digest.SHA512, strings.Repeat("a", 128))
		l.list(d, "a")
	}), ErrDamaged, "digest")
	wantError(t, "missing", build(func(l *layout, d ocispec.Descriptor) {
		d.Digest = digest.FromString("elsewhere")
		l.list(d, "a")
	}), os.ErrNotExist, "missing")
	wantError(t, "nothing", build(func(*layout, ocispec.Descriptor) {}), ErrNoImage, "none")
	wantError(t, "only missing platforms", build(func(l *layout, d ocispec.Descriptor) {
		d.Digest = digest.FromString("elsewhere")
		l.list(l.nested(d), "a")
	}), os.ErrNotExist, "missing")
	wantError(t, "an index called a manifest", build(func(l *layout, d ocispec.Descriptor) {
		n := l.nested(d)
		n.MediaType = ocispec.MediaTypeImageManifest
		l.list(n, "a")
	}), ErrDamaged, "media type")
	wantError(t, "both at once", build(func(l *layout, d ocispec.Descriptor) {
		l.list(l.json(ocispec.MediaTypeImageIndex, map[string]any{"schemaVersion": 2, "manifests": []any{}, "layers": []any{}, "config": d}), "a")
	}), ErrDamaged, "at once")
	wantError(t, "no config", build(func(l *layout, d ocispec.Descriptor) {
		l.list(l.json(ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 2, "layers": []any{}}), "a")
	}), ErrDamaged, "no config")
	wantError(t, "schema 1", build(func(l *layout, d ocispec.Descriptor) {
		l.list(l.json(ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 1}), "a")
	}), ErrUnsupported, "schema version")
	wantError(t, "deep", build(func(l *layout, d ocispec.Descriptor) {
		for range maxDepth + 1 {
			d = l.nested(d)
		}
		l.list(d, "a")
	}), ErrTooLarge, "deeper")
	wantError(t, "wide", build(func(l *layout, d ocispec.Descriptor) {
		l.list(l.nested(slices.Repeat([]ocispec.Descriptor{d}, maxDescriptors)...), "a")
	}), ErrTooLarge, "descriptors")
	// Each index lists the one below 100 times: 10^12 images in 600 KiB.
	wantError(t, "multiplied", build(func(l *layout, d ocispec.Descriptor) {
		for range 6 {
			d = l.nested(slices.Repeat([]ocispec.Descriptor{d}, 100)...)
		}
		l.list(d, "a")
	}), ErrTooLarge, "descriptors")
	wantError(t, "two indexes", append(build(func(l *layout, d ocispec.Descriptor) { l.list(d, "a") }), member{name: "./index.json", data: []byte("{}")}), ErrDamaged, "twice")
}

// Sizes are checked before and while a blob is read.
func TestBlobSize(t *testing.T) {
	layer := makeTar(t, member{name: "x", data: make([]byte, 3000)})
	l := newLayout(t)
	l.list(l.image(amd64, layer), "a:1")
	oci := mustOpenTar(t, l.members()...).Images()[0].Source
	members := dockerMembers(t, nil, layer)
	members[1].data = gzipped(t, layer)
	dock := mustOpenTar(t, members...).Images()[0].Source
	for name, s := range map[string]*Source{"oci": oci, "docker": dock} {
		desc := ocispec.Descriptor{Digest: digest.FromBytes(layer), Size: int64(len(layer))}
		if got, err := readBlob(s, desc); err != nil || !bytes.Equal(got, layer) {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
		for _, d := range []int64{-1, 1} {
			desc.Size = int64(len(layer)) + d
			if _, err := readBlob(s, desc); !errors.Is(err, ErrVerification) {
				t.Errorf("%s: size off by %d: got %v, want ErrVerification", name, d, err)
			}
		}
		desc.Digest = digest.FromString("unknown")
		if _, err := readBlob(s, desc); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: unknown blob: got %v", name, err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := s.Blob(ctx, desc); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled: got %v", name, err)
		}
	}
	damaged := gzipped(t, layer)
	damaged[len(damaged)/2] ^= 0xff
	members[1].data = damaged
	s := mustOpenTar(t, members...).Images()[0].Source
	if _, _, err := s.Manifest(context.Background()); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged gzip: got %v, want ErrDamaged", err)
	}
}

// Members that can play no part are not remembered, and the others are limited.
func TestManyMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 50 MiB")
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bw := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(bw)
	for i := range 100_000 {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%0100d", i), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	bw.Flush()
	if _, err := io.Copy(f, bytes.NewReader(simple(t))); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	a := mustOpen(t, f.Name())
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); len(a.Images()) != 1 || grown > 1<<20 {
		t.Errorf("%d images; the heap grew by %d bytes", len(a.Images()), grown)
	}

	var buf bytes.Buffer
	w = tar.NewWriter(&buf)
	for i := range maxMembers + 1 {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprint(i, ".json"), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if _, err := openBytes(t, buf.Bytes()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}
