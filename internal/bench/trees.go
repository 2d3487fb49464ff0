package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/layerfs/layerfs/internal/treetest"
)

// treesOf is an image in all the forms that a comparison needs.
type treesOf struct {
	archive string   // the oci-archive
	blobs   []string // its compressed layers, bottom first
	image   treetest.Image
	layers  []string // unpacked for overlayfs, bottom first; only as root
	merged  string   // kernel overlayfs over them
	store   *store   // with the image loaded
	name    string   // of the image, below images/
}

// archive finds an image, or makes the synthetic one in its place.
func (b *bench) archive(name string) (string, error) {
	if b.images != "" {
		for _, suffix := range []string{".oci.tar", ".oci"} {
			p := filepath.Join(b.images, name+suffix)
			if _, err := os.Stat(p); err == nil {
				return filepath.Abs(p)
			}
		}
		return "", fmt.Errorf("%w: %s", errNoImage, name)
	}
	switch name {
	case "layers100":
		return b.synthetic("layers100", hundredLayers)
	case "debpy":
		return b.synthetic("synthetic", ordinary)
	}
	return "", fmt.Errorf("%w: %s", errNoImage, name)
}

// label is how the table calls an image.
func (b *bench) label(name string) string {
	if b.images == "" {
		return "made here"
	}
	return name
}

// walkImage is the image for comparing walks: the largest tree there is.
func (b *bench) walkImage() (*treesOf, error) {
	t, err := b.treesOf("nodeapp")
	if errors.Is(err, errNoImage) {
		return b.treesOf("debpy")
	}
	return t, err
}

// treesOf loads and, as root, unpacks and mounts an image; once in a run.
func (b *bench) treesOf(name string) (*treesOf, error) {
	if t := b.trees[name]; t != nil {
		return t, nil
	}
	t, err := b.opened(name)
	if err != nil {
		return nil, err
	}
	b.progress("  loading and unpacking %s", name)
	if t.store, err = b.newStore(); err != nil {
		return nil, err
	}
	names, err := t.store.load(t.archive)
	if err != nil {
		return nil, err
	}
	t.name = names[0]
	if os.Geteuid() == 0 {
		if err := b.unpack(t); err != nil {
			return nil, err
		}
	}
	b.trees[name] = t
	return t, nil
}

// opened finds the layers of an image, uncompressed.
func (b *bench) opened(name string) (*treesOf, error) {
	archive, err := b.archive(name)
	if err != nil {
		return nil, err
	}
	work, err := b.dir("tars")
	if err != nil {
		return nil, err
	}
	images, err := treetest.ReadArchive(archive, work)
	if err != nil {
		return nil, err
	}
	t := &treesOf{archive: archive, image: images[0]}
	layout := archive
	if st, err := os.Stat(archive); err == nil && !st.IsDir() {
		layout = filepath.Join(work, "archive")
	}
	if t.blobs, err = layerBlobs(layout, images[0].Manifest); err != nil {
		return nil, err
	}
	return t, nil
}

// unpack extracts the layers and mounts them with kernel overlayfs.
func (b *bench) unpack(t *treesOf) error {
	// Short: fuse-overlayfs and the kernel take all in one option.
	work, err := b.dir("l")
	if err != nil {
		return err
	}
	var layers []*treetest.Layer
	for i, tar := range t.image.Tars {
		l, err := treetest.Extract(tar, filepath.Join(work, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		layers, t.layers = append(layers, l), append(t.layers, l.Dir)
	}
	if err := treetest.Stack(layers); err != nil {
		return err
	}
	merged, umount, err := treetest.OverlayMount(t.layers, work)
	if err != nil {
		return err
	}
	t.merged = merged
	b.cleanup = append(b.cleanup, func() {
		if err := umount(); err != nil {
			b.progress("umount: %v", err)
		}
	})
	return nil
}

// rootfs mounts the store anew and returns the mount and the image's tree in it.
func (t *treesOf) rootfs() (mnt, rootfs string, err error) {
	mnt, err = t.store.mount()
	return mnt, filepath.Join(mnt, "images", t.name, "rootfs"), err
}
