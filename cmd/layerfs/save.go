package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
)

// saveOptions are the flags of save.
type saveOptions struct {
	images      []string
	output      string
	format      archive.Format
	compression archive.Compression
	level       int
	out         io.Writer
	notes       io.Writer
}

func saveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "save", Category: "Images in and out",
		Usage:     "write images to an archive or layout",
		UsageText: "layerfs save [-o FILE|DIR] [--format FORMAT] NAME...",
		Description: `Manifests and configs are written as they came in. In the OCI formats compressed
layers too, bit for bit: the image goes out with the digest that it came in with. Only
when a layer was not kept (load --keep-blobs=false), or --compression wants another,
layers are compressed anew and the manifest is adapted, which is said; the image's ID
stays. docker-archive has layers uncompressed. The same images give the same bytes. An
archive appears under its name when it is complete. Artifacts, which are no images, go
into the OCI formats as they came.

Examples:
   layerfs save -o alpine.tar alpine                       # for docker load, podman load
   layerfs save --format oci-archive -o two.tar alpine debian:12
   layerfs save --format oci-dir -o layout alpine
   layerfs save --format oci-dir --compression zstd --compression-level 9 -o smaller alpine
   layerfs save alpine | ssh host podman load`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`, or for oci-dir and dir to the new directory, instead of standard output"},
			&cli.StringFlag{Name: "format", Value: "docker-archive", Usage: "`FORMAT`: docker-archive, oci-archive, oci-dir or dir"},
			&cli.StringFlag{Name: "compression", Value: "keep", Usage: "`COMPRESSION` of layers in OCI formats: keep, none, gzip or zstd"},
			compressionLevelFlag(),
		},
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "NAME of an image"); err != nil {
				return err
			}
			format, err := archive.ParseFormat(c.String("format"))
			if err != nil {
				return usagef("%v", err)
			}
			compression, err := archive.ParseCompression(c.String("compression"))
			if err != nil {
				return usagef("--compression: %v", err)
			}
			if compression != archive.KeepCompression && format == archive.FormatDockerArchive {
				return usagef("--compression is for oci-archive and oci-dir; a docker-archive has layers uncompressed")
			}
			if err := compression.CheckLevel(c.Int("compression-level")); err != nil {
				return usagef("--compression-level: %v", err)
			}
			o := &saveOptions{
				images: c.Args().Slice(), output: c.String("output"), format: format, compression: compression, level: c.Int("compression-level"),
				out: e.stdout, notes: e.stderr,
			}
			if o.output == "-" {
				o.output = ""
			}
			if o.output == "" && (format == archive.FormatOCIDir || format == archive.FormatSkopeoDir) {
				return usagef("a directory cannot go to standard output; name it with -o DIR")
			}
			if o.output == "" && terminalWidth(e.stdout) > 0 {
				return usagef("an archive is nothing for a terminal; redirect the output or use -o FILE")
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return save(ctx, o, st)
			})
		},
	}
}

func compressionLevelFlag() cli.Flag {
	return &cli.IntFlag{Name: "compression-level", Usage: "`LEVEL` of --compression gzip, 1 to 9, or zstd, 1 to 19; 6 and 1 otherwise"}
}

// save writes images to an archive or a layout.
func save(ctx context.Context, o *saveOptions, st *layers.Store) error {
	images, err := toSave(ctx, o.images, st)
	if err != nil {
		return err
	}
	wo := &archive.WriteOptions{TempDir: saveTemp(st), Compression: o.compression, Level: o.level, Changed: o.changed}
	switch o.format {
	case archive.FormatOCIDir:
		return archive.WriteDir(ctx, o.output, images, wo)
	case archive.FormatSkopeoDir:
		if len(images) > 1 {
			return usagef("a directory of the format dir holds one image")
		}
		_, err := archive.WriteSkopeoDir(ctx, o.output, images[0], wo)
		return err
	}
	return writeOutput(o.output, o.out, func(w io.Writer) error {
		return archive.Write(ctx, w, o.format, images, wo)
	})
}

// changed says that an image goes out with another digest than it came in with.
func (o *saveOptions) changed(img *archive.SaveImage, manifest ocispec.Descriptor) {
	name := digest.FromBytes(img.Config).Encoded()[:12]
	if len(img.Names) > 0 {
		name = img.Names[0]
	}
	why := "its compressed layers were not kept"
	if o.compression != archive.KeepCompression {
		why = "as --compression wants"
	}
	fmt.Fprintf(o.notes, "%s has the new manifest %s instead of %s: %s\n", name, manifest.Digest, img.Desc.Digest, why)
}

// saveTemp is where compressed layers wait until their size is known: in the store,
// which has room for layers, unless that cannot be written.
func saveTemp(st *layers.Store) string {
	if st.ReadOnly() {
		return ""
	}
	return filepath.Join(st.Root(), "tmp")
}

// toSave gathers the images: one that is named several times is written once, with
// the names that were asked for.
func toSave(ctx context.Context, items []string, st *layers.Store) ([]archive.SaveImage, error) {
	var list []archive.SaveImage
	place := map[string]int{} // manifest → index in list
	known, err := layersByID(ctx, st)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		img, err := st.Image(ctx, item)
		if err != nil {
			return nil, err
		}
		name := nameOf(img, item)
		m := img.Manifest(name)
		i, ok := place[string(m.Descriptor.Digest)]
		if !ok {
			s, err := saveImage(st, img, name, known)
			if err != nil {
				return nil, err
			}
			i = len(list)
			list, place[string(m.Descriptor.Digest)] = append(list, s), i
		}
		if name != "" {
			list[i].Names = append(list[i].Names, name)
		}
	}
	return list, nil
}

func saveImage(st *layers.Store, img *layers.Image, name string, known map[digest.Digest]layers.LayerInfo) (archive.SaveImage, error) {
	m := img.Manifest(name)
	s := archive.SaveImage{Desc: m.Descriptor, Platform: &img.Platform}
	var err error
	if s.Manifest, err = st.Blob(m.Descriptor.Digest); err != nil {
		return s, err
	}
	if s.Config, err = st.Blob(img.Config.Digest); err != nil {
		return s, err
	}
	if img.IsArtifact() {
		s.Platform, s.ArtifactType = nil, img.Artifact
		out := st.OutgoingManifest(img, m)
		for _, desc := range m.Layers {
			s.Layers = append(s.Layers, archive.SaveLayer{
				Desc: desc, Blob: func(ctx context.Context) (archive.Blob, error) { return out.ArtifactBlob(ctx, desc) },
			})
		}
		return s, nil
	}
	if len(m.Layers) != len(img.Layers) {
		return s, fmt.Errorf("%w: manifest %s has %d layers, image %s has %d", layers.ErrDamaged, m.Descriptor.Digest, len(m.Layers), img.ID, len(img.Layers))
	}
	for i, d := range img.DiffIDs() {
		l, ok := known[img.Layers[i]]
		if !ok {
			return s, fmt.Errorf("%w: %s of image %s", layers.ErrLayerUnknown, d, img.ID)
		}
		s.Layers = append(s.Layers, archive.SaveLayer{
			DiffID: l.DiffID, Size: l.Size, Desc: m.Layers[i],
			Open: func() (io.ReadCloser, error) { return openTar(st, d) },
			WriteTar: func(ctx context.Context, w io.Writer, verify bool) error {
				return writeTar(ctx, st, d, l.Size, w, verify)
			},
			Blob: func(ctx context.Context) (archive.Blob, error) { return st.OpenLayerBlob(ctx, m.Layers[i]) },
		})
	}
	return s, nil
}

// A layerTar reads the tar of a layer and keeps it open meanwhile.
type layerTar struct {
	*io.SectionReader
	layer *layers.Layer
}

func (t layerTar) Close() error { return t.layer.Close() }

func openTar(st *layers.Store, d layers.DiffID) (io.ReadCloser, error) {
	l, err := st.OpenLayer(d)
	if err != nil {
		return nil, err
	}
	tar, err := l.Tar()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return layerTar{io.NewSectionReader(tar, 0, tar.Size()), l}, nil
}

// writeTar writes the tar of a layer, which has to have the size.
func writeTar(ctx context.Context, st *layers.Store, d layers.DiffID, size int64, w io.Writer, verify bool) error {
	l, err := st.OpenLayer(d)
	if err != nil {
		return err
	}
	defer l.Close() // it was only read
	tar, err := l.Tar()
	if err != nil {
		return err
	}
	if tar.Size() != size {
		return fmt.Errorf("%w: its tar has %d bytes, but its record says %d; run `layerfs check`", layers.ErrDamaged, tar.Size(), size)
	}
	if verify {
		return l.WriteTar(ctx, w)
	}
	return l.WriteTarUnverified(ctx, w)
}
