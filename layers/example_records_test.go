package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerfs/layerfs/layers"
)

// recordsStore makes a store in a temporary directory.
func recordsStore() (*layers.Store, func()) {
	dir, err := os.MkdirTemp("", "layerfs-example-")
	if err != nil {
		log.Fatal(err)
	}
	st, err := layers.Open(filepath.Join(dir, "store"), nil)
	if err != nil {
		log.Fatal(err)
	}
	return st, func() {
		st.Close()
		os.RemoveAll(dir)
	}
}

// tarOfOne is a tar with one file in it.
func tarOfOne(name, content string) io.Reader {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		log.Fatal(err)
	}
	io.WriteString(w, content)
	w.Close()
	return &buf
}

// A layer record is made of a tar, another one on top of it, and an image of that.
func ExampleStore_CreateImage() {
	st, done := recordsStore()
	defer done()
	ctx := context.Background()
	base, err := st.CreateLayerFrom(ctx, &layers.CreateLayerOptions{Names: []string{"base"}}, tarOfOne("hello", "hello\n"), nil)
	if err != nil {
		log.Fatal(err)
	}
	top, err := st.CreateLayer(ctx, &layers.CreateLayerOptions{Parent: "base"})
	if err != nil {
		log.Fatal(err)
	}
	if top, err = st.ApplyLayer(ctx, top.ID, tarOfOne("more", "more\n"), nil); err != nil {
		log.Fatal(err)
	}
	img, err := st.CreateImage(ctx, top.ID, &layers.CreateImageOptions{Names: []string{"me/app:1"}, Metadata: "made by an example"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(img.Names[0].Name, len(img.Layers), img.TopLayer == top.ID, img.Metadata)
	_, err = st.DeleteLayer(ctx, base.ID, false)
	fmt.Println(errors.Is(err, layers.ErrLayerHasChildren))
	// Output:
	// docker.io/me/app:1 2 true made by an example
	// true
}

// What is removed with an image, from the top down, can be asked for before.
func ExampleStore_Remove() {
	st, done := recordsStore()
	defer done()
	ctx := context.Background()
	if _, err := st.Import(ctx, tarOfOne("a", "a"), &layers.ImportOptions{Names: []string{"app:1"}}); err != nil {
		log.Fatal(err)
	}
	dry, err := st.Remove(ctx, "app:1", &layers.RemoveOptions{DryRun: true})
	if err != nil {
		log.Fatal(err)
	}
	r, err := st.Remove(ctx, "app:1", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Untagged, len(r.Deleted), len(r.Layers), r.Freed == dry.Freed)
	// Output: [docker.io/library/app:1] 1 1 true
}

// Names, metadata, flags and big data are the same for images, layer records and
// containers. The key of big data is never a path.
func ExampleStore_Item() {
	st, done := recordsStore()
	defer done()
	ctx := context.Background()
	if _, err := st.CreateLayer(ctx, &layers.CreateLayerOptions{Names: []string{"base"}}); err != nil {
		log.Fatal(err)
	}
	err := errors.Join(
		st.SetNames(ctx, "base", "one", "two", "one"),
		st.SetMetadata(ctx, "one", "a text"),
		st.SetFlag(ctx, "two", "pinned", ""))
	if err != nil {
		log.Fatal(err)
	}
	d, err := st.SetBigData(ctx, "one", []byte("../../key"), strings.NewReader("data"))
	if err != nil {
		log.Fatal(err)
	}
	it, err := st.Item(ctx, "two")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(it.Kind, it.Names, it.Metadata, it.Flags, d.Size)
	_, err = st.Lookup(ctx, "base")
	fmt.Println(errors.Is(err, layers.ErrNotAnID))
	// Output:
	// layer [one two] a text map[pinned:] 4
	// true
}

// While a lease is held an image cannot be removed.
func ExampleStore_NewLease() {
	st, done := recordsStore()
	defer done()
	ctx := context.Background()
	if _, err := st.Import(ctx, tarOfOne("a", "a"), &layers.ImportOptions{Names: []string{"app:1"}}); err != nil {
		log.Fatal(err)
	}
	lease, err := st.NewLease(ctx, "build")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := lease.RetainImage(ctx, "app:1"); err != nil {
		log.Fatal(err)
	}
	_, err = st.Remove(ctx, "app:1", nil)
	fmt.Println(errors.Is(err, layers.ErrInUse))
	if err := lease.Close(); err != nil {
		log.Fatal(err)
	}
	_, err = st.Remove(ctx, "app:1", nil)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}
