package layers

import (
	"context"
	"io"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/layers/changes"
)

// Changes calls fn for each change that leads from the tree y to the tree x: x and y
// are names or IDs of containers, images or layers. An empty y stands for what is
// below x: the image of a container, all layers but the topmost of an image, the
// layers below a layer. A directory comes before what is in it, deleted names of a
// directory before the others. When fn returns an error, that ends the walk.
//
// The changes of a container are found by looking at its writable layer only.
func (s *Store) Changes(ctx context.Context, x, y string, fn func(changes.Change) error) error {
	tx, ty, err := s.namedPair(ctx, x, y)
	if err != nil {
		return err
	}
	return s.withPair(tx, ty, func(x, y *changes.View) error { return changes.List(ctx, x, y, fn) })
}

// Written says how a tar of a tree or of changes came about.
type Written struct {
	// Exact: it is the tar that the layer came in with, bit for bit.
	Exact bool
	// Torn are files of a container that were being written while they were read: what
	// the tar has of them may be a mix of before and after.
	Torn []string
}

// Diff writes the uncompressed tar, in the form of an image layer, that leads from
// the tree y to the tree x; see Changes for what they may be. For one layer above
// another stack that is the tar that the layer came in with. Applied on y the tar
// gives x, but for one thing: a new name of a file that is in y becomes a copy.
//
// Somebody may be writing into a container meanwhile. Every directory is then as it
// was at one moment between begin and end, and so is every file but for those in
// Written.Torn.
func (s *Store) Diff(ctx context.Context, w io.Writer, x, y string) (*Written, error) {
	tx, ty, err := s.namedPair(ctx, x, y)
	if err != nil {
		return nil, err
	}
	if d, ok := tx.exact(ty); ok {
		return &Written{Exact: true}, s.writeLayer(ctx, w, d)
	}
	var r *changes.Written
	err = s.withPair(tx, ty, func(x, y *changes.View) (err error) {
		r, err = changes.WriteTar(ctx, w, x, y)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Written{Torn: r.Torn}, nil
}

func (s *Store) writeLayer(ctx context.Context, w io.Writer, d DiffID) error {
	l, err := s.OpenLayer(d)
	if err != nil {
		return err
	}
	defer l.Close() // it was only read
	return l.WriteTar(ctx, w)
}

// DiffSize returns the number of bytes that Diff would write. No content of a file
// is read for it.
func (s *Store) DiffSize(ctx context.Context, x, y string) (int64, error) {
	tx, ty, err := s.namedPair(ctx, x, y)
	if err != nil {
		return 0, err
	}
	if d, ok := tx.exact(ty); ok {
		var size int64
		err := s.index.View(ctx, func(tx *index.Tx) error {
			l, err := findLayer(tx, string(d)) // also in additional stores
			size = l.Size
			return err
		})
		return size, err
	}
	var size int64
	err = s.withPair(tx, ty, func(x, y *changes.View) (err error) {
		size, err = changes.TarSize(ctx, x, y)
		return err
	})
	return size, err
}

// Export writes the merged tree of a container, an image or a layer with all below
// it as one tar, the root directory first. What Diff says about writers holds here.
func (s *Store) Export(ctx context.Context, w io.Writer, item string) (*Written, error) {
	tree, err := s.named(ctx, item)
	if err != nil {
		return nil, err
	}
	var r *changes.Written
	err = s.withView(tree, func(v *changes.View) (err error) {
		r, err = changes.WriteTree(ctx, w, v)
		return err
	})
	if err != nil {
		return nil, viewError(err)
	}
	return &Written{Torn: r.Torn}, nil
}
