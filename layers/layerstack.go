package layers

import (
	"context"

	"github.com/layerfs/layerfs/index"
)

// LayerStack returns the layers that show what a layer shows, bottom first: the layer
// itself on those that it was made on. The layer is named as a layer record, or by its
// DiffID; then those below it are the ones of the first image that has it. It returns
// ErrLayerUnknown or ErrAmbiguous.
func (s *Store) LayerStack(ctx context.Context, layer string) ([]DiffID, error) {
	var out *namedTree
	_, err := s.index.find(ctx, func(tx *index.Tx) (err error) {
		if out, err = namedRecord(tx, layer); isUnknown(err) {
			out, err = namedLayer(tx, layer)
		}
		if isUnknown(err) {
			err = &unknownError{ErrLayerUnknown, layer, "`layerfs layers` lists those that are"}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out.stack, nil
}
