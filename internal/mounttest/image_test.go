package mounttest_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/treetest"
)

// then is the time of synthetic members, to the nanosecond.
var then = time.Unix(1700000000, 123456789)

// A tarball is a layer in the making. Its methods add a member and return it for
// the next.
type tarball struct {
	buf bytes.Buffer
	w   *tar.Writer
}

func newTar() *tarball {
	b := &tarball{}
	b.w = tar.NewWriter(&b.buf)
	return b
}

// add writes a member; what h leaves open is filled in.
func (b *tarball) add(h tar.Header, body string) *tarball {
	if h.ModTime.IsZero() {
		h.ModTime = then
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	if h.Typeflag == tar.TypeReg {
		h.Size = int64(len(body))
	}
	if h.Format == tar.FormatUnknown {
		h.Format = tar.FormatPAX
	}
	if err := b.w.WriteHeader(&h); err != nil {
		panic(fmt.Sprintf("%q: %v", h.Name, err))
	}
	if _, err := b.w.Write([]byte(body)); err != nil {
		panic(fmt.Sprintf("%q: %v", h.Name, err))
	}
	return b
}

func (b *tarball) file(name, body string) *tarball {
	return b.add(tar.Header{Name: name, Typeflag: tar.TypeReg, Uid: 1, Gid: 2}, body)
}

func (b *tarball) dir(name string, mode int64) *tarball {
	return b.add(tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: mode, Uid: 3, Gid: 4}, "")
}

func (b *tarball) link(name, target string) *tarball {
	return b.add(tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, "")
}

func (b *tarball) symlink(name, target string) *tarball {
	return b.add(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, "")
}

// xattrs adds a member with extended attributes.
func (b *tarball) xattrs(h tar.Header, body string, list map[string]string) *tarball {
	h.PAXRecords = map[string]string{}
	for name, value := range list {
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	return b.add(h, body)
}

// bytes ends the tar.
func (b *tarball) bytes() []byte {
	if err := b.w.Close(); err != nil {
		panic(err)
	}
	return b.buf.Bytes()
}

// A packed layer is a layer as it lies in an archive, perhaps compressed, with
// the DiffID that the config promises.
type packed struct {
	data   []byte
	diffID string
}

func plain(data []byte) packed { return packed{data, fmt.Sprintf("%x", sha256.Sum256(data))} }

// dockerArchive writes a docker-archive of one image and returns its file.
func dockerArchive(t testing.TB, dir, name string, layers ...packed) string {
	t.Helper()
	config := map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{}}
	var ids, files []string
	members := map[string][]byte{}
	for i, l := range layers {
		ids = append(ids, "sha256:"+l.diffID)
		files = append(files, fmt.Sprintf("%03d/layer.tar", i))
		members[files[i]] = l.data
	}
	config["rootfs"] = map[string]any{"type": "layers", "diff_ids": ids}
	raw := mustJSON(config)
	cname := fmt.Sprintf("%x.json", sha256.Sum256(raw))
	members[cname] = raw
	members["manifest.json"] = mustJSON([]any{map[string]any{"Config": cname, "RepoTags": []string{name}, "Layers": files}})
	return writeArchive(t, filepath.Join(dir, "image.tar"), members)
}

// writeArchive writes files as a tar.
func writeArchive(t testing.TB, out string, members map[string][]byte) string {
	t.Helper()
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, n := range sorted(maps.Keys(members)) {
		if err := w.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(members[n]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(members[n]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// imageOf makes an archive of uncompressed layers, and what it is to the oracle.
func imageOf(t testing.TB, layers ...[]byte) (string, treetest.Image) {
	t.Helper()
	dir := t.TempDir()
	var img treetest.Image
	list := make([]packed, len(layers))
	for i, data := range layers {
		list[i] = plain(data)
		file := filepath.Join(dir, fmt.Sprintf("layer%d.tar", i))
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		img.Tars, img.DiffIDs = append(img.Tars, file), append(img.DiffIDs, list[i].diffID)
	}
	archive := dockerArchive(t, dir, "localhost/synthetic:1", list...)
	images, err := treetest.ReadArchive(archive, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img.Config = images[0].Config
	return archive, img
}

// layersOf closes tarballs.
func layersOf(list ...*tarball) [][]byte {
	var out [][]byte
	for _, b := range list {
		out = append(out, b.bytes())
	}
	return out
}
