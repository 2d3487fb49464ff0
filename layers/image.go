package layers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
)

// An Image is an image of the store: its record, its names, and what follows from
// its layers.
type Image struct {
	index.Image
	// Names are the normalized references to the image, in byte order.
	Names []index.Name `json:"names"`
	// Size is the sum of the sizes of the files in the layers, in bytes.
	Size int64 `json:"size"`
	// Unique and Shared are the parts of Size in layers that no other image has, and in
	// those that others have too; only Store.Images fills them in.
	Unique int64 `json:"unique"`
	Shared int64 `json:"shared"`
	// Store is the root of the additional store that has the image, which can only be
	// changed there; empty for an image of this store.
	Store string `json:"store,omitempty"`
}

// ReadOnly reports whether the image is one of an additional store.
func (img *Image) ReadOnly() bool { return img.Store != "" }

// DiffIDs returns the image's stack, bottom first.
func (img *Image) DiffIDs() []DiffID {
	ids := make([]DiffID, len(img.Layers))
	for i, d := range img.Layers {
		ids[i] = DiffID(d)
	}
	return ids
}

// Manifest returns the manifest that the image is shown with: that of the name,
// or for an empty or unknown name the first that it came in with.
func (img *Image) Manifest(name string) index.Manifest {
	for _, n := range img.Names {
		for _, m := range img.Manifests {
			if n.Name == name && m.Descriptor.Digest == n.Manifest.Digest {
				return m
			}
		}
	}
	return img.Manifests[0]
}

// Images returns all images, the most recently loaded first, also those of the
// additional stores that this one does not have.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	images, err := readImages(ctx, s, "")
	if err != nil {
		return nil, err
	}
	for _, st := range s.lowers() {
		more, err := readImages(ctx, st, st.Root())
		if err != nil {
			return nil, fmt.Errorf("additional store %s: %w", st.Root(), err)
		}
		images = mergeImages(images, more)
	}
	slices.SortStableFunc(images, func(a, b Image) int { return b.Loaded.Compare(a.Loaded) })
	return images, nil
}

// readImages reads the images of one store.
func readImages(ctx context.Context, st lower, root string) ([]Image, error) {
	var raws, names []index.Raw
	var sizes map[digest.Digest]int64
	var use map[index.Sum]layerUse
	err := st.view(ctx, func(tx *index.Tx) (err error) {
		raws, names = raws[:0], names[:0]
		if sizes, err = layerSizes(tx); err != nil {
			return err
		}
		if use, err = readUse(tx); err != nil {
			return err
		}
		err = tx.EachRawName(func(n index.Raw) error { names = append(names, n); return nil })
		if err != nil {
			return err
		}
		return tx.EachRawImage(func(img index.Raw) error { raws = append(raws, img); return nil })
	})
	if err != nil {
		return nil, err
	}
	// Decoding takes ten times as long, and nobody needs to wait for it.
	named, err := namesByImage(names)
	if err != nil {
		return nil, err
	}
	images := make([]Image, len(raws))
	var g errgroup.Group
	for from := 0; from < len(raws); from += decodeChunk {
		part, out := raws[from:min(from+decodeChunk, len(raws))], images[from:]
		g.Go(func() error {
			for i, raw := range part {
				img, err := raw.DecodeImage()
				if err != nil {
					return err
				}
				out[i] = Image{Image: img, Names: named[img.ID], Store: root}
				out[i].addShares(sizes, use)
				if img.IsArtifact() {
					out[i].Size = blobsSize(img)
				}
			}
			return nil
		})
	}
	return images, g.Wait()
}

// decodeChunk is how many records one goroutine decodes.
const decodeChunk = 128

func namesByImage(raws []index.Raw) (map[digest.Digest][]index.Name, error) {
	names := map[digest.Digest][]index.Name{}
	for _, raw := range raws {
		n, err := raw.DecodeName()
		if err != nil {
			return nil, err
		}
		names[n.Image] = append(names[n.Image], n)
	}
	return names, nil
}

func layerSizes(tx *index.Tx) (map[digest.Digest]int64, error) {
	sizes := map[digest.Digest]int64{}
	err := tx.EachRawLayer(func(l index.Raw) error {
		sizes[l.Digest()] = l.Bytes
		return nil
	})
	return sizes, err
}

// Image finds an image by a name, its ID, or an abbreviation of its ID that only
// it has. It returns ErrImageUnknown, or ErrAmbiguous with the candidates.
func (s *Store) Image(ctx context.Context, nameOrID string) (*Image, error) {
	return s.findImage(ctx, func(tx *index.Tx) (index.Image, error) {
		img, _, err := resolve(tx, nameOrID)
		return img, err
	})
}

// ImageByID finds an image by its ID, or the beginning of its ID that only it has; what
// looks like one and is a name is not considered. It returns ErrImageUnknown, or
// ErrAmbiguous with the candidates.
func (s *Store) ImageByID(ctx context.Context, id string) (*Image, error) {
	return s.findImage(ctx, func(tx *index.Tx) (index.Image, error) {
		img, err := resolvePrefix(tx, strings.TrimPrefix(id, "sha256:"))
		return img, unknownImage(err, id)
	})
}

func (s *Store) findImage(ctx context.Context, look func(*index.Tx) (index.Image, error)) (*Image, error) {
	var out *Image
	st, err := s.index.find(ctx, func(tx *index.Tx) error {
		img, err := look(tx)
		if err != nil {
			return err
		}
		out, err = fullImage(tx, img)
		return err
	})
	if err != nil {
		return nil, err
	}
	if st != nil {
		out.Store = st.Root()
	}
	return out, nil
}

func fullImage(tx *index.Tx, img index.Image) (*Image, error) {
	out := &Image{Image: img}
	if img.IsArtifact() {
		out.Size = blobsSize(img)
	}
	id := sumOf(img.ID)
	err := tx.EachRawName(func(raw index.Raw) error {
		if raw.Image != id {
			return nil
		}
		n, err := raw.DecodeName()
		out.Names = append(out.Names, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, d := range img.Layers {
		l, err := tx.Layer(d)
		if err != nil {
			return nil, fmt.Errorf("%w: image %s: layer %s: %w", ErrDamaged, img.ID, d, err)
		}
		out.Size += l.Bytes
	}
	return out, nil
}

// resolve finds an image and the name by which it was found, which is empty when
// it was found by its ID. The order is that of podman: a full ID, a name as the
// user wrote it or with the domain localhost, then an abbreviated ID.
func resolve(tx *index.Tx, nameOrID string) (index.Image, string, error) {
	hex := strings.TrimPrefix(nameOrID, "sha256:")
	if isHex(hex) && len(hex) == 64 {
		img, err := tx.Image(digest.NewDigestFromEncoded(digest.SHA256, hex))
		return img, "", unknownImage(err, nameOrID)
	}
	for _, candidate := range candidates(nameOrID) {
		n, err := tx.Name(candidate)
		if err == nil {
			img, err := tx.Image(n.Image)
			if err != nil {
				err = fmt.Errorf("%w: name %s: image %s: %w", ErrDamaged, n.Name, n.Image, err)
			}
			return img, n.Name, err
		}
		if !errors.Is(err, index.ErrNotFound) {
			return index.Image{}, "", err
		}
	}
	if img, name, err := resolveDigest(tx, nameOrID); err == nil || !errors.Is(err, index.ErrNotFound) {
		return img, name, err
	}
	img, err := resolvePrefix(tx, hex)
	if errors.Is(err, index.ErrNotFound) {
		return img, "", unknownName(tx, nameOrID)
	}
	return img, "", err
}

// unknownName is the error for a name that no image has. Its hint names the images
// that were more likely meant: the other tags of the repository, or else the
// repositories that end the same.
func unknownName(tx *index.Tx, name string) error {
	const most = 5
	var tags, ends []string
	repositories := map[string]bool{}
	for _, c := range candidates(name) {
		repository, _, _ := SplitName(c)
		repositories[repository] = true
	}
	last, _, _ := SplitName(path.Base(name))
	err := tx.EachRawName(func(n index.Raw) error {
		switch repository, _, _ := SplitName(n.Key); {
		case repositories[repository]:
			tags = append(tags, n.Key)
		case path.Base(repository) == last:
			ends = append(ends, n.Key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(tags) == 0 {
		tags = ends
	}
	if len(tags) == 0 {
		return unknownImage(index.ErrNotFound, name)
	}
	others := ""
	if len(tags) > most {
		tags, others = tags[:most], ", …"
	}
	return &unknownError{ErrImageUnknown, name, "there is " + strings.Join(tags, ", ") + others}
}

func unknownImage(err error, nameOrID string) error {
	if errors.Is(err, index.ErrNotFound) {
		return &unknownError{ErrImageUnknown, nameOrID, "`layerfs images` lists those that are"}
	}
	return err
}

// candidates are the normalized names that a user may have meant.
func candidates(name string) []string {
	var out []string
	for _, n := range []string{name, "localhost/" + name} {
		if normal, err := NormalizeName(n); err == nil {
			out = append(out, normal)
		}
	}
	return out
}

// resolveDigest finds repository@digest when some name of that repository has a
// manifest with the digest.
func resolveDigest(tx *index.Tx, name string) (index.Image, string, error) {
	if !strings.Contains(name, "@") {
		return index.Image{}, "", index.ErrNotFound
	}
	for _, candidate := range candidates(name) {
		repo, _, dgst := SplitName(candidate)
		var found *index.Name
		var out index.Image
		err := tx.EachName(func(n index.Name) error {
			if r, _, _ := SplitName(n.Name); r != repo || found != nil {
				return nil
			}
			img, err := tx.Image(n.Image)
			if err == nil && hasDigest(img, n, dgst) {
				found, out = &n, img
			}
			return err
		})
		if err != nil {
			return index.Image{}, "", err
		}
		if found != nil {
			return out, found.Name, nil
		}
	}
	return index.Image{}, "", index.ErrNotFound
}

// hasDigest says whether a digest is that of the manifest that a name stands for, or
// of an index that it was found through.
func hasDigest(img index.Image, n index.Name, d digest.Digest) bool {
	if n.Manifest.Digest == d {
		return true
	}
	for _, m := range img.Manifests {
		if m.Descriptor.Digest == n.Manifest.Digest {
			return slices.ContainsFunc(m.Indexes, func(x ocispec.Descriptor) bool { return x.Digest == d })
		}
	}
	return false
}

// minPrefix is the shortest abbreviation of an ID.
const minPrefix = 3

func resolvePrefix(tx *index.Tx, prefix string) (index.Image, error) {
	if !isHex(prefix) || len(prefix) < minPrefix || len(prefix) > 64 {
		return index.Image{}, index.ErrNotFound
	}
	found, err := tx.ImagesByPrefix(prefix, maxCandidates)
	if err != nil {
		return index.Image{}, err
	}
	switch len(found) {
	case 0:
		return index.Image{}, index.ErrNotFound
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, img := range found {
		ids = append(ids, img.ID.Encoded())
	}
	return index.Image{}, ambiguous(prefix, ids)
}

// maxCandidates is how many candidates an ErrAmbiguous lists at the most.
const maxCandidates = 10

func ambiguous(prefix string, ids []string) error {
	return fmt.Errorf("%w: %q fits %s; write more digits", ErrAmbiguous, prefix, strings.Join(ids, ", "))
}

// Blob returns a manifest or a config of the store, as it was received. It is
// verified.
func (s *Store) Blob(d digest.Digest) ([]byte, error) {
	if _, err := parseDigest(string(d)); err != nil {
		return nil, err
	}
	raw, err := s.blobs.Blob(sumOf(d))
	if errors.Is(err, blob.ErrNotFound) {
		for _, st := range s.lowers() {
			if raw, err := st.Blob(d); err == nil {
				return raw, nil
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: blob %s: %w; load its image again", ErrDamaged, d, err)
	}
	return raw, nil
}

// LayerInfo is a layer of the store and the images that have it.
type LayerInfo struct {
	index.Layer
	// Images are the IDs of the images whose stack holds the layer.
	Images []digest.Digest `json:"images"`
	// Store is the root of the additional store that the layer was found in; empty for
	// a layer that this one has a record of.
	Store string `json:"store,omitempty"`
}

// Layers returns all layers in the order of their DiffIDs, also those of the
// additional stores that this one does not have.
func (s *Store) Layers(ctx context.Context) ([]LayerInfo, error) {
	out, err := readLayers(ctx, s, "")
	if err != nil {
		return nil, err
	}
	for _, st := range s.lowers() {
		more, err := readLayers(ctx, st, st.Root())
		if err != nil {
			return nil, fmt.Errorf("additional store %s: %w", st.Root(), err)
		}
		out = mergeLayers(out, more)
	}
	return out, nil
}

// readLayers reads the layers of one store.
func readLayers(ctx context.Context, st lower, root string) ([]LayerInfo, error) {
	var out []LayerInfo
	err := st.view(ctx, func(tx *index.Tx) error {
		out = out[:0]
		users, err := layerUsers(tx)
		if err != nil {
			return err
		}
		return tx.EachLayer(func(l index.Layer) error {
			out = append(out, LayerInfo{Layer: l, Images: users[l.DiffID], Store: root})
			return nil
		})
	})
	return out, err
}

func layerUsers(tx *index.Tx) (map[digest.Digest][]digest.Digest, error) {
	users := map[digest.Digest][]digest.Digest{}
	err := tx.EachImage(func(img index.Image) error {
		for _, d := range img.Layers {
			if u := users[d]; len(u) == 0 || u[len(u)-1] != img.ID {
				users[d] = append(u, img.ID)
			}
		}
		return nil
	})
	return users, err
}

// Layer finds a layer by its DiffID, an abbreviation of it, or the digest of a
// compressed form that it came in. It returns ErrLayerUnknown or ErrAmbiguous.
func (s *Store) Layer(ctx context.Context, id string) (*LayerInfo, error) {
	var out LayerInfo
	st, err := s.index.find(ctx, func(tx *index.Tx) error {
		l, err := findLayer(tx, id)
		if err != nil {
			return err
		}
		users, err := layerUsers(tx)
		out = LayerInfo{Layer: l, Images: users[l.DiffID]}
		return err
	})
	if err != nil {
		return nil, err
	}
	if st != nil {
		out.Store = st.Root()
	}
	return &out, nil
}

// findLayer is resolveLayer with an error for the user.
func findLayer(tx *index.Tx, id string) (index.Layer, error) {
	l, err := resolveLayer(tx, strings.TrimPrefix(id, "sha256:"))
	if errors.Is(err, index.ErrNotFound) {
		err = &unknownError{ErrLayerUnknown, id, "`layerfs layers` lists those that are"}
	}
	return l, err
}

func resolveLayer(tx *index.Tx, hex string) (index.Layer, error) {
	if !isHex(hex) || len(hex) < minPrefix || len(hex) > 64 {
		return index.Layer{}, index.ErrNotFound
	}
	found, err := tx.LayersByPrefix(hex, maxCandidates)
	if err != nil {
		return index.Layer{}, err
	}
	if len(found) == 0 && len(hex) == 64 {
		err = tx.EachLayer(func(l index.Layer) error {
			for _, b := range l.Blobs {
				if b.Digest.Encoded() == hex {
					found = []index.Layer{l}
				}
			}
			return nil
		})
		if err != nil {
			return index.Layer{}, err
		}
	}
	switch len(found) {
	case 0:
		return index.Layer{}, index.ErrNotFound
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, l := range found {
		ids = append(ids, l.DiffID.Encoded())
	}
	return index.Layer{}, ambiguous(hex, ids)
}
