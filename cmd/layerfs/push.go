package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"
	"go.podman.io/image/v5/docker/reference"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
	"github.com/layerfs/layerfs/layers/registry"
)

// pushOptions are the flags of push.
type pushOptions struct {
	image, dest string
	digestFile  string
	quiet       bool
	all         bool
	compression archive.Compression
	level       int
	registry    *registry.Options
	out         io.Writer
	progress    io.Writer
}

func pushCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "push", Category: "Images in and out",
		Usage:     "send an image to a registry, a file or a directory",
		UsageText: "layerfs push [flags] IMAGE [NAME]",
		Description: `The image goes out with the manifest and the layers that it came in with, byte for
byte. What the registry has is not sent, and what another repository of it has is
shared. Without NAME the image goes to where its own name says. NAME may also be
oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF] or dir:DIR; to a layout
that is there already the image is added. Prints the digest of the manifest.

Examples:
   layerfs push me/app:1 registry.example.com/team/app:1
   layerfs push --all-platforms debian:12 localhost:5000/debian:12
   layerfs push localhost:5000/app                        # loopback registries need no TLS
   layerfs push --digestfile digest 1f2e3d4c5b6a docker://localhost:5000/app:test
   layerfs push me/app:1 dir:/tmp/app                     # as skopeo's dir: transport`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "digestfile", Usage: "write the digest of the manifest to `FILE`"},
			&cli.BoolFlag{Name: "all-platforms", Usage: "send the index that the image was found through, with the images of all its platforms"},
			&cli.StringFlag{Name: "compression", Value: "keep", Usage: "`KIND` of compression: keep, none, gzip or zstd; any but keep gives the image another digest"},
			compressionLevelFlag(),
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress"},
		}, registryFlags()...),
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 2, "an IMAGE"); err != nil {
				return err
			}
			o := &pushOptions{
				image: c.Args().First(), dest: c.Args().Get(1), digestFile: c.String("digestfile"),
				quiet: c.Bool("quiet"), all: c.Bool("all-platforms"), level: c.Int("compression-level"), out: e.stdout, progress: e.stderr,
			}
			var err error
			if o.compression, err = archive.ParseCompression(c.String("compression")); err != nil {
				return usagef("--compression: %v", err)
			}
			if err = o.compression.CheckLevel(o.level); err != nil {
				return usagef("--compression-level: %v", err)
			}
			if o.registry, err = e.registryOptions(c); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return push(ctx, o, st)
			})
		},
	}
}

// push sends an image and prints its digest.
func push(ctx context.Context, o *pushOptions, st *layers.Store) error {
	img, err := st.Image(ctx, o.image)
	if err != nil {
		return err
	}
	name := nameOf(img, o.image)
	if o.dest == "" {
		if o.dest = name; name == "" {
			return usagef("%s is an ID; say under which NAME to push the image", o.image)
		}
	}
	if transport, _, ok := strings.Cut(o.dest, ":"); ok && slices.Contains(foreignTransports, transport) {
		return usagef("transport %s cannot be pushed to; push to oci:DIR:TAG, and then `skopeo copy oci:DIR:TAG %s`", transport, o.dest)
	}
	l, err := parseLocation(o.dest)
	if err != nil {
		return err
	}
	var d digest.Digest
	if l != nil && o.all {
		return usagef("--all-platforms is for registries")
	}
	if l != nil {
		d, err = o.toLocation(ctx, st, l)
	} else {
		d, err = o.toRegistry(ctx, st, img, name)
	}
	if err != nil {
		return err
	}
	if o.digestFile != "" {
		if err := os.WriteFile(o.digestFile, []byte(d), 0o666); err != nil {
			return fileError(err)
		}
	}
	_, err = fmt.Fprintln(o.out, d)
	return err
}

func (o *pushOptions) toRegistry(ctx context.Context, st *layers.Store, img *layers.Image, name string) (digest.Digest, error) {
	normal, err := layers.NormalizeName(strings.TrimPrefix(o.dest, registryScheme))
	if err != nil {
		return "", err
	}
	named, err := reference.ParseNormalizedNamed(normal)
	if err != nil {
		return "", err
	}
	ro := *o.registry
	if !o.quiet {
		p := newProgress(o.progress)
		p.sending = true
		defer p.close()
		ro.Progress = p.fetched
	}
	client, err := registry.New(&ro)
	if err != nil {
		return "", err
	}
	var blobs []digest.Digest
	for _, l := range img.Manifest(name).Layers {
		blobs = append(blobs, l.Digest)
	}
	repositories, err := st.Repositories(ctx, blobs)
	if err != nil {
		return "", err
	}
	po := &registry.PushOptions{Repositories: repositories}
	if o.all {
		index, err := indexOf(img, name)
		if err != nil {
			return "", err
		}
		return client.PushIndex(ctx, st, index, named, po)
	}
	if o.compression == archive.KeepCompression {
		d, err := client.Push(ctx, st.Outgoing(img, name), named, po)
		if !errors.Is(err, layers.ErrBlobGone) {
			return d, err
		}
	}
	return o.rewritten(ctx, st, func(src *archive.Rewritten) (digest.Digest, error) {
		return client.Push(ctx, src, named, po)
	})
}

// indexOf returns the outermost index that the image was found through.
func indexOf(img *layers.Image, name string) (ocispec.Descriptor, error) {
	m := img.Manifest(name)
	if len(m.Indexes) == 0 {
		return ocispec.Descriptor{}, usagef("--all-platforms: %s did not come from an index; pull it with --all-platforms first", img.ID)
	}
	return m.Indexes[0], nil
}

// toSave returns the image and how it is to be written.
func (o *pushOptions) toSave(ctx context.Context, st *layers.Store) (archive.SaveImage, *archive.WriteOptions, error) {
	images, err := toSave(ctx, []string{o.image}, st)
	if err != nil {
		return archive.SaveImage{}, nil, err
	}
	so := &saveOptions{compression: o.compression, notes: o.progress}
	return images[0], &archive.WriteOptions{TempDir: saveTemp(st), Compression: o.compression, Level: o.level, Changed: so.changed}, nil
}

// rewritten compresses the layers anew, which gives the image another manifest.
func (o *pushOptions) rewritten(ctx context.Context, st *layers.Store, send func(*archive.Rewritten) (digest.Digest, error)) (d digest.Digest, err error) {
	img, wo, err := o.toSave(ctx, st)
	if err != nil {
		return "", err
	}
	src, err := archive.Rewrite(ctx, img, wo)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	return send(src)
}

// toLocation writes the image to a file or directory and returns the digest of the
// manifest there, in a docker-archive, which has none, that of the image's own.
func (o *pushOptions) toLocation(ctx context.Context, st *layers.Store, l *location) (digest.Digest, error) {
	img, wo, err := o.toSave(ctx, st)
	if err != nil {
		return "", err
	}
	d := img.Desc.Digest
	note := wo.Changed
	wo.Changed = func(img *archive.SaveImage, m ocispec.Descriptor) {
		d = m.Digest
		note(img, m)
	}
	switch format := transports[l.transport]; format {
	case archive.FormatSkopeoDir:
		_, err = archive.WriteSkopeoDir(ctx, l.path, img, wo)
	case archive.FormatOCIDir:
		img.RefName = l.ref
		err = archive.AddToDir(ctx, l.path, img, wo)
	default:
		if err := l.rename(&img); err != nil {
			return "", err
		}
		err = writeOutput(l.path, o.out, func(w io.Writer) error {
			return archive.Write(ctx, w, format, []archive.SaveImage{img}, wo)
		})
	}
	return d, err
}

// rename gives the image in an archive the name that the location says.
func (l *location) rename(img *archive.SaveImage) error {
	switch {
	case l.ref == "":
	case l.transport == "oci-archive":
		img.RefName = l.ref
	default:
		name, err := layers.NormalizeName(l.ref)
		if err != nil {
			return err
		}
		img.Names = []string{name}
	}
	return nil
}
