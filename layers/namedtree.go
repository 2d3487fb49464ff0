package layers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/layers/changes"
	"github.com/layerfs/layerfs/layers/upper"
)

// A tree that is named by a user: a stack, with the writable layer of a container
// on top or without.
type namedTree struct {
	stack     []DiffID
	below     []DiffID // the stack that it is compared with when nothing else is said
	container *Container
}

// exact returns the layer whose tar leads from other to t, when there is one.
func (t *namedTree) exact(other *namedTree) (DiffID, bool) {
	if t.container != nil || other.container != nil || len(t.stack) != len(other.stack)+1 {
		return "", false
	}
	n := len(other.stack)
	return t.stack[n], slices.Equal(t.stack[:n], other.stack)
}

// A treeFinder finds what a user names among the records of one kind.
type treeFinder func(*index.Tx, string) (*namedTree, error)

// named finds what a user names: a container, an image, a layer record or a layer,
// in this order; images and layers also in additional stores.
func (s *Store) named(ctx context.Context, item string) (*namedTree, error) {
	everywhere := []treeFinder{namedImage, namedRecord, namedLayer}
	finders := append([]treeFinder{namedContainer}, everywhere...)
	var out *namedTree
	_, err := s.index.find(ctx, func(tx *index.Tx) (err error) {
		out, err = firstNamed(tx, item, finders)
		finders = everywhere // containers of additional stores are not ours to look into
		return err
	})
	return out, err
}

func firstNamed(tx *index.Tx, item string, finders []treeFinder) (*namedTree, error) {
	for _, find := range finders {
		t, err := find(tx, item)
		if err == nil || !errors.Is(err, ErrContainerUnknown) && !errors.Is(err, ErrImageUnknown) && !errors.Is(err, ErrLayerUnknown) {
			return t, err
		}
	}
	return nil, fmt.Errorf("%w: %q is no container, image or layer; see `layerfs images`, `layerfs ps` and `layerfs layers`", ErrNotAnID, item)
}

func namedContainer(tx *index.Tx, item string) (*namedTree, error) {
	c, err := resolveContainer(tx, item)
	if err != nil {
		return nil, err
	}
	ids := diffIDs(c.Layers)
	return &namedTree{stack: ids, below: ids, container: &Container{c}}, nil
}

func namedImage(tx *index.Tx, item string) (*namedTree, error) {
	img, _, err := resolve(tx, item)
	if err != nil {
		return nil, err
	}
	return stackTree(img.Layers), nil
}

// stackTree is compared with all but its topmost layer.
func stackTree(stack []digest.Digest) *namedTree {
	ids := diffIDs(stack)
	return &namedTree{stack: ids, below: ids[:max(0, len(ids)-1)]}
}

func namedRecord(tx *index.Tx, item string) (*namedTree, error) {
	r, err := tx.LayerRecord(item)
	if errors.Is(err, index.ErrNotFound) {
		r, err = tx.LayerRecordNamed(item)
	}
	if errors.Is(err, index.ErrNotFound) {
		return nil, ErrLayerUnknown
	}
	if err != nil {
		return nil, err
	}
	t := stackTree(r.Layers)
	if r.DiffID == "" {
		t.below = t.stack // nothing was put on its parent yet
	}
	return t, nil
}

// namedLayer puts a layer on the layers below it in the first image that has it.
func namedLayer(tx *index.Tx, item string) (*namedTree, error) {
	l, err := resolveLayer(tx, strings.TrimPrefix(item, "sha256:"))
	if errors.Is(err, index.ErrNotFound) {
		return nil, ErrLayerUnknown
	}
	if err != nil {
		return nil, err
	}
	stack := []digest.Digest{l.DiffID}
	err = tx.EachImage(func(img index.Image) error {
		if i := slices.Index(img.Layers, l.DiffID); i > 0 && len(stack) == 1 {
			stack = img.Layers[:i+1]
		}
		return nil
	})
	return stackTree(stack), err
}

// namedPair finds two trees; an empty y stands for what is below x.
func (s *Store) namedPair(ctx context.Context, x, y string) (tx, ty *namedTree, err error) {
	if tx, err = s.named(ctx, x); err != nil {
		return nil, nil, err
	}
	if y == "" {
		return tx, &namedTree{stack: tx.below}, nil
	}
	ty, err = s.named(ctx, y)
	return tx, ty, err
}

// withPair opens two trees and calls fn to compare them.
func (s *Store) withPair(tx, ty *namedTree, fn func(x, y *changes.View) error) error {
	return viewError(s.withView(tx, func(x *changes.View) error {
		if slices.Equal(tx.stack, ty.stack) && ty.container == nil {
			return fn(x, &changes.View{Stack: x.Stack, ReadAt: x.ReadAt})
		}
		return s.withView(ty, func(y *changes.View) error { return fn(x, y) })
	}))
}

// withView opens a tree and calls fn to look into it. Its errors need viewError.
func (s *Store) withView(t *namedTree, fn func(*changes.View) error) error {
	v := &changes.View{}
	if t.container != nil {
		form, err := s.UpperFormat()
		if err != nil {
			return err
		}
		v.Format, v.Upper = form, s.UpperPath(t.container.ID)
	}
	st, err := s.OpenStack(t.stack)
	if err != nil {
		return err
	}
	defer st.Close() // it was only read
	v.Stack, v.ReadAt = st.Stack, st.ReadAt
	return fn(v)
}

// viewError says what an error of package changes means for the store.
func viewError(err error) error {
	switch {
	case errors.Is(err, changes.ErrReservedName):
		return fmt.Errorf("%w: %w", ErrInvalidLayer, err)
	case errors.Is(err, changes.ErrNoContent):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case errors.Is(err, ErrDamaged):
		return err
	}
	return foreignFiles(treeError(err))
}

// UpperFormat returns the form of the writable layers of this store: that of the
// user who writes it.
func (s *Store) UpperFormat() (*upper.Format, error) {
	owners, err := upper.Self()
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", s.root, err)
	}
	return upper.New(owners), nil
}
