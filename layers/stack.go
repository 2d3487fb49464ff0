package layers

import (
	"errors"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
)

// A Stack is the merged tree of open layers. While it is open, collection leaves
// them alone.
type Stack struct {
	*union.Stack
	layers []*Layer
}

// OpenStack opens the layers of a stack, bottom first. It returns ErrLayerUnknown
// when one is not in the store.
func (s *Store) OpenStack(ids []DiffID) (*Stack, error) {
	out := &Stack{}
	trees := make([]*tree.Tree, len(ids))
	for i, d := range ids {
		l, err := s.OpenLayer(d)
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		out.layers = append(out.layers, l)
		trees[i] = l.Tree()
	}
	out.Stack = union.New(trees)
	return out, nil
}

// Layer returns the layer that a node is of.
func (st *Stack) Layer(n union.Node) *Layer { return st.layers[n.Layer] }

// ReadAt reads the content of a regular file as Layer.ReadAt does.
func (st *Stack) ReadAt(n union.Node, p []byte, off int64) (int, error) {
	return st.layers[n.Layer].ReadAt(n.Ino, p, off)
}

// Close closes the layers.
func (st *Stack) Close() error {
	var err error
	for _, l := range st.layers {
		err = errors.Join(err, l.Close())
	}
	st.layers = nil
	return err
}
