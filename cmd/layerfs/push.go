package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"
	"go.podman.io/image/v5/docker/reference"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// pushOptions are the flags of push.
type pushOptions struct {
	image, dest string
	digestFile  string
	quiet       bool
	registry    *registry.Options
	out         io.Writer
	progress    io.Writer
}

func pushCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "push", Category: "Images in and out",
		Usage:     "send an image to a registry",
		UsageText: "layerfs push [flags] IMAGE [NAME]",
		Description: `The image goes out with the manifest and the layers that it came in with, byte for
byte. What the registry has is not sent, and what another repository of it has is
shared. Without NAME the image goes to where its own name says. Prints the digest of
the manifest.

Examples:
   layerfs push me/app:1 registry.example.com/team/app:1
   layerfs push localhost:5000/app                        # loopback registries need no TLS
   layerfs push --digestfile digest 1f2e3d4c5b6a docker://localhost:5000/app:test`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "digestfile", Usage: "write the digest of the manifest to `FILE`"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress"},
		}, registryFlags()...),
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, 2, "an IMAGE"); err != nil {
				return err
			}
			o := &pushOptions{
				image: c.Args().First(), dest: c.Args().Get(1), digestFile: c.String("digestfile"),
				quiet: c.Bool("quiet"), out: e.stdout, progress: e.stderr,
			}
			var err error
			if o.registry, err = registryOptions(c); err != nil {
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
	d, err := o.toRegistry(ctx, st, img, name)
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
	return client.Push(ctx, st.Outgoing(img, name), named, &registry.PushOptions{Repositories: repositories})
}
