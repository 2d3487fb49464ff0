package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
	"github.com/layerfs/layerfs/layers/policy"
)

// registryScheme is how a reference says that it is in a registry.
const registryScheme = "docker://"

// A location is an image in a file or directory, in the notation of containers tools:
// TRANSPORT:PATH[:NAME].
type location struct {
	transport string
	path, ref string
}

// transports are those of files and directories.
var transports = map[string]archive.Format{
	"oci": archive.FormatOCIDir, "oci-archive": archive.FormatOCIArchive,
	"docker-archive": archive.FormatDockerArchive, "dir": archive.FormatSkopeoDir,
}

// foreignTransports are those of containers tools that layerfs does not know, or, as
// containers-storage, only in pull.
var foreignTransports = []string{"docker-daemon", "containers-storage", "ostree", "sif", "tarball", "atomic"}

// parseLocation returns nil for a reference to a registry, with or without its scheme.
func parseLocation(text string) (*location, error) {
	transport, rest, ok := strings.Cut(text, ":")
	if !ok || strings.HasPrefix(rest, "//") && transport == "docker" {
		return nil, nil
	}
	if slices.Contains(foreignTransports, transport) {
		return nil, usagef("transport %s is not supported; copy the image with `skopeo copy %s oci:DIR` first", transport, text)
	}
	if _, known := transports[transport]; !known {
		return nil, nil // NAME:TAG or HOST:PORT/NAME
	}
	l := &location{transport: transport, path: rest}
	if transport != "dir" { // there a colon is part of the path
		l.path, l.ref, _ = strings.Cut(rest, ":")
	}
	if l.path == "" {
		return nil, usagef("%q: want %s:PATH", text, transport)
	}
	return l, nil
}

// open opens what is at the location, which must be of its kind.
func (l *location) open(st *layers.Store, maxSize int64) (*archive.Archive, error) {
	a, err := archive.Open(l.path, &archive.Options{TempDir: filepath.Join(st.Root(), "tmp"), MaxBytes: maxSize})
	if err != nil {
		return nil, fileError(err)
	}
	// An archive of a new docker is both.
	got, want := a.Format(), transports[l.transport]
	if got != want && (want != archive.FormatDockerArchive || got != archive.FormatOCIArchive) {
		err := fmt.Errorf("%s: %w: it is of the kind %v, not %v", l.path, archive.ErrNotArchive, got, want)
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// images returns those that the location names: all when it names none.
func (l *location) images(a *archive.Archive) ([]archive.Image, error) {
	if l.ref == "" {
		return a.Images(), nil
	}
	var out []archive.Image
	normal, _ := layers.NormalizeName(l.ref) // else it is no name, but may be what the index says
	for _, img := range a.Images() {
		if img.RefName == l.ref || slices.Contains(img.Names, normal) {
			out = append(out, img)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w named %s", l.path, archive.ErrNoImage, l.ref)
	}
	return out, nil
}

// pullLocation loads the images of a location that the signature policy lets in.
func (o *pullOptions) pullLocation(ctx context.Context, st *layers.Store, l *location) (err error) {
	rules, err := policy.Load(o.registry.Policy)
	if err != nil {
		return err
	}
	a, err := l.open(st, o.maxSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	images, err := l.images(a)
	if err == nil && !o.allPlatforms {
		images, err = archive.Select(images, o.platform)
	}
	if err != nil {
		return err
	}
	for _, img := range images {
		if img.Artifact && !img.Independent() {
			continue
		}
		if err := o.pullImage(ctx, st, l, img, rules); err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
	}
	return nil
}

func (o *pullOptions) pullImage(ctx context.Context, st *layers.Store, l *location, img archive.Image, rules *policy.Policy) error {
	raw, _, err := img.Source.Manifest(ctx)
	if err != nil {
		return err
	}
	err = rules.Check(ctx, &policy.Image{
		Transport: l.transport, Scopes: policy.PathScopes(l.transport, l.path, l.ref), Manifest: digest.FromBytes(raw),
	})
	if err != nil {
		return err
	}
	if o.dryRun {
		return o.report(ctx, st, l.path, raw)
	}
	lo := &layers.LoadOptions{Names: img.Names, MaxBytes: o.maxSize, DropBlobs: o.dropBlobs}
	loaded, err := loadShown(ctx, st, img.Source, lo, o.quiet, o.progress)
	if err != nil {
		return err
	}
	fmt.Fprintln(o.out, loaded.ID.Encoded())
	return nil
}
