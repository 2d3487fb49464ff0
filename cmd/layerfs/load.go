package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
)

// loadOptions are the flags of load.
type loadOptions struct {
	input        string
	names        []string
	platform     *ocispec.Platform
	allPlatforms bool
	maxSize      int64
	dropBlobs    bool
	quiet        bool
	stdin        io.Reader
	out          io.Writer
	progress     io.Writer
}

func loadCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "load", Category: "Images in and out",
		Usage:     "bring the images of an archive or layout into the store",
		UsageText: "layerfs load [flags] [FILE|DIR|-]",
		Description: `Reads a docker-archive (of any docker), an oci-archive or an OCI image layout
directory; what it is and how it is compressed (gzip, zstd, bzip2, xz) is found out
from the content. Every digest is verified. When the command returns the images are
on disk; when it fails or is interrupted the store is as it was before.

Examples:
   layerfs load -i debian.tar
   podman save alpine | layerfs load
   layerfs load --name me/app:1 ./layout        # give the image this name
   layerfs load --platform linux/arm64 multi.tar
   layerfs load --max-size 10GB untrusted.tar   # refuse more uncompressed bytes
   layerfs load --keep-blobs=false big.tar      # less space, other digests on the way out`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "input", Aliases: []string{"i"}, Usage: "`FILE`, directory, or - for standard input"},
			&cli.StringSliceFlag{Name: "name", Aliases: []string{"n"}, Usage: "`NAME` for the image instead of those in the archive; can be repeated"},
			&cli.StringFlag{Name: "platform", Usage: "load the image for `OS/ARCH[/VARIANT]` instead of this machine's"},
			&cli.BoolFlag{Name: "all-platforms", Usage: "load the images of all platforms"},
			&cli.StringFlag{Name: "max-size", Usage: "refuse images whose layers have more than `SIZE` uncompressed, such as 10GB"},
			&cli.BoolFlag{Name: "keep-blobs", Value: true, Usage: "keep compressed layers as they are, so that the image goes out with the digests it came in with"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress"},
		},
		Action: func(c *cli.Context) error {
			o, err := e.loadOptions(c)
			if err != nil {
				return err
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return load(ctx, o, st)
			})
		},
	}
}

func (e *env) loadOptions(c *cli.Context) (*loadOptions, error) {
	if err := argCount(c, 0, 1, ""); err != nil {
		return nil, err
	}
	o := &loadOptions{
		input: c.String("input"), names: c.StringSlice("name"), allPlatforms: c.Bool("all-platforms"),
		dropBlobs: !c.Bool("keep-blobs"), quiet: c.Bool("quiet"), stdin: e.in, out: e.stdout, progress: e.stderr,
	}
	if c.Args().Present() {
		if o.input != "" {
			return nil, usagef("both --input %s and the argument %s say what to load", o.input, c.Args().First())
		}
		o.input = c.Args().First()
	}
	if o.input == "" {
		o.input = "-"
	}
	if o.input == "-" && isTerminal(e.stdin) {
		return nil, usagef("standard input is a terminal; name the archive with -i FILE")
	}
	if err := o.parsePlatform(c.String("platform")); err != nil {
		return nil, err
	}
	var err error
	if o.maxSize, err = parseSize("max-size", c.String("max-size")); err != nil {
		return nil, err
	}
	for _, name := range o.names {
		if _, err := layers.NormalizeName(name); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *loadOptions) parsePlatform(text string) error {
	if text == "" {
		return nil
	}
	if o.allPlatforms {
		return usagef("--platform and --all-platforms exclude each other")
	}
	p, err := parsePlatform(text)
	o.platform = p
	return err
}

// parseSize understands 10GB, 500MiB and plain bytes; empty means no limit.
func parseSize(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n <= 0 {
		return 0, usagef("--%s %q: want a size such as 500MB or 10GB", flag, text)
	}
	return n, nil
}

// load brings the selected images of an archive into the store and prints their
// names.
func load(ctx context.Context, o *loadOptions, st *layers.Store) (err error) {
	a, err := archive.Open(o.input, &archive.Options{TempDir: filepath.Join(st.Root(), "tmp"), Stdin: o.stdin, MaxBytes: o.maxSize})
	if err != nil {
		return fileError(err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	images, err := o.choose(a)
	if err != nil {
		return o.named(err)
	}
	for _, img := range images {
		if err := o.loadOne(ctx, st, img); err != nil {
			return o.named(err)
		}
	}
	return nil
}

// named says which input an error is about, unless the error does: those of the
// archive itself name the member too.
func (o *loadOptions) named(err error) error {
	if strings.Contains(err.Error(), inputName(o.input)) {
		return err
	}
	return fmt.Errorf("%s: %w", inputName(o.input), err)
}

func inputName(input string) string {
	if input == "-" {
		return "standard input"
	}
	return input
}

func (o *loadOptions) loadOne(ctx context.Context, st *layers.Store, img archive.Image) error {
	names := img.Names
	if len(o.names) > 0 {
		names = o.names
	}
	lo := &layers.LoadOptions{Names: names, MaxBytes: o.maxSize, DropBlobs: o.dropBlobs}
	loaded, err := loadShown(ctx, st, img.Source, lo, o.quiet, o.progress)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		fmt.Fprintf(o.out, "Loaded image ID: %s\n", loaded.ID)
	}
	for _, name := range names {
		normal, err := layers.NormalizeName(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.out, "Loaded image: %s\n", normal)
	}
	return nil
}

// loadShown loads an image and shows how far it is, unless that is not wanted.
func loadShown(ctx context.Context, st *layers.Store, src layers.Source, lo *layers.LoadOptions, quiet bool, w io.Writer) (*layers.Image, error) {
	if !quiet {
		p := newProgress(w)
		defer p.close()
		lo.Progress = p.layer
	}
	return st.Load(ctx, src, lo)
}

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	return terminal(f)
}
