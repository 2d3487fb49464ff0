package layers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers/graphroot"
)

// A GraphImage is an image in a graph root of containers/storage. It is a Source, which
// reads the tars of the layers out of the files of the graph root.
//
// A graph root has no compressed layers. When its manifest names some, the source has a
// manifest of its own, the same but for the layers.
type GraphImage struct {
	Name     string        // by which it was found, normalized; empty when that was its ID
	ID       digest.Digest // of its config
	Platform ocispec.Platform
	Recorded ocispec.Descriptor // of the manifest in the graph root

	root     *graphroot.Root
	recorded []byte
	desc     ocispec.Descriptor
	manifest []byte
	config   []byte
	layers   map[digest.Digest]graphroot.Layer // by DiffID
}

// OpenGraphImage finds an image in the graph root dir by its name, by its ID or, with @
// before it, by its ID alone. It returns fs.ErrNotExist when there is no graph root,
// ErrImageUnknown when that has no such image.
func OpenGraphImage(dir, ref string) (*GraphImage, error) {
	g, err := openGraphImage(dir, ref)
	if errors.Is(err, fs.ErrPermission) {
		return nil, graphDenied(err)
	}
	return g, graphError(err)
}

func graphDenied(err error) error {
	return fmt.Errorf("%w; root may read it, or the owner of the graph root within podman unshare", err)
}

func openGraphImage(dir, ref string) (*GraphImage, error) {
	if _, err := markOf(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if ok, err := graphroot.Is(dir); !ok || err != nil {
		return nil, errors.Join(err, noGraphRoot(dir, ok))
	}
	root := graphroot.New(dir)
	records, err := root.Read()
	if err != nil {
		return nil, err
	}
	img, name, err := findGraphImage(records.Images, ref)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	stack, err := records.Stack(img.Layer)
	if err != nil {
		return nil, err
	}
	rec, first, docs, err := graphRecord(root, img, stack)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: image %s: %w", graphroot.ErrInvalid, img.ID, err)
	}
	if err != nil {
		return nil, err
	}
	g := &GraphImage{
		Name: name, ID: rec.ID, Platform: rec.Platform, Recorded: first, root: root,
		recorded: docs[0], config: docs[1], layers: map[digest.Digest]graphroot.Layer{},
	}
	for _, l := range stack {
		g.layers[l.DiffID] = l
	}
	return g, g.setManifest(stack)
}

// noGraphRoot is the error for a directory that is no graph root.
func noGraphRoot(dir string, is bool) error {
	if is {
		return nil
	}
	return fmt.Errorf("%s is no graph root of containers/storage: %w", dir, fs.ErrNotExist)
}

// findGraphImage returns an image and the name by which it was found.
func findGraphImage(images []graphroot.Image, ref string) (graphroot.Image, string, error) {
	for _, candidate := range []string{ref, "localhost/" + ref} {
		name, err := NormalizeName(candidate)
		if err != nil {
			continue
		}
		for _, img := range images {
			if slices.ContainsFunc(img.Names, func(n string) bool { return sameName(n, name) }) {
				return img, name, nil
			}
		}
	}
	_, id, ok := strings.Cut(ref, "@")
	if !ok {
		id = ref
	}
	var found []graphroot.Image
	for _, img := range images {
		if len(id) >= 3 && strings.HasPrefix(img.ID, id) {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return graphroot.Image{}, "", fmt.Errorf("%w: %q; podman images lists what there is", ErrImageUnknown, ref)
	case 1:
		return found[0], "", nil
	}
	return graphroot.Image{}, "", fmt.Errorf("%w: %q begins the IDs of %d images", ErrAmbiguous, ref, len(found))
}

func sameName(a, normal string) bool {
	n, err := NormalizeName(a)
	return err == nil && n == normal
}

// setManifest takes the recorded manifest if its layers can be had, else one with the
// uncompressed layers.
func (g *GraphImage) setManifest(stack []graphroot.Layer) error {
	g.manifest, g.desc = g.recorded, g.Recorded
	m, err := parseManifest(g.recorded, g.Recorded)
	if err != nil {
		return err
	}
	plain := true
	for i, l := range stack {
		if m.Layers[i].Digest == l.DiffID {
			continue
		}
		if l.Size <= 0 {
			return fmt.Errorf("%w: layer %s: its record does not say its size", graphroot.ErrInvalid, l.ID)
		}
		plain = false
		mediaType := ocispec.MediaTypeImageLayer
		if m.MediaType == MediaTypeDockerManifest {
			mediaType = MediaTypeDockerLayer
		}
		m.Layers[i] = ocispec.Descriptor{MediaType: mediaType, Digest: l.DiffID, Size: l.Size}
	}
	if plain {
		return nil
	}
	if g.manifest, err = json.Marshal(m); err != nil {
		return err
	}
	g.desc = ocispec.Descriptor{MediaType: g.Recorded.MediaType, Digest: digest.FromBytes(g.manifest), Size: int64(len(g.manifest))}
	return nil
}

// UseRecorded makes the source give the recorded manifest if the store has the image
// with it already, so that the image keeps its digest. It reports whether it does.
func (g *GraphImage) UseRecorded(ctx context.Context, s *Store) bool {
	img, err := s.Image(ctx, string(g.ID))
	if err != nil || img.ReadOnly() {
		return false
	}
	for _, m := range img.Manifests {
		if m.Descriptor.Digest == g.Recorded.Digest {
			g.manifest, g.desc = g.recorded, g.Recorded
			return true
		}
	}
	return false
}

// Manifest implements Source.
func (g *GraphImage) Manifest(context.Context) ([]byte, ocispec.Descriptor, error) {
	return g.manifest, g.desc, nil
}

// Blob implements Source.
func (g *GraphImage) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if desc.Digest == g.ID {
		return io.NopCloser(bytes.NewReader(g.config)), nil
	}
	l, ok := g.layers[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("%w: %s has its layers uncompressed only", ErrBlobGone, g.root.Dir())
	}
	tar, err := g.root.OpenTar(l.ID)
	if errors.Is(err, fs.ErrPermission) {
		return nil, graphDenied(err)
	}
	if err != nil {
		return nil, graphError(err)
	}
	return &graphTar{tar}, nil
}

// A graphTar is a Tar that does not go on with zeros where a file may not be read.
type graphTar struct{ *graphroot.Tar }

// Read implements io.Reader.
func (t *graphTar) Read(p []byte) (int, error) {
	n, err := t.Tar.Read(p)
	if hidden := t.Unreadable(); len(hidden) > 0 {
		return 0, graphDenied(&fs.PathError{Op: "open", Path: hidden[0], Err: fs.ErrPermission})
	}
	if err == io.EOF {
		return n, err
	}
	return n, graphError(err)
}
