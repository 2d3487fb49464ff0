package upper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// marker is the file in the meta directory of a container whose upper directory the
// kernel would misread.
const marker = "fuse-only"

// FuseOnly reports whether only layerfs may read an upper directory whose meta
// directory is meta, because the kernel would misread it.
func FuseOnly(meta string) (bool, error) {
	_, err := os.Lstat(filepath.Join(meta, marker))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// MarkFuseOnly writes down that only layerfs may read an upper directory. When it
// returns nil that is on the disk.
func MarkFuseOnly(meta string) error {
	f, err := os.OpenFile(filepath.Join(meta, marker), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(meta)
	if err != nil {
		return err
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("%s: %w", meta, err)
	}
	return nil
}
