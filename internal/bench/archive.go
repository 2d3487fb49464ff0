package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// manyImage is one of many small images.
type manyImage struct {
	name   string
	layers [][]byte
}

// tarOf packs files with short contents.
func tarOf(files map[string]string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := addFile(w, name, []byte(files[name])); err != nil {
			panic(err) // a buffer does not fail
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// dockerArchive writes images that may share layers into one docker-archive.
func (b *bench) dockerArchive(name string, images []manyImage) (string, error) {
	out := filepath.Join(b.work, name)
	f, err := os.Create(out)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	var manifest []map[string]any
	written := map[string]bool{}
	put := func(name string, data []byte) error {
		if written[name] {
			return nil
		}
		written[name] = true
		return addFile(w, name, data)
	}
	for _, img := range images {
		var ids, files []string
		for _, l := range img.layers {
			id := fmt.Sprintf("%x", sha256.Sum256(l))
			ids, files = append(ids, "sha256:"+id), append(files, id+".tar")
			if err := put(id+".tar", l); err != nil {
				return "", err
			}
		}
		config, err := json.Marshal(map[string]any{
			"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids},
		})
		if err != nil {
			return "", err
		}
		cname := fmt.Sprintf("%x.json", sha256.Sum256(config))
		if err := put(cname, config); err != nil {
			return "", err
		}
		manifest = append(manifest, map[string]any{"Config": cname, "RepoTags": []string{img.name}, "Layers": files})
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return "", err
	}
	if err := put("manifest.json", data); err != nil {
		return "", err
	}
	return out, w.Close()
}

// uniqueBytes is the sum of the different contents of the regular files of layers.
func uniqueBytes(tars ...string) (int64, error) {
	seen := map[[32]byte]bool{}
	var total int64
	for _, name := range tars {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		for r := tar.NewReader(f); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				f.Close()
				return 0, fmt.Errorf("%s: %w", name, err)
			}
			if h.Typeflag != tar.TypeReg || h.Size == 0 {
				continue
			}
			sum := sha256.New()
			n, err := io.Copy(sum, r)
			if err != nil {
				f.Close()
				return 0, fmt.Errorf("%s: %s: %w", name, h.Name, err)
			}
			if key := [32]byte(sum.Sum(nil)); !seen[key] {
				seen[key] = true
				total += n
			}
		}
		f.Close()
	}
	return total, nil
}
