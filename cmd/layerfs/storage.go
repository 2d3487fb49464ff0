package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
	"github.com/layerfs/layerfs/layers/policy"
)

// storageScheme is how a reference says that it is in a graph root of containers tools.
const storageScheme = "containers-storage:"

// parseStorage takes apart what follows the scheme: [[DRIVER@]GRAPHROOT[+RUNROOT][:OPTIONS]]REF,
// in which the brackets are optional as a whole.
func parseStorage(text string) (root, ref string, err error) {
	if root = os.Getenv("CONTAINERS_GRAPHROOT"); root == "" { // podman unshare sets it
		root, _ = containersDirs()
	}
	ref = text
	if inside, ok := strings.CutPrefix(text, "["); ok {
		if inside, ref, ok = strings.Cut(inside, "]"); !ok {
			return "", "", usagef("%q: the ] is missing", storageScheme+text)
		}
		inside, _, _ = strings.Cut(inside, ":")
		driver, dirs, ok := strings.Cut(inside, "@")
		if !ok {
			driver, dirs = "overlay", inside
		}
		if driver != "overlay" {
			return "", "", usagef("%q: storage driver %q is not supported, only overlay", storageScheme+text, driver)
		}
		root, _, _ = strings.Cut(dirs, "+")
	}
	if ref == "" || ref == "@" {
		return "", "", usagef("%q: want %sNAME or %s[GRAPHROOT]NAME", storageScheme+text, storageScheme, storageScheme)
	}
	if !filepath.IsAbs(root) {
		return "", "", usagef("%q: the graph root must be an absolute path", storageScheme+text)
	}
	return filepath.Clean(root), ref, nil
}

// pullStorage loads an image of a graph root that the signature policy lets in.
func (o *pullOptions) pullStorage(ctx context.Context, st *layers.Store, text string) error {
	root, ref, err := parseStorage(text)
	if err != nil {
		return err
	}
	rules, err := policy.Load(o.registry.Policy)
	if err != nil {
		return err
	}
	img, err := layers.OpenGraphImage(root, ref)
	if err != nil {
		return fileError(err)
	}
	if _, err := archive.Select([]archive.Image{{Platform: &img.Platform}}, o.platform); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	err = rules.Check(ctx, &policy.Image{
		Transport: "containers-storage", Scopes: policy.StorageScopes(root, img.Name, img.ID.Encoded()), Manifest: img.Recorded.Digest,
	})
	if err != nil {
		return err
	}
	if err := o.loadStorage(ctx, st, img, ref); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return nil
}

// loadStorage loads the image, and says so when its manifest is not the one that it had.
func (o *pullOptions) loadStorage(ctx context.Context, st *layers.Store, img *layers.GraphImage, ref string) error {
	lo := &layers.LoadOptions{MaxBytes: o.maxSize, DropBlobs: o.dropBlobs}
	if img.UseRecorded(ctx, st) {
		lo.DropBlobs = true // what there is of them the store has
	}
	raw, desc, err := img.Manifest(ctx)
	if err != nil {
		return err
	}
	if o.dryRun {
		return o.report(ctx, st, ref, raw)
	}
	if img.Name != "" {
		lo.Names = []string{img.Name}
	}
	loaded, err := loadShown(ctx, st, img, lo, o.quiet, o.progress)
	if err != nil {
		return err
	}
	o.noteManifest(ref, img.Recorded, desc)
	fmt.Fprintln(o.out, loaded.ID.Encoded())
	return nil
}

// noteManifest says that an image has another manifest than where it comes from.
func (o *pullOptions) noteManifest(ref string, was, is ocispec.Descriptor) {
	if was.Digest != is.Digest {
		fmt.Fprintf(o.progress, "%s has the new manifest %s instead of %s: its layers are there uncompressed only\n", ref, is.Digest, was.Digest)
	}
}
