package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mkimageMain makes a small image out of descriptions of its layers:
//
//	mkimage [-f oci|dir|docker] [-z gzip|zstd|none] [-n NAME] [-p PLATFORM,…] -o OUT LAYER...
//
// A LAYER is a text file with one entry per line; the words depend on the first:
//
//	dir PATH MODE            file PATH MODE TEXT...      size PATH MODE BYTES
//	link PATH TARGET         symlink PATH TARGET         fifo PATH MODE
//	char PATH MODE MAJ MIN   wh PATH                     opaque DIR
//	owner UID GID            (of the entries that follow)
//
// It has nothing of layerfs in it, so that a mistake there is not made twice.
func mkimageMain() {
	fs := flag.NewFlagSet("mkimage", flag.ExitOnError)
	m := imageMaker{blobs: map[digest.Digest][]byte{}}
	out := fs.String("o", "", "")
	format := fs.String("f", "oci", "")
	fs.StringVar(&m.compression, "z", "gzip", "")
	name := fs.String("n", "", "")
	platforms := fs.String("p", "linux/amd64", "")
	fatal(fs.Parse(os.Args[1:]))
	for _, file := range fs.Args() {
		fatal(m.layer(file))
	}
	for p := range strings.SplitSeq(*platforms, ",") {
		fatal(m.image(p, *name))
	}
	switch *format {
	case "oci":
		fatal(m.writeTar(*out, m.layout()))
	case "dir":
		fatal(m.writeDir(*out))
	case "docker":
		fatal(m.writeTar(*out, m.docker(*name)))
	default:
		fatal(errors.New("mkimage: unknown format " + *format))
	}
}

type imageMaker struct {
	compression string
	tars        [][]byte
	descs       []ocispec.Descriptor
	blobs       map[digest.Digest][]byte
	configs     []digest.Digest
	manifests   []ocispec.Descriptor
}

var mkimageTime = time.Unix(1700000000, 123456789).UTC()

// layer makes the tar of one description and its blob.
func (m *imageMaker) layer(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	uid, gid := 0, 0
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		words := strings.Fields(s.Text())
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if words[0] == "owner" {
			uid, gid = number(words[1]), number(words[2])
			continue
		}
		h, body := entry(words)
		h.Uid, h.Gid, h.ModTime, h.Format = uid, gid, mkimageTime, tar.FormatPAX
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", s.Text(), err)
		}
		if _, err := tw.Write(body); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	blob, mediaType := m.compress(buf.Bytes())
	m.tars = append(m.tars, buf.Bytes())
	m.descs = append(m.descs, m.add(blob, mediaType))
	return nil
}

// entry reads one line of a description.
func entry(w []string) (*tar.Header, []byte) {
	h := &tar.Header{Name: w[1], Mode: 0o644}
	mode := func() {
		n, err := strconv.ParseInt(w[2], 8, 64)
		fatal(err)
		h.Mode = n
	}
	var body []byte
	switch w[0] {
	case "dir":
		h.Typeflag = tar.TypeDir
		h.Name += "/"
		mode()
	case "file":
		mode()
		body = []byte(strings.Join(w[3:], " ") + "\n")
	case "size":
		mode()
		body = bytes.Repeat([]byte("0123456789abcde\n"), number(w[3])/16+1)[:number(w[3])]
	case "link":
		h.Typeflag, h.Linkname = tar.TypeLink, w[2]
	case "symlink":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, w[2], 0o777
	case "fifo":
		h.Typeflag = tar.TypeFifo
		mode()
	case "char":
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(number(w[3])), int64(number(w[4]))
		mode()
	case "wh":
		h.Name = path.Join(path.Dir(w[1]), ".wh."+path.Base(w[1]))
	case "opaque":
		h.Name = path.Join(w[1], ".wh..wh..opq")
	default:
		fatal(errors.New("mkimage: unknown entry " + w[0]))
	}
	h.Size = int64(len(body))
	return h, body
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	fatal(err)
	return n
}

func (m *imageMaker) compress(raw []byte) ([]byte, string) {
	var buf bytes.Buffer
	switch m.compression {
	case "gzip":
		w := gzip.NewWriter(&buf)
		_, err := w.Write(raw)
		fatal(err, w.Close())
		return buf.Bytes(), ocispec.MediaTypeImageLayerGzip
	case "zstd":
		w, err := zstd.NewWriter(&buf)
		fatal(err)
		_, err = w.Write(raw)
		fatal(err, w.Close())
		return buf.Bytes(), ocispec.MediaTypeImageLayerZstd
	}
	return raw, ocispec.MediaTypeImageLayer
}

func (m *imageMaker) add(raw []byte, mediaType string) ocispec.Descriptor {
	d := digest.FromBytes(raw)
	m.blobs[d] = raw
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

func (m *imageMaker) addJSON(v any, mediaType string) ocispec.Descriptor {
	raw, err := json.Marshal(v)
	fatal(err)
	return m.add(raw, mediaType)
}

// image adds the config and the manifest for one platform.
func (m *imageMaker) image(platform, name string) error {
	p, err := parsePlatform(platform)
	if err != nil {
		return err
	}
	config := ocispec.Image{
		Created: &mkimageTime, Platform: *p,
		Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}, Labels: map[string]string{"made-by": "mkimage"}},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	for i, t := range m.tars {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(t))
		config.History = append(config.History, ocispec.History{Created: &mkimageTime, CreatedBy: fmt.Sprintf("step %d", i+1)})
	}
	config.History = append(config.History, ocispec.History{Created: &mkimageTime, CreatedBy: "CMD /bin/sh", EmptyLayer: true})
	c := m.addJSON(config, ocispec.MediaTypeImageConfig)
	desc := m.addJSON(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: m.descs,
	}, ocispec.MediaTypeImageManifest)
	desc.Platform = p
	if name != "" {
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	m.configs = append(m.configs, c.Digest)
	m.manifests = append(m.manifests, desc)
	return nil
}

// layout is the files of an OCI image layout.
func (m *imageMaker) layout() map[string][]byte {
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: m.manifests,
	})
	fatal(err)
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index}
	for d, raw := range m.blobs {
		files["blobs/sha256/"+d.Encoded()] = raw
	}
	return files
}

// docker is the files of a docker-archive as old versions of docker save it.
func (m *imageMaker) docker(name string) map[string][]byte {
	files := map[string][]byte{}
	config := m.configs[0].Encoded() + ".json"
	files[config] = m.blobs[m.configs[0]]
	var paths []string
	for _, t := range m.tars {
		p := hexSum(t) + "/layer.tar"
		files[p] = t
		paths = append(paths, p)
	}
	tags := []string{}
	if name != "" {
		tags = append(tags, name)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": config, "RepoTags": tags, "Layers": paths}})
	fatal(err)
	files["manifest.json"] = manifest
	return files
}

func (m *imageMaker) writeDir(dir string) error {
	for name, raw := range m.layout() {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (m *imageMaker) writeTar(out string, files map[string][]byte) error {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		raw := files[name]
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(raw))}); err != nil {
			return err
		}
		if _, err := tw.Write(raw); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return os.WriteFile(out, buf.Bytes(), 0o644)
}

func hexSum(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}
