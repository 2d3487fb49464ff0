package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
)

// synthetic writes an image of made-up layers as an oci-archive.
func (b *bench) synthetic(name string, layers func() []func(*tar.Writer) error) (string, error) {
	dir := filepath.Join(b.work, name+".oci")
	out := dir + ".tar"
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	b.progress("  making the image %s", name)
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return "", err
	}
	config := ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, write := range layers() {
		desc, diffID, err := writeLayer(dir, write)
		if err != nil {
			return "", err
		}
		m.Layers = append(m.Layers, desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	}
	var err error
	if m.Config, err = writeJSON(dir, ocispec.MediaTypeImageConfig, config); err != nil {
		return "", err
	}
	desc, err := writeJSON(dir, ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return "", err
	}
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: "localhost/" + name + ":1"}
	index, err := json.Marshal(ocispec.Index{Versioned: m.Versioned, Manifests: []ocispec.Descriptor{desc}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return "", err
	}
	_, err = b.command("tar", "-cf", out, "-C", dir, ".")
	return out, errors.Join(err, os.RemoveAll(dir))
}

func writeJSON(dir, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.FromBytes(data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))},
		os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Encoded()), data, 0o644)
}

// writeLayer compresses a tar into a blob.
func writeLayer(dir string, write func(*tar.Writer) error) (ocispec.Descriptor, digest.Digest, error) {
	tmp := filepath.Join(dir, "layer.tmp")
	f, err := os.Create(tmp)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer f.Close()
	sum, diff := sha256.New(), sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, sum))
	w := tar.NewWriter(io.MultiWriter(z, diff))
	if err := write(w); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := w.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := z.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	st, err := f.Stat()
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	d := digest.NewDigest(digest.SHA256, sum)
	err = os.Rename(tmp, filepath.Join(dir, "blobs/sha256", d.Encoded()))
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: st.Size()}, digest.NewDigest(digest.SHA256, diff), err
}

// layerBlobs finds the compressed layers that a manifest names.
func layerBlobs(layout string, manifest []byte) ([]string, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, err
	}
	var list []string
	for _, l := range m.Layers {
		list = append(list, filepath.Join(layout, "blobs", l.Digest.Algorithm().String(), l.Digest.Encoded()))
	}
	return list, nil
}

var epoch = time.Unix(1700000000, 123456789)

func addFile(w *tar.Writer, name string, body []byte) error {
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body)), ModTime: epoch, Format: tar.FormatPAX}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(body)
	return err
}

func addDir(w *tar.Writer, name string) error {
	return w.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch, Format: tar.FormatPAX})
}

// ordinary is about 300 MB in 20,000 files over four layers: two thirds of the
// files have less than 4 KiB, a hundred are large, and half of the bytes compress.
func ordinary() []func(*tar.Writer) error {
	var list []func(*tar.Writer) error
	for i := range 4 {
		list = append(list, func(w *tar.Writer) error {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for j := range 5000 {
				dir := fmt.Sprintf("usr/lib/m%d/p%d", i, j/25)
				if j%25 == 0 {
					if err := addDir(w, dir); err != nil {
						return err
					}
				}
				if err := addFile(w, fmt.Sprintf("%s/file-%d.py", dir, j), body(rnd, j)); err != nil {
					return err
				}
				if i > 0 && j%50 == 0 {
					if err := addFile(w, fmt.Sprintf("usr/lib/m%d/p%d/.wh.file-%d.py", i-1, j/25, j), nil); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return list
}

// body makes the content of a file.
func body(rnd *rand.Rand, j int) []byte {
	size := rnd.IntN(4096)
	switch {
	case j%200 == 0:
		size = 1<<20 + rnd.IntN(1<<20)
	case j%3 == 0:
		size = rnd.IntN(40 << 10)
	}
	if j%2 == 0 {
		return bytes.Repeat([]byte(fmt.Sprintf("def f%d(x): return x + %d\n", rnd.Int(), j)), size/40+1)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	return data
}

// hundredLayers is a tree of 5,000 files and 99 small changes to it.
func hundredLayers() []func(*tar.Writer) error {
	list := []func(*tar.Writer) error{func(w *tar.Writer) error {
		for i := range 5000 {
			if err := addFile(w, fmt.Sprintf("usr/share/d%d/f%d", i/25, i), []byte(strings.Repeat("x", i%3000))); err != nil {
				return err
			}
		}
		return nil
	}}
	for i := range 99 {
		list = append(list, func(w *tar.Writer) error {
			for j := range 10 {
				if err := addFile(w, fmt.Sprintf("opt/l%d/f%d", i, j), []byte(fmt.Sprint(i, j))); err != nil {
					return err
				}
				if err := addFile(w, fmt.Sprintf("opt/common/f%d", (i+j*7)%50), []byte(fmt.Sprint(i))); err != nil {
					return err
				}
			}
			if i > 10 {
				return addFile(w, fmt.Sprintf("opt/l%d/.wh.f1", i-10), nil)
			}
			return nil
		})
	}
	return list
}
