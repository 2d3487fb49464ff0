package layers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// RemoveOptions change how images are removed; nil means the defaults.
type RemoveOptions struct {
	// Force removes an image that was named by its ID although it has several names.
	Force bool
	// DryRun only says what would be removed.
	DryRun bool
}

// Removed is what a removal removed, or would remove.
type Removed struct {
	Untagged   []string        `json:"untagged"`             // names
	Deleted    []digest.Digest `json:"deleted"`              // IDs of images
	Records    []string        `json:"records"`              // IDs of layer records, from the top down
	Containers []string        `json:"containers,omitempty"` // IDs of containers
	Layers     []digest.Digest `json:"layers"`               // DiffIDs of layers that nothing else needs
	Freed      int64           `json:"freed"`                // bytes on disk, other garbage included
	// Deferred says that the space is left to a collection that is running.
	Deferred bool `json:"deferred"`
	// InUse are layers that somebody, such as a mount, still has open. Their space is
	// freed when he has let go of them.
	InUse []DiffID `json:"in_use"`
}

func (r *Removed) add(o *Removed) {
	r.Untagged = append(r.Untagged, o.Untagged...)
	r.Deleted = append(r.Deleted, o.Deleted...)
	r.Records = append(r.Records, o.Records...)
	r.Layers = append(r.Layers, o.Layers...)
}

// Remove removes what was named: a name and, with the last name of it, the image;
// or an image by its ID with all its names. With an image go, from the top down,
// the layer records that it was made from and the layers that no other image,
// container, layer record or lease needs; and their space is freed.
//
// It returns ErrImageUnknown; ErrImageUsedByContainer and ErrInUse when the image
// stays.
func (s *Store) Remove(ctx context.Context, nameOrID string, o *RemoveOptions) (*Removed, error) {
	r, err := s.RemoveImages(ctx, o, nameOrID)
	if err != nil && r.empty() {
		return nil, err
	}
	return r, err
}

// RemoveImages is Remove for several images, whose space is freed together. One that
// stays does not keep the others: what was removed is returned with the error.
func (s *Store) RemoveImages(ctx context.Context, o *RemoveOptions, namesOrIDs ...string) (*Removed, error) {
	if o == nil {
		o = &RemoveOptions{}
	}
	return s.remove(ctx, "rmi", o.DryRun, len(namesOrIDs), func(tx *index.Tx, h *holds, i int) (*Removed, error) {
		return removeImage(tx, h, namesOrIDs[i], o.Force)
	})
}

// errDryRun takes back what a dry run has done in its transaction.
var errDryRun = errors.New("dry run")

// removeBatch is how many items are removed in one transaction.
const removeBatch = 8

// remove calls one for each of n items in transactions, and frees what nothing
// needs afterwards. A dry run does the same in one transaction that it takes back,
// so that it cannot say anything else.
func (s *Store) remove(ctx context.Context, purpose string, dryRun bool, n int, one func(*index.Tx, *holds, int) (*Removed, error)) (*Removed, error) {
	sum := &Removed{}
	if err := s.writable(); err != nil {
		return sum, err
	}
	var failed []error
	batch := removeBatch
	if dryRun {
		batch = n
	}
	for from := 0; from < n; from += batch {
		var out Removed
		var errs []error
		h := newHolds(s)
		if err := h.refresh(); err != nil { // most of it before others have to wait
			return sum, errors.Join(append(failed, err)...)
		}
		err := s.index.Update(ctx, purpose, func(tx *index.Tx) error {
			if err := h.refresh(); err != nil {
				return err
			}
			for i := from; i < min(n, from+batch); i++ {
				r, err := one(tx, h, i)
				switch {
				case refused(err):
					errs = append(errs, err)
				case err != nil:
					return err
				default:
					out.add(r)
				}
			}
			if dryRun || out.empty() {
				return errDryRun
			}
			return nil
		})
		if err != nil && !errors.Is(err, errDryRun) {
			return sum, errors.Join(append(failed, err)...)
		}
		sum.add(&out)
		for _, err := range errs {
			failed = append(failed, s.explainReadOnly(ctx, err))
		}
	}
	if len(sum.Deleted)+len(sum.Records)+len(sum.Layers) > 0 { // a name alone frees nothing
		failed = append(failed, s.free(ctx, sum, dryRun))
	}
	return sum, errors.Join(failed...)
}

// refused reports whether an item was left as it was, so that others can be removed
// in the same transaction.
func refused(err error) bool {
	for _, target := range []error{ErrInUse, ErrImageUnknown, ErrLayerUnknown, ErrContainerUnknown, ErrNotAnID, ErrAmbiguous, ErrInvalidName} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func (r *Removed) empty() bool {
	return len(r.Untagged)+len(r.Deleted)+len(r.Records)+len(r.Layers) == 0
}

// free frees the space of what was removed, or finds out how much that would be.
func (s *Store) free(ctx context.Context, r *Removed, dryRun bool) error {
	var c *Collected
	var err error
	if dryRun {
		c, err = s.dryCollect(ctx, r)
	} else {
		c, err = s.tryCollect(ctx)
	}
	if errors.Is(err, ErrBusy) {
		r.Deferred = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("it is removed, but its space is not yet free: %w; run `layerfs gc`", err)
	}
	r.Freed, r.InUse = c.Bytes, c.InUse
	return nil
}

func (s *Store) dryCollect(ctx context.Context, without *Removed) (*Collected, error) {
	release, err := s.lockGC(ctx, s.timeout)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.collect(ctx, true, without)
}

// removeImage removes an image, or only the name of it, in the transaction.
func removeImage(tx *index.Tx, h *holds, nameOrID string, force bool) (*Removed, error) {
	img, name, err := resolve(tx, nameOrID)
	if err != nil {
		return nil, err
	}
	names, err := namesOf(tx, img.ID)
	if err != nil {
		return nil, err
	}
	if name != "" && len(names) > 1 && !force {
		return &Removed{Untagged: []string{name}}, tx.DeleteName(name)
	}
	if name == "" && len(names) > 1 && !force {
		return nil, fmt.Errorf("%w: image %s has %d names; remove them one by one, or use --force", ErrInUse, img.ID.Encoded()[:12], len(names))
	}
	if err := imageFree(tx, h, img, nameOrID); err != nil {
		return nil, err
	}
	return dropImage(tx, h, img, names)
}

// imageFree returns an error when somebody needs the image.
func imageFree(tx *index.Tx, h *holds, img index.Image, nameOrID string) error {
	containers, err := containersOf(tx, img.ID)
	if err != nil {
		return err
	}
	if len(containers) > 0 {
		return fmt.Errorf("%w: %s: %s; remove the containers with layerfs rm first",
			ErrImageUsedByContainer, nameOrID, strings.Join(containers, ", "))
	}
	if l := h.images[sumOf(img.ID)]; l != nil {
		return fmt.Errorf("%w: image %s is held by the lease of %s; wait for it, or end it", ErrInUse, nameOrID, l)
	}
	return nil
}

// dropImage removes an image with its names, its big data and what only it needs.
func dropImage(tx *index.Tx, h *holds, img index.Image, names []string) (*Removed, error) {
	out := &Removed{Untagged: names, Deleted: []digest.Digest{img.ID}}
	for _, name := range names {
		if err := tx.DeleteName(name); err != nil {
			return nil, err
		}
	}
	if err := tx.DeleteImage(img.ID); err != nil {
		return nil, err
	}
	if err := tx.DeleteAllData(index.Owner{Kind: index.KindImage, ID: img.ID.Encoded()}); err != nil {
		return nil, err
	}
	if err := dropRecords(tx, h, img, out); err != nil {
		return nil, err
	}
	return out, dropLayers(tx, h, img.Layers, out)
}

// dropLayers removes the records of those layers of a stack, from the top down,
// that nothing needs any more.
func dropLayers(tx *index.Tx, h *holds, stack []digest.Digest, out *Removed) error {
	refs, err := readReferences(tx, nil)
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(stack) {
		sum := sumOf(d)
		if refs.layers[sum] || h.layers[sum] != nil || slices.Contains(out.Layers, d) {
			continue
		}
		if err := tx.DeleteLayer(d); err != nil {
			if errors.Is(err, index.ErrNotFound) {
				continue // a damaged store; the image can still go
			}
			return err
		}
		out.Layers = append(out.Layers, d)
	}
	return nil
}

// namesOf returns the names of an image.
func namesOf(tx *index.Tx, id digest.Digest) ([]string, error) {
	var names []string
	sum := sumOf(id)
	err := tx.EachHead(index.HeadNames, func(key []byte, h index.Head) error {
		if h.Image == sum {
			names = append(names, string(key))
		}
		return nil
	})
	return names, err
}
