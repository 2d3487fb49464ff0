package layers

import (
	"context"
	"io"

	"github.com/layerfs/layerfs/index"
)

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
	p, err := s.openTwo(tx, ty)
	if err != nil {
		return nil, err
	}
	defer p.close()
	t := newTarWriter(p.x, w)
	if err := p.walk(ctx, t.change); err != nil {
		return nil, err
	}
	return &Written{Torn: t.Torn}, t.close()
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
	p, err := s.openTwo(tx, ty)
	if err != nil {
		return 0, err
	}
	defer p.close()
	t := newTarSizer(p.x)
	if err := p.walk(ctx, t.change); err != nil {
		return 0, err
	}
	return t.size, t.close()
}

// Export writes the merged tree of a container, an image or a layer with all below
// it as one tar, the root directory first. What Diff says about writers holds here.
func (s *Store) Export(ctx context.Context, w io.Writer, item string) (*Written, error) {
	tree, err := s.named(ctx, item)
	if err != nil {
		return nil, err
	}
	v, err := s.openView(tree)
	if err != nil {
		return nil, err
	}
	p := &pair{x: v, y: &view{stack: &Stack{}}}
	defer p.close()
	t := newTarWriter(v, w)
	t.rootfs = true
	if err := p.walk(ctx, t.change); err != nil {
		return nil, err
	}
	return &Written{Torn: t.Torn}, t.close()
}
