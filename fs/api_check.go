package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/layerfs/layerfs/fs/internal/wire"
)

// What this package promises to others.
var (
	_ wire.Handler       = (*fileSystem)(nil)
	_ fuse.RawFileSystem = rawFS{}
	_ wire.Handler       = (*trees)(nil)
	_ wire.HandleReader  = (*trees)(nil)
	_ fuse.RawFileSystem = treeRaw{}
)
