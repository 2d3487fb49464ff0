package main

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/layers"
)

// A containerReport is what inspect shows of a container.
type containerReport struct {
	layers.Container
	BigData []dataReport `json:"big_data"`
}

// reportItem reports about a layer record or a container.
func reportItem(ctx context.Context, st *layers.Store, name string) (any, error) {
	it, err := st.Item(ctx, name)
	if err != nil {
		return nil, err
	}
	if it.Kind == layers.ItemLayer {
		return reportLayer(ctx, st, it.ID)
	}
	c, err := st.Container(ctx, it.ID)
	if err != nil {
		return nil, err
	}
	r := &containerReport{Container: *c}
	r.BigData, err = reportData(ctx, st, it.ID)
	return r, err
}

// addRecord adds what the store knows about an image besides its documents.
func (r *imageReport) addRecord(ctx context.Context, st *layers.Store, img *layers.Image) (err error) {
	r.Metadata, r.Flags, r.TopLayer = img.Metadata, img.Flags, img.TopLayer
	if r.Flags == nil {
		r.Flags = map[string]string{}
	}
	if r.TopLayer == "" && len(img.Layers) > 0 {
		r.TopLayer = digest.Digest(layers.Chain(img.DiffIDs())).Encoded()
	}
	if img.ReadOnly() {
		r.BigData = []dataReport{}
		return nil
	}
	f, err := st.Family(ctx)
	if err != nil {
		return err
	}
	r.Parent, r.Children = f.Parents[img.ID], f.Children[img.ID]
	r.BigData, err = reportData(ctx, st, img.ID.Encoded())
	return err
}
