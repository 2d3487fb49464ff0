package archive_test

import (
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/archive"
)

var _ layers.Source = (*archive.Source)(nil)
