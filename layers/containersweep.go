package layers

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/layerfs/layerfs/index"
)

// sweepContainers removes the directories of containers that have no record, but
// for those that somebody is making or writing into.
func (c *collection) sweepContainers(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(c.s.root, "containers"))
	if errors.Is(err, fs.ErrNotExist) || len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.sweepContainer(ctx, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// sweepContainer looks for the record when it has the lock: who makes a container
// holds it until the record is there.
func (c *collection) sweepContainer(ctx context.Context, id string) error {
	lock, ok := lockDir(c.s.containerDir(id))
	if !ok {
		return nil
	}
	defer lock.Close()
	err := c.s.index.View(ctx, func(tx *index.Tx) error {
		_, err := tx.Container(id)
		return err
	})
	if !errors.Is(err, index.ErrNotFound) {
		return err
	}
	c.out.Containers = append(c.out.Containers, id)
	c.out.Bytes += diskUsage(c.s.containerDir(id))
	if c.dryRun {
		return nil
	}
	return c.s.removeContainerDir(id)
}

// makeRemovable gives the owner of a tree the right to remove what is in its
// directories: a container may have taken it away, and so does overlayfs from its
// scratch directory. What cannot be changed shows when it is removed.
func makeRemovable(dir string) {
	if os.Geteuid() == 0 {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() && err == nil {
			if info, err := e.Info(); err == nil && info.Mode().Perm()&0o700 != 0o700 {
				_ = os.Chmod(path, 0o700)
			}
		}
		return nil
	})
}
