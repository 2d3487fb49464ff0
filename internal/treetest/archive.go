package treetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Image is one image of an archive, its layers unpacked from compression.
type Image struct {
	// Names are as the archive spells them.
	Names []string
	// Config is the config's bytes, Manifest the manifest's (nil in archives of
	// docker before 25, which have none).
	Config, Manifest []byte
	// DiffIDs are the config's, in hex, bottom first.
	DiffIDs []string
	// Tars are files with the uncompressed layers.
	Tars []string
}

// ReadArchive reads a docker-archive, an oci-archive or the directory of an OCI
// layout with archive/tar and encoding/json, and leaves the uncompressed layers
// in the directory work.
func ReadArchive(name, work string) ([]Image, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	dir := name
	if !st.IsDir() {
		dir = filepath.Join(work, "archive")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if out, err := exec.Command("tar", "-xf", name, "-C", dir).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: tar: %w: %s", name, err, out)
		}
	}
	r := &reader{dir: dir, work: work}
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
		return r.layout()
	}
	return r.docker()
}

// reader reads one unpacked archive.
type reader struct{ dir, work string }

func (r *reader) json(v any, name ...string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(append([]string{r.dir}, name...)...))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("%s: %w", path.Join(name...), err)
	}
	return data, nil
}

// config is the part of an image's config that says what its layers are.
type config struct {
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

type descriptor struct {
	MediaType   string
	Digest      string
	Annotations map[string]string
	Platform    *struct{ Architecture, OS string }
}

// blob is where a layout keeps a digest.
func blob(digest string) string {
	return filepath.Join("blobs", strings.Replace(digest, ":", "/", 1))
}

func (r *reader) layout() ([]Image, error) {
	var index struct{ Manifests []descriptor }
	if _, err := r.json(&index, "index.json"); err != nil {
		return nil, err
	}
	var images []Image
	for _, d := range index.Manifests {
		img, err := r.manifest(d)
		if err != nil {
			return nil, err
		}
		images = append(images, *img)
	}
	return images, nil
}

func (r *reader) manifest(d descriptor) (*Image, error) {
	var m struct {
		Config descriptor
		Layers []descriptor
	}
	img := &Image{}
	for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
		if n := d.Annotations[key]; n != "" {
			img.Names = append(img.Names, n)
			break
		}
	}
	var err error
	if img.Manifest, err = r.json(&m, blob(d.Digest)); err != nil {
		return nil, err
	}
	var c config
	if img.Config, err = r.json(&c, blob(m.Config.Digest)); err != nil {
		return nil, err
	}
	files := make([]string, len(m.Layers))
	for i, l := range m.Layers {
		files[i] = filepath.Join(r.dir, blob(l.Digest))
	}
	return img, r.layers(img, c, files)
}

func (r *reader) docker() ([]Image, error) {
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if _, err := r.json(&list, "manifest.json"); err != nil {
		return nil, err
	}
	var images []Image
	for _, m := range list {
		var c config
		img := &Image{Names: m.RepoTags}
		var err error
		if img.Config, err = r.json(&c, m.Config); err != nil {
			return nil, err
		}
		files := make([]string, len(m.Layers))
		for i, l := range m.Layers {
			files[i] = filepath.Join(r.dir, l)
		}
		if err := r.layers(img, c, files); err != nil {
			return nil, err
		}
		images = append(images, *img)
	}
	return images, nil
}

// layers uncompresses the files and holds them against the config's DiffIDs.
func (r *reader) layers(img *Image, c config, files []string) error {
	if len(files) != len(c.RootFS.DiffIDs) {
		return fmt.Errorf("%d layers, but %d DiffIDs", len(files), len(c.RootFS.DiffIDs))
	}
	for i, file := range files {
		want := strings.TrimPrefix(c.RootFS.DiffIDs[i], "sha256:")
		out := filepath.Join(r.work, want+".tar")
		if _, err := os.Stat(out); err != nil {
			if err := uncompress(file, out, want); err != nil {
				return err
			}
		}
		img.DiffIDs = append(img.DiffIDs, want)
		img.Tars = append(img.Tars, out)
	}
	return nil
}

// uncompress uses the programs of the system, by the first bytes of the file.
func uncompress(in, out, want string) error {
	head := make([]byte, 6)
	f, err := os.Open(in)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w", in, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	cmd := exec.Command("cat")
	for program, magic := range map[string]string{
		"gzip": "\x1f\x8b", "zstd": "\x28\xb5\x2f\xfd", "xz": "\xfd7zXZ\x00", "bzip2": "BZh",
	} {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			cmd = exec.Command(program, "-dc")
		}
	}
	w, err := os.Create(out)
	if err != nil {
		return err
	}
	defer w.Close()
	h := sha256.New()
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f, io.MultiWriter(w, h), &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %s: %w: %s", in, cmd.Args[0], err, stderr.Bytes())
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
		return fmt.Errorf("%s: DiffID is %s, config says %s", in, got, want)
	}
	return nil
}

// eachMember calls fn with the header of every member of a tar.
func eachMember(name string, fn func(*tar.Header) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := fn(h); err != nil {
			return err
		}
	}
}
