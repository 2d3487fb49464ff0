package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// exercise reads all that an archive offers: no panic, a manifest that is handed out
// has its digest, and a blob its size.
func exercise(t *testing.T, dir string, data []byte) {
	a, err := Open("-", &Options{Stdin: bytes.NewReader(data), TempDir: dir, MaxBytes: 4 << 20})
	if err != nil {
		return
	}
	defer a.Close()
	for _, img := range a.Images() {
		raw, desc, err := img.Source.Manifest(context.Background())
		if err != nil {
			continue
		}
		if digest.FromBytes(raw) != desc.Digest {
			t.Errorf("manifest %s has another digest", desc.Digest)
		}
		doc, err := a.parse(raw, "manifest", kindManifest)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range append(doc.Layers, *doc.Config) {
			rc, err := img.Source.Blob(context.Background(), d)
			if err != nil {
				continue
			}
			if n, err := io.Copy(io.Discard, rc); err == nil && n != d.Size {
				t.Errorf("blob %s: %d bytes, want %d", d.Digest, n, d.Size)
			}
			rc.Close()
		}
	}
	_, _ = Select(a.Images(), nil)
}

// repair gives all tar headers their right checksum, so that changes of other fields
// get past it.
func repair(data []byte) {
	for ; len(data) >= 512; data = data[512:] {
		if h := data[:512]; string(h[257:262]) == "ustar" {
			copy(h[148:156], "        ")
			sum := 0
			for _, b := range h {
				sum += int(b)
			}
			copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(simple(f))
	f.Add(gzipped(f, simple(f)))
	layer := makeTar(f, member{name: "x"})
	f.Add(makeTar(f, dockerMembers(f, nil, layer)...))
	f.Add(makeTar(f, append(dockerMembers(f, nil, layer), member{name: "a/layer.tar", link: "../b.tar"}, member{name: "b.tar", hard: "a/layer.tar"})...))
	l := newLayout(f)
	l.list(l.nested(l.image(amd64, layer), l.image(arm64, layer)), "a")
	f.Add(makeTar(f, l.members(dockerMembers(f, nil, layer)...)...))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		repair(data)
		exercise(t, dir, data)
	})
}

// FuzzDocuments changes the documents in an archive whose digests are right.
func FuzzDocuments(f *testing.F) {
	layer := makeTar(f, member{name: "x"})
	cfg := config(f, amd64, layer)
	manifest := []byte(`{"schemaVersion":2,"config":{"mediaType":"` + ocispec.MediaTypeImageConfig + `","digest":"CONFIG","size":SIZE},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"LAYER","size":1}]}`)
	docker := []byte(`[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]`)
	f.Add(ocispec.MediaTypeImageManifest, "a:1", manifest, cfg, docker, "l.tar")
	f.Add(ocispec.MediaTypeImageIndex, "3.20", []byte(`{"schemaVersion":2,"manifests":[{"digest":"CONFIG","size":SIZE,"platform":{"os":"linux"}}]}`), manifest, docker, "x/layer.tar")
	f.Add("", "", manifest, []byte(`{"rootfs":{"diff_ids":["LAYER"]}}`), []byte(`[]`), "../x")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, mediaType, ref string, manifest, cfg, docker []byte, link string) {
		if len(manifest)+len(cfg)+len(docker)+len(ref)+len(link) > 1<<16 || strings.ContainsRune(link, 0) {
			return
		}
		l := newLayout(t)
		c := l.blob("", cfg)
		for old, with := range map[string]string{"CONFIG": c.Digest.String(), "SIZE": fmt.Sprint(c.Size), "LAYER": digest.FromBytes(layer).String()} {
			manifest = bytes.ReplaceAll(manifest, []byte(old), []byte(with))
		}
		l.list(l.blob(mediaType, manifest), ref)
		l.blob("", layer)
		for _, members := range [][]member{
			l.members(),
			l.members(member{name: "manifest.json", data: docker}, member{name: "c.json", data: cfg}, member{name: "l.tar", data: layer}),
			{{name: "manifest.json", data: docker}, {name: "c.json", data: cfg}, {name: "l.tar", link: link + "x"}, {name: "x/layer.tar", data: gzipped(t, layer)}},
		} {
			exercise(t, dir, makeTar(t, members...))
		}
	})
}
