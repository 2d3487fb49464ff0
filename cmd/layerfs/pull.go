package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// pullOptions are the flags of pull.
type pullOptions struct {
	refs         []string
	platform     *ocispec.Platform
	allPlatforms bool
	dryRun       bool
	quiet        bool
	dropBlobs    bool
	registry     *registry.Options
	maxSize      int64
	out          io.Writer
	progress     io.Writer
}

func pullCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "pull", Category: "Images in and out",
		Usage:     "bring images from a registry into the store",
		UsageText: "layerfs pull [flags] NAME...",
		Description: `NAME is a reference with its registry, or a short name, which the aliases and the
unqualified-search-registries of registries.conf complete; or oci:DIR[:NAME],
oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], dir:DIR. The signature policy of
containers tools (policy.json) decides what may come in. A pull that was interrupted
goes on where it stopped; layers that the store has are not fetched. Prints the ID of
each image.

containers-storage:NAME is an image of podman, buildah or CRI-O, @ID one by its ID,
which comes without a name; [DIR]NAME says where its graph root is (overlay driver).
Layers are there uncompressed only, so an image that came to podman compressed gets
a new manifest here; its ID stays. Nothing is changed there.

Examples:
   layerfs pull docker.io/library/alpine:3.20
   layerfs pull docker://localhost:5000/me/app:1      # loopback registries need no TLS
   layerfs pull --platform linux/arm64 quay.io/podman/hello
   layerfs pull --creds me:secret registry.example.com/team/app@sha256:0123…
   layerfs pull --dry-run docker.io/library/debian    # can it be pulled? fetches no layer
   layerfs pull oci:layout:v1
   layerfs pull containers-storage:localhost/built:1
   podman unshare layerfs --root ~/images pull containers-storage:alpine  # of a user
   layerfs pull 'containers-storage:[overlay@/srv/graph+/run/graph]alpine:3.20'`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "platform", Usage: "pull the image for `OS/ARCH[/VARIANT]` instead of this machine's"},
			&cli.BoolFlag{Name: "all-platforms", Usage: "pull the images of all platforms; the name goes to this machine's"},
			&cli.BoolFlag{Name: "dry-run", Usage: "fetch manifest and config only and say what would be pulled"},
			&cli.StringFlag{Name: "signature-policy", Usage: "`FILE` instead of the policy.json of containers tools"},
			&cli.StringFlag{Name: "max-size", Usage: "refuse images whose layers have more than `SIZE` uncompressed, such as 10GB"},
			&cli.BoolFlag{Name: "keep-blobs", Value: true, Usage: "keep the layers as they came too; without, less space is needed, but the image may go out with another digest"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress"},
		}, registryFlags()...),
		Action: func(c *cli.Context) error {
			o, err := e.pullOptions(c)
			if err != nil {
				return err
			}
			return withStore(c, e.openStore, func(ctx context.Context, st *layers.Store) error {
				return pull(ctx, o, st)
			})
		},
	}
}

func (e *env) pullOptions(c *cli.Context) (*pullOptions, error) {
	if err := argCount(c, 1, -1, "the NAME of an image"); err != nil {
		return nil, err
	}
	o := &pullOptions{
		refs: c.Args().Slice(), allPlatforms: c.Bool("all-platforms"), dryRun: c.Bool("dry-run"),
		quiet: c.Bool("quiet"), dropBlobs: !c.Bool("keep-blobs"), out: e.stdout, progress: e.stderr,
	}
	var err error
	if o.registry, err = e.registryOptions(c); err != nil {
		return nil, err
	}
	o.registry.Policy = c.String("signature-policy")
	if o.platform, err = platformFlag(c); err != nil {
		return nil, err
	}
	o.maxSize, err = parseSize("max-size", c.String("max-size"))
	return o, err
}

// platformFlag reads --platform, which --all-platforms excludes.
func platformFlag(c *cli.Context) (*ocispec.Platform, error) {
	text := c.String("platform")
	if text == "" {
		return nil, nil
	}
	if c.Bool("all-platforms") {
		return nil, usagef("--platform and --all-platforms exclude each other")
	}
	return parsePlatform(text)
}

// pull brings images into the store and prints their IDs.
func pull(ctx context.Context, o *pullOptions, st *layers.Store) error {
	for _, ref := range o.refs {
		if err := o.pullOne(ctx, st, ref); err != nil {
			return err
		}
	}
	return nil
}

func (o *pullOptions) pullOne(ctx context.Context, st *layers.Store, ref string) error {
	if rest, ok := strings.CutPrefix(ref, storageScheme); ok {
		return o.pullStorage(ctx, st, rest)
	}
	l, err := parseLocation(ref)
	switch {
	case err != nil:
		return err
	case l != nil:
		return o.pullLocation(ctx, st, l)
	}
	return o.pullRemote(ctx, st, ref)
}

func (o *pullOptions) pullRemote(ctx context.Context, st *layers.Store, ref string) error {
	var p *progress
	ro := *o.registry
	if !o.quiet && !o.dryRun {
		p = newProgress(o.progress)
		defer p.close()
		ro.Progress = p.fetched
	}
	remote, err := findRemote(ctx, &ro, ref)
	if err != nil {
		return err
	}
	chosen, err := o.choose(ctx, remote)
	if err != nil {
		return err
	}
	for _, c := range chosen {
		if o.dryRun {
			err = o.check(ctx, st, remote, c)
		} else {
			err = o.fetch(ctx, st, remote, c, p)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// findRemote asks the registries that a name may mean.
func findRemote(ctx context.Context, o *registry.Options, ref string) (*registry.Remote, error) {
	client, err := registry.New(o)
	if err != nil {
		return nil, err
	}
	names, err := client.Resolve(strings.TrimPrefix(ref, registryScheme))
	if err != nil {
		return nil, err
	}
	return client.FindAny(ctx, names)
}

func (o *pullOptions) fetch(ctx context.Context, st *layers.Store, remote *registry.Remote, c pullItem, p *progress) error {
	lo := &layers.LoadOptions{Names: []string{c.name}, MaxBytes: o.maxSize, DropBlobs: o.dropBlobs}
	if p != nil {
		p.restart()
		lo.Progress = p.layer
	}
	img, err := remote.Pull(ctx, st, c.Instance, lo)
	if err != nil {
		return err
	}
	fmt.Fprintln(o.out, img.ID.Encoded())
	return nil
}

// check says what a pull would bring, after asking all that a pull asks first.
func (o *pullOptions) check(ctx context.Context, st *layers.Store, remote *registry.Remote, c pullItem) error {
	raw, _, err := remote.Describe(ctx, c.Instance)
	if err != nil {
		return err
	}
	return o.report(ctx, st, c.name, raw)
}

// report says which layers of a manifest are not in the store.
func (o *pullOptions) report(ctx context.Context, st *layers.Store, name string, manifest []byte) error {
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return err
	}
	missing, bytes, err := st.Missing(ctx, m)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "Would pull %s: image %s, %d of %d layers to fetch, %s\n",
		name, short(string(m.Config.Digest), false), missing, len(m.Layers), size(bytes))
	return nil
}

// A pullItem is an instance and the name that it gets.
type pullItem struct {
	registry.Instance
	name string
}

// choose returns the instances to pull. The one for this machine comes last and gets
// the name, the others are named by their digests.
func (o *pullOptions) choose(ctx context.Context, r *registry.Remote) ([]pullItem, error) {
	list, err := r.Instances(ctx)
	if err != nil {
		return nil, err
	}
	main, err := registry.Select(list, o.platform)
	if err != nil && (!o.allPlatforms || len(list) == 0) {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	if err != nil {
		main = list[0]
	}
	var out []pullItem
	if o.allPlatforms {
		repository, _, _ := layers.SplitName(r.Name)
		for _, in := range list {
			if in.Descriptor.Digest != main.Descriptor.Digest {
				out = append(out, pullItem{in, repository + "@" + string(in.Descriptor.Digest)})
			}
		}
	}
	return append(out, pullItem{main, r.Name}), nil
}
