package layers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// Tag gives more names to an image; a name that another image holds moves. All
// names are given or, after an error, none. An image of an additional store becomes
// one of this store, whose layers stay where they are.
func (s *Store) Tag(ctx context.Context, nameOrID string, names ...string) error {
	if err := s.writable(); err != nil {
		return err
	}
	normal, err := normalizeAll(names)
	if err != nil {
		return err
	}
	if nameOrID, err = s.adopt(ctx, nameOrID); err != nil {
		return err
	}
	return s.index.Update(ctx, "tag", func(tx *index.Tx) error {
		img, found, err := resolve(tx, nameOrID)
		if err != nil {
			return err
		}
		manifest, err := manifestOf(tx, img, found)
		if err != nil {
			return err
		}
		for _, name := range normal {
			if err := checkDigestName(name, img); err != nil {
				return err
			}
			if err := setName(tx, name, img.ID, manifest); err != nil {
				return err
			}
		}
		return nil
	})
}

// manifestOf returns the manifest that a name stands for, or the image's first.
func manifestOf(tx *index.Tx, img index.Image, name string) (ocispec.Descriptor, error) {
	if name != "" {
		n, err := tx.Name(name)
		return n.Manifest, err
	}
	if len(img.Manifests) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("%w: image %s has no manifest", ErrDamaged, img.ID)
	}
	return img.Manifests[0].Descriptor, nil
}

// checkDigestName refuses repository@digest when the digest is not one of the
// image's manifests: such a name would promise something else.
func checkDigestName(name string, img index.Image) error {
	_, _, d := SplitName(name)
	if d == "" {
		return nil
	}
	for _, m := range img.Manifests {
		if m.Descriptor.Digest == d || slices.ContainsFunc(m.Indexes, func(x ocispec.Descriptor) bool { return x.Digest == d }) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is not the digest of a manifest of image %s", ErrInvalidName, d, img.ID)
}

// Untag removes names from an image. The image stays, also without any name. All
// names are removed or, after an error, none. It returns the normalized names.
func (s *Store) Untag(ctx context.Context, names ...string) ([]string, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	var removed []string
	err := s.index.Update(ctx, "untag", func(tx *index.Tx) error {
		removed = removed[:0]
		for _, name := range names {
			_, found, err := resolve(tx, name)
			if err != nil {
				return err
			}
			if found == "" {
				return fmt.Errorf("%w: %q is an ID; say which name to remove", ErrInvalidName, name)
			}
			if err := tx.DeleteName(found); err != nil {
				return err
			}
			removed = append(removed, found)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return removed, nil
}

// RemoveOptions change how an image is removed; nil means the defaults.
type RemoveOptions struct {
	// Force removes an image that was named by its ID although it has several names.
	Force bool
	// DryRun only says what would be removed.
	DryRun bool
}

// Removed is what a removal removed, or would remove.
type Removed struct {
	Untagged []string        `json:"untagged"` // names
	Deleted  []digest.Digest `json:"deleted"`  // IDs of images
	Layers   []digest.Digest `json:"layers"`   // DiffIDs of layers that no other image needs
	Freed    int64           `json:"freed"`    // bytes on disk
	// Deferred says that the space is left to a later collection, because imports
	// are running.
	Deferred bool `json:"deferred"`
	// InUse are layers that somebody, such as a mount, still has open. A collection
	// after he has let go frees their space.
	InUse []DiffID `json:"in_use"`
}

// Remove removes what was named: a name and, with the last name of it, the image;
// or an image by its ID with all its names. The layers that no other image needs
// go with it, and their space is freed.
func (s *Store) Remove(ctx context.Context, nameOrID string, o *RemoveOptions) (*Removed, error) {
	if o == nil {
		o = &RemoveOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	var out *Removed
	remove := func(tx *index.Tx) (err error) {
		out, err = planRemoval(tx, nameOrID, o.Force)
		if err != nil || o.DryRun {
			return err
		}
		return out.apply(tx)
	}
	if o.DryRun {
		err := s.explainReadOnly(ctx, s.view(ctx, remove))
		return out, err
	}
	if err := s.index.Update(ctx, "rmi", remove); err != nil {
		return nil, err
	}
	if len(out.Deleted) == 0 {
		return out, nil
	}
	c, err := s.tryCollect(ctx)
	if errors.Is(err, ErrBusy) {
		out.Deferred = true
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("the image is removed, but its space is not yet free: %w; run `layerfs gc`", err)
	}
	out.Freed, out.InUse = c.Bytes, c.InUse
	return out, nil
}

func planRemoval(tx *index.Tx, nameOrID string, force bool) (*Removed, error) {
	img, name, err := resolve(tx, nameOrID)
	if err != nil {
		return nil, err
	}
	full, err := fullImage(tx, img)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	out := &Removed{}
	if full == nil {
		full = &Image{Image: img} // a layer record is missing; the image can still go
	}
	if name != "" && len(full.Names) > 1 && !force {
		out.Untagged = []string{name}
		return out, nil
	}
	if name == "" && len(full.Names) > 1 && !force {
		return nil, fmt.Errorf("%w: image %s has %d names; remove them one by one, or use --force", ErrInUse, img.ID.Encoded()[:12], len(full.Names))
	}
	for _, n := range full.Names {
		out.Untagged = append(out.Untagged, n.Name)
	}
	containers, err := containersOf(tx, img.ID)
	if err != nil {
		return nil, err
	}
	if len(containers) > 0 {
		return nil, fmt.Errorf("%w: %s: %s; remove the containers with layerfs rm first",
			ErrImageUsedByContainer, nameOrID, strings.Join(containers, ", "))
	}
	out.Deleted = []digest.Digest{img.ID}
	users, err := layerUsers(tx)
	if err != nil {
		return nil, err
	}
	seen := map[digest.Digest]bool{}
	for i := len(img.Layers) - 1; i >= 0; i-- { // from the top down
		d := img.Layers[i]
		if len(users[d]) == 1 && !seen[d] {
			out.Layers = append(out.Layers, d)
		}
		seen[d] = true
	}
	return out, nil
}

func (r *Removed) apply(tx *index.Tx) error {
	for _, name := range r.Untagged {
		if err := tx.DeleteName(name); err != nil {
			return err
		}
	}
	for _, id := range r.Deleted {
		if err := tx.DeleteImage(id); err != nil {
			return err
		}
	}
	for _, d := range r.Layers {
		if err := tx.DeleteLayer(d); err != nil && !errors.Is(err, index.ErrNotFound) {
			return err
		}
	}
	return nil
}
