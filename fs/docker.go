package fs

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"syscall"

	"github.com/layerfs/layerfs/layers"
)

// This file is about images/<name>/docker.tar: the docker-archive that saving the image under this name gives, byte for
// byte, put together while it is read. Its plan is quick to make, so only the one that was used last is kept.

// A dockerTar is the plan of a docker-archive.
type dockerTar struct {
	view  *view
	parts []dockerPart
	size  int64
}

// A dockerPart is a text, the tar of a layer, or, when it is neither, the config.
type dockerPart struct {
	off, size int64
	text      []byte
	layer     *layer
}

func (t *dockerTar) add(p dockerPart) {
	p.off = t.size
	t.parts = append(t.parts, p)
	t.size += p.size
}

// member adds a file: its header, the content, the padding.
func (t *dockerTar) member(name string, content dockerPart) error {
	var head bytes.Buffer
	err := tar.NewWriter(&head).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: content.size})
	if err != nil {
		return err
	}
	t.add(dockerText(head.Bytes()))
	t.add(content)
	t.add(dockerText(make([]byte, -content.size&511)))
	return nil
}

func (t *dockerTar) document(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.member(name, dockerText(text))
}

func dockerText(text []byte) dockerPart { return dockerPart{text: text, size: int64(len(text))} }

// newDockerTar makes the plan of a view's archive.
func newDockerTar(v *view) (*dockerTar, error) {
	t := &dockerTar{view: v}
	item := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: v.image.id.Encoded() + ".json", Layers: []string{}}
	written := map[*layer]bool{}
	for _, l := range v.image.layers {
		name := l.diffID.Hex() + ".tar"
		item.Layers = append(item.Layers, name)
		if written[l] {
			continue
		}
		written[l] = true
		if err := t.member(name, dockerPart{layer: l, size: l.about.Load().Size}); err != nil {
			return nil, err
		}
	}
	repositories := map[string]map[string]string{}
	if tag := v.refName(); tag != "" {
		item.RepoTags = []string{v.name}
		if n := len(v.image.layers); n > 0 {
			repositories[strings.TrimSuffix(v.name, ":"+tag)] = map[string]string{tag: v.image.layers[n-1].diffID.Hex()}
		}
	}
	if err := t.member(item.Config, dockerPart{size: v.image.config.Size}); err != nil {
		return nil, err
	}
	if err := t.document("manifest.json", []any{item}); err != nil {
		return nil, err
	}
	if err := t.document("repositories", repositories); err != nil {
		return nil, err
	}
	t.add(dockerText(make([]byte, 1024)))
	return t, nil
}

// readDocker reads from a view's archive.
func (f *fileSystem) readDocker(v *view, buf []byte, off int64) ([]byte, syscall.Errno) {
	t := f.docker.Load()
	if t == nil || t.view != v {
		var err error
		if t, err = newDockerTar(v); err != nil {
			return nil, f.errno(err)
		}
		f.docker.Store(t)
	}
	n := 0
	i := sort.Search(len(t.parts), func(i int) bool { return t.parts[i].off+t.parts[i].size > off })
	for ; i < len(t.parts) && n < len(buf); i++ {
		p := &t.parts[i]
		at := off + int64(n) - p.off
		got, errno := f.readDockerPart(v, p, buf[n:min(int64(len(buf)), int64(n)+p.size-at)], at)
		if errno != 0 {
			return nil, errno
		}
		n += got
	}
	return buf[:n], 0
}

// readDockerPart fills buf from a part at off.
func (f *fileSystem) readDockerPart(v *view, p *dockerPart, buf []byte, off int64) (int, syscall.Errno) {
	var got []byte
	errno := syscall.Errno(0)
	switch {
	case p.layer != nil:
		got, errno = f.readTar(p.layer, buf, off)
	case p.text != nil:
		got = readText(p.text, buf, off)
	default:
		text, err := f.store.Blob(v.image.config.Digest)
		if err != nil {
			return 0, f.errno(err)
		}
		got = readText(text, buf, off)
	}
	if errno == 0 && len(got) < len(buf) {
		return 0, f.errno(fmt.Errorf("%w: docker.tar of image %s: a part is too short", layers.ErrDamaged, v.image.id))
	}
	return len(got), errno
}
