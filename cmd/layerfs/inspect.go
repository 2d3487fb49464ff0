package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/registry"
)

// inspectOptions are the flags of inspect.
type inspectOptions struct {
	items    []string
	format   string
	raw      bool
	manifest bool
	platform *ocispec.Platform
	registry *registry.Options
	out      io.Writer
}

func inspectCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "inspect", Category: "Images",
		Usage:     "show everything about images, layers and containers",
		UsageText: "layerfs inspect [flags] NAME...",
		Description: `Prints a JSON array with one object for each NAME, in the fields of "podman image
inspect" (Id, RepoTags, RepoDigests, Created, Config, RootFS, History, …); for a
layer, named by its DiffID, the fields of "layers --format json"; for a layer record
or a ChainID those of "layer inspect"; for a container its record and big data.
docker://NAME is an image in a registry, of which the manifest and the config are
fetched and no layer.

Examples:
   layerfs inspect alpine
   layerfs inspect --format '{{.Config.Cmd}}' alpine
   layerfs inspect --raw alpine | sha256sum      # the config as received: the image's ID
   layerfs inspect --raw --manifest alpine
   layerfs inspect docker://docker.io/library/alpine:3.20`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "json", Usage: "`FORMAT`: json or a Go template"},
			&cli.BoolFlag{Name: "raw", Usage: "print the bytes of the config as they were received"},
			&cli.BoolFlag{Name: "manifest", Usage: "with --raw: the bytes of the manifest"},
			&cli.StringFlag{Name: "platform", Usage: "of an image in a registry the one for `OS/ARCH[/VARIANT]`"},
		}, registryFlags()...),
		BashComplete: completeNames(e),
		Action: func(c *cli.Context) error {
			if err := argCount(c, 1, -1, "NAME of an image, layer or container"); err != nil {
				return err
			}
			o := &inspectOptions{
				items: c.Args().Slice(), format: c.String("format"),
				raw: c.Bool("raw"), manifest: c.Bool("manifest"), out: e.stdout,
			}
			if o.manifest && !o.raw {
				return usagef("--manifest needs --raw")
			}
			var err error
			if o.registry, err = e.registryOptions(c); err != nil {
				return err
			}
			if o.platform, err = platformFlag(c); err != nil {
				return err
			}
			return withStore(c, e.viewStore, func(ctx context.Context, st *layers.Store) error {
				return inspect(ctx, o, st)
			})
		},
	}
}

// An imageReport is what inspect shows of an image. Its fields are named as those
// of podman and docker, so that scripts for them work.
type imageReport struct {
	Id           string // spelt as in the templates of those tools
	Digest       digest.Digest
	RepoTags     []string
	RepoDigests  []string
	Comment      string
	Created      *time.Time
	Loaded       *time.Time `json:",omitempty"` // nil for what is in a registry
	Author       string
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	Size         int64
	Labels       map[string]string
	Config       ocispec.ImageConfig
	RootFS       rootFS
	ManifestType string
	ArtifactType string `json:",omitempty"`
	Manifests    []digest.Digest
	Store        string `json:",omitempty"` // the additional store that has the image
	History      []ocispec.History
	Parent       digest.Digest   `json:",omitempty"` // the image that this one stands on
	Children     []digest.Digest `json:",omitempty"`
	TopLayer     string          // ID of the layer record, or the ChainID
	Metadata     string
	Flags        map[string]string
	BigData      []dataReport
}

type rootFS struct {
	Type   string
	Layers []digest.Digest
}

// inspect prints all items, or nothing when one is not known.
func inspect(ctx context.Context, o *inspectOptions, st *layers.Store) error {
	reports := []any{}
	for _, item := range o.items {
		if isRemote(item) {
			report, err := o.remote(ctx, item)
			if err != nil {
				return err
			}
			reports = append(reports, report)
			continue
		}
		img, layer, err := find(ctx, st, item)
		if errors.Is(err, layers.ErrImageUnknown) && !o.raw {
			report, rerr := reportItem(ctx, st, item)
			if rerr == nil {
				reports = append(reports, report)
				continue
			}
			if !errors.Is(rerr, layers.ErrNotAnID) {
				return rerr
			}
		}
		if err != nil {
			return err
		}
		if o.raw {
			if err := o.printRaw(st, item, img); err != nil {
				return err
			}
			continue
		}
		if layer != nil {
			reports = append(reports, layer)
			continue
		}
		report, err := reportImage(ctx, st, item, img)
		if err != nil {
			return err
		}
		reports = append(reports, report)
	}
	if o.raw {
		return nil
	}
	return printList(o.out, o.format, reports, table[any]{})
}

func (o *inspectOptions) printRaw(st *layers.Store, item string, img *layers.Image) error {
	if img == nil {
		return usagef("--raw: %s is a layer; only images have a config", item)
	}
	d := img.Config.Digest
	if o.manifest {
		d = manifestFor(img, item).Digest
	}
	raw, err := st.Blob(d)
	if err != nil {
		return err
	}
	_, err = o.out.Write(raw)
	return err
}

// find looks an item up as an image first and as a layer then; a whole digest
// can only be one of them.
func find(ctx context.Context, st *layers.Store, item string) (*layers.Image, *layers.LayerInfo, error) {
	img, err := st.Image(ctx, item)
	if err == nil {
		return img, nil, nil
	}
	if !errors.Is(err, layers.ErrImageUnknown) {
		return nil, nil, err
	}
	layer, layerErr := st.Layer(ctx, item)
	if errors.Is(layerErr, layers.ErrLayerUnknown) {
		return nil, nil, err // who names something mostly means an image
	}
	return nil, layer, layerErr
}

// manifestFor returns the manifest of the name by which the image was asked for.
func manifestFor(img *layers.Image, item string) ocispec.Descriptor {
	return img.Manifest(nameOf(img, item)).Descriptor
}

// nameOf returns the normalized name by which the image was asked for; empty when
// that was its ID.
func nameOf(img *layers.Image, item string) string {
	for _, candidate := range []string{item, "localhost/" + item} {
		normal, err := layers.NormalizeName(candidate)
		if err != nil {
			continue
		}
		for _, n := range img.Names {
			if n.Name == normal {
				return normal
			}
		}
	}
	return ""
}

func reportImage(ctx context.Context, st *layers.Store, item string, img *layers.Image) (*imageReport, error) {
	raw, err := st.Blob(img.Config.Digest)
	if err != nil {
		return nil, err
	}
	r, err := reportConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: config %s: %w", layers.ErrDamaged, img.ID, err)
	}
	m := manifestFor(img, item)
	r.Store, r.Id, r.Digest, r.ManifestType = img.Store, img.ID.Encoded(), m.Digest, m.MediaType
	r.RepoTags, r.RepoDigests, r.Size, r.RootFS.Layers = img.RepoTags(), img.RepoDigests(), img.Size, img.Layers
	r.Loaded, r.ArtifactType = &img.Loaded, img.Artifact
	for _, m := range img.Manifests {
		r.Manifests = append(r.Manifests, m.Descriptor.Digest)
	}
	return r, r.addRecord(ctx, st, img)
}

// reportConfig fills what the config of an image says.
func reportConfig(raw []byte) (*imageReport, error) {
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, err
	}
	r := &imageReport{
		RepoTags: []string{}, RepoDigests: []string{},
		Created: config.Created, Author: config.Author, Architecture: config.Architecture,
		Variant: config.Variant, Os: config.OS, Labels: config.Config.Labels, Config: config.Config,
		RootFS: rootFS{Type: "layers", Layers: config.RootFS.DiffIDs}, History: config.History,
	}
	if n := len(config.History); n > 0 {
		r.Comment = config.History[n-1].Comment
	}
	return r, nil
}
