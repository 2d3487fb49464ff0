package fs

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// This file is about images/<name>/oci: an OCI image layout with just this image, produced while it is read. Manifest,
// config and compressed layers are as they came. The layout of the whole store (oci_store.go) has the same files.

// Numbers of kindViewObject below oci/.
const (
	ociTop     = 16
	ociBlobs   = 17
	ociSha256  = 18
	ociLayout  = 19 // the file oci-layout
	ociIndex   = 20 // index.json
	ociBlob    = 1 << 13
	ociConfig  = ociBlob + 1 // ociBlob itself is the manifest
	ociLayer   = ociBlob + 2 // + place of the layer in the stack
	ociBlobEnd = ociBlob + 1<<13
)

// layoutText is the content of oci-layout.
const layoutText = `{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`

// ociImages are what an image shows in layouts, by the digest of its manifest. What was shown once stays as it is while
// the mount knows the image.
type ociImages struct {
	mu sync.Mutex // held while one is read
	m  map[string]*layers.OCIImage
}

// ociOf returns what a view shows in its layout.
func (f *fileSystem) ociOf(v *view) (*layers.OCIImage, error) {
	o := &v.image.oci
	o.mu.Lock()
	defer o.mu.Unlock()
	key := string(v.manifest.Digest)
	if img := o.m[key]; img != nil {
		return img, nil
	}
	stack := make([]layers.DiffID, len(v.image.layers))
	for i, l := range v.image.layers {
		stack[i] = l.diffID
	}
	img, err := f.store.OCIImage(context.Background(), v.manifest.Digest, stack)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", v.image.id, err)
	}
	if !img.Changed {
		img.Raw = nil // the store has it
	}
	if o.m == nil {
		o.m = map[string]*layers.OCIImage{}
	}
	o.m[key] = img
	return img, nil
}

// shownOCI is ociOf for a view of which somebody has looked at the layout, else nil.
func shownOCI(v *view) *layers.OCIImage {
	v.image.oci.mu.Lock()
	defer v.image.oci.mu.Unlock()
	return v.image.oci.m[string(v.manifest.Digest)]
}

// isOCI reports whether the number of a node of kindViewObject lies below oci/.
func isOCI(number uint32) bool {
	return number >= ociTop && number <= ociIndex || number >= ociBlob && number < ociBlobEnd
}

// ociDir returns one of the directories of a view's layout.
func (f *fileSystem) ociDir(v *view, number uint32) (*dir, syscall.Errno) {
	d := &dir{node: nodeID(kindViewObject, v.slot, number), time: v.created}
	child := func(name string, number, mode uint32) {
		d.entries = append(d.entries, entry{name, nodeID(kindViewObject, v.slot, number), mode})
	}
	switch number {
	case ociTop:
		d.parent = nodeID(kindViewObject, v.slot, viewTop)
		child("blobs", ociBlobs, syscall.S_IFDIR)
		child("index.json", ociIndex, syscall.S_IFREG)
		child("oci-layout", ociLayout, syscall.S_IFREG)
	case ociBlobs:
		d.parent = nodeID(kindViewObject, v.slot, ociTop)
		child("sha256", ociSha256, syscall.S_IFDIR)
	case ociSha256:
		d.parent = nodeID(kindViewObject, v.slot, ociBlobs)
		img, err := f.ociOf(v)
		if err != nil {
			return nil, f.errno(err)
		}
		d.entries = ociEntries(v, img)
	default:
		return nil, syscall.ENOTDIR
	}
	return d, 0
}

// ociEntries are the blobs of an image, each once.
func ociEntries(v *view, img *layers.OCIImage) []entry {
	var list []entry
	add := func(d ocispec.Descriptor, number uint32) {
		list = append(list, entry{d.Digest.Encoded(), nodeID(kindViewObject, v.slot, number), syscall.S_IFREG})
	}
	add(img.Manifest, ociBlob)
	add(img.Config, ociConfig)
	for i, d := range img.Layers {
		add(d, ociLayer+uint32(i))
	}
	return uniqueEntries(list)
}

// ociDesc returns the blob that a number stands for.
func ociDesc(img *layers.OCIImage, number uint32) (ocispec.Descriptor, bool) {
	switch {
	case number == ociBlob:
		return img.Manifest, true
	case number == ociConfig:
		return img.Config, true
	case number < ociLayer || int(number-ociLayer) >= len(img.Layers):
		return ocispec.Descriptor{}, false
	}
	return img.Layers[number-ociLayer], true
}

// refName is the tag of a view's name, which is the image's name in its own layout; empty when it has none.
func (v *view) refName() string {
	i := strings.LastIndexByte(v.name, ':')
	if i < 0 || strings.ContainsAny(v.name[i:], "/") || strings.Contains(v.name, "@") {
		return ""
	}
	return v.name[i+1:]
}

// ociEntry describes an image in an index, under a name if it has one.
func ociEntry(img *layers.OCIImage, name string) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: img.Manifest.MediaType, Digest: img.Manifest.Digest, Size: img.Manifest.Size}
	if name != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	return d
}

// indexText is the content of an index.json.
func indexText(manifests []ocispec.Descriptor) []byte {
	text, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
	if err != nil {
		panic(err) // strings, numbers and maps of strings can always be encoded
	}
	return text
}

// ociAttr fills out for a file of a view's layout.
func (f *fileSystem) ociAttr(v *view, number uint32, out *fuse.Attr) syscall.Errno {
	if number == ociLayout {
		f.own(out, syscall.S_IFREG|0o444, int64(len(layoutText)), v.created)
		return 0
	}
	img, err := f.ociOf(v)
	if err != nil {
		return f.errno(err)
	}
	if number == ociIndex {
		size := len(indexText([]ocispec.Descriptor{ociEntry(img, v.refName())}))
		f.own(out, syscall.S_IFREG|0o444, int64(size), v.created)
		return 0
	}
	d, ok := ociDesc(img, number)
	if !ok {
		return syscall.ESTALE
	}
	f.own(out, syscall.S_IFREG|0o444, d.Size, v.created)
	return 0
}

// readOCI reads from a file of a view's layout.
func (f *fileSystem) readOCI(v *view, number uint32, buf []byte, off int64) ([]byte, syscall.Errno) {
	if number == ociLayout {
		return readText([]byte(layoutText), buf, off), 0
	}
	img, err := f.ociOf(v)
	if err != nil {
		return nil, f.errno(err)
	}
	switch {
	case number == ociIndex:
		return readText(indexText([]ocispec.Descriptor{ociEntry(img, v.refName())}), buf, off), 0
	case number == ociBlob && img.Changed:
		return readText(img.Raw, buf, off), 0
	case number == ociBlob || number == ociConfig:
		d, _ := ociDesc(img, number)
		text, err := f.store.Blob(d.Digest)
		return readText(text, buf, off), f.errno(err)
	}
	d, ok := ociDesc(img, number)
	if !ok {
		return nil, syscall.ESTALE
	}
	if l := v.image.layers[number-ociLayer]; string(l.diffID) == string(d.Digest) {
		return f.readTar(l, buf, off)
	}
	n, err := f.layerBlobs.readAt(f, d, buf, off)
	return buf[:n], f.errno(err)
}
