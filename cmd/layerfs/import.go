package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
)

// importOptions are the flags of import.
type importOptions struct {
	input    string
	names    []string
	message  string
	platform *ocispec.Platform
	maxSize  int64
	stdin    io.Reader
	out      io.Writer
}

func importCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "import", Category: "Images in and out",
		Usage:     "make a one-layer image of the tar of a root file system",
		UsageText: "layerfs import [flags] FILE|- [NAME]",
		Description: `Reads a tar in any compression that load understands. The tar itself becomes the
layer: "layerfs diff" gives the same bytes back. Prints the ID of the image.

Examples:
   layerfs import rootfs.tar.xz my/base:1
   mmdebstrap bookworm - | layerfs import - debian:mine`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "comment in the `TEXT` of the history"},
			&cli.StringFlag{Name: "platform", Usage: "`OS/ARCH[/VARIANT]` that the files are for", DefaultText: "this machine's"},
			&cli.StringFlag{Name: "max-size", Usage: "refuse more than `SIZE` uncompressed, such as 10GB"},
		},
		Action: func(c *cli.Context) error {
			o, err := e.importOptions(c)
			if err != nil {
				return err
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return importTar(ctx, o, st)
			})
		},
	}
}

func (e *env) importOptions(c *cli.Context) (o *importOptions, err error) {
	if err := argCount(c, 1, 2, "FILE or -"); err != nil {
		return nil, err
	}
	o = &importOptions{input: c.Args().First(), message: c.String("message"), stdin: e.in, out: e.stdout}
	if o.input == "-" && isTerminal(e.stdin) {
		return nil, usagef("standard input is a terminal; name the tar file")
	}
	if c.Args().Len() == 2 {
		o.names = []string{c.Args().Get(1)}
	}
	if text := c.String("platform"); text != "" {
		if o.platform, err = parsePlatform(text); err != nil {
			return nil, err
		}
	}
	o.maxSize, err = parseSize("max-size", c.String("max-size"))
	return o, err
}

// importTar makes an image of a tar and prints its ID.
func importTar(ctx context.Context, o *importOptions, st *layers.Store) (err error) {
	r := o.stdin
	if o.input != "-" {
		f, err := os.Open(o.input)
		if err != nil {
			return fileError(err)
		}
		defer f.Close()
		r = f
	}
	img, err := st.Import(ctx, r, &layers.ImportOptions{
		Names: o.names, Message: o.message, Platform: o.platform, MaxBytes: o.maxSize,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", inputName(o.input), err)
	}
	fmt.Fprintln(o.out, img.ID)
	return nil
}

// fileError drops the name of the system call from the error of a file that the
// user named.
func fileError(err error) error {
	var p *os.PathError
	if errors.As(err, &p) && p.Error() == err.Error() {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}
