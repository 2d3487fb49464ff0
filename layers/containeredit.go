package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/layerfs/layerfs/index"
)

// editContainer changes the record of a container in one transaction.
func (s *Store) editContainer(ctx context.Context, nameOrID, purpose string, edit func(*index.Container) error) error {
	if err := s.writable(); err != nil {
		return err
	}
	return s.index.Update(ctx, purpose, func(tx *index.Tx) error {
		c, err := resolveContainer(tx, nameOrID)
		if err != nil {
			return err
		}
		if err := edit(&c); err != nil {
			return err
		}
		return duplicateName(tx.PutContainer(c))
	})
}

// RenameContainer gives a container a new name in the place of the one by which it
// was found, or of its first. It returns ErrDuplicateName when another has it.
func (s *Store) RenameContainer(ctx context.Context, nameOrID, name string) error {
	if err := checkContainerName(name); err != nil {
		return err
	}
	return s.editContainer(ctx, nameOrID, "rename", func(c *index.Container) error {
		names := slices.DeleteFunc(slices.Clone(c.Names), func(n string) bool { return n == name && n != nameOrID })
		at := max(0, slices.Index(names, nameOrID))
		if len(names) == 0 {
			names = []string{name}
		}
		names[at] = name
		c.Names = names
		return nil
	})
}

// SetContainerNames replaces all names of a container. There must be one at least.
func (s *Store) SetContainerNames(ctx context.Context, nameOrID string, names ...string) error {
	var unique []string
	for _, n := range names {
		if err := checkContainerName(n); err != nil {
			return err
		}
		if !slices.Contains(unique, n) {
			unique = append(unique, n)
		}
	}
	if len(unique) == 0 {
		return fmt.Errorf("%w: a container needs a name", ErrInvalidName)
	}
	return s.editContainer(ctx, nameOrID, "rename", func(c *index.Container) error {
		c.Names = unique
		return nil
	})
}

// SetContainerLabels sets labels of a container and removes others; removing one
// that is not there is no error. All changes are made or, after an error, none.
func (s *Store) SetContainerLabels(ctx context.Context, nameOrID string, set map[string]string, remove []string) error {
	if err := checkLabels(set); err != nil {
		return err
	}
	return s.editContainer(ctx, nameOrID, "label", func(c *index.Container) error {
		labels := map[string]string{}
		maps.Copy(labels, c.Labels)
		for _, key := range remove {
			delete(labels, key)
		}
		maps.Copy(labels, set)
		c.Labels = labels
		return nil
	})
}

// SetContainerMetadata replaces the free text that is kept with a container.
func (s *Store) SetContainerMetadata(ctx context.Context, nameOrID, metadata string) error {
	if err := checkMetadata(metadata); err != nil {
		return err
	}
	return s.editContainer(ctx, nameOrID, "metadata", func(c *index.Container) error {
		c.Metadata = metadata
		return nil
	})
}

// DeleteContainer removes a container: its record, its writable layer and its
// directories. It returns ErrInUse while a mount writes into it. With force the
// record goes all the same and with it the container out of the mount, and its
// files go when the mount lets go of them. It returns the ID of what it removed.
func (s *Store) DeleteContainer(ctx context.Context, nameOrID string, force bool) (string, error) {
	if err := s.writable(); err != nil {
		return "", err
	}
	c, err := s.Container(ctx, nameOrID)
	if err != nil {
		return "", err
	}
	lock, err := s.LockContainer(c.ID, "rm")
	if err != nil && !(force && errors.Is(err, ErrInUse)) {
		return "", fmt.Errorf("%w; unmount it, or use --force", err)
	}
	err = s.index.Update(ctx, "rm", func(tx *index.Tx) error { return tx.DeleteContainer(c.ID) })
	if errors.Is(err, index.ErrNotFound) {
		err = fmt.Errorf("%w: %s was removed by somebody else", ErrContainerUnknown, c.Name())
	}
	if err == nil {
		err = s.removeRunDir(c.ID)
	}
	if lock != nil {
		err = errors.Join(err, foreignFiles(lock.Close())) // takes the directory along
	}
	return c.ID, err
}

// removeContainerDir removes the directory of a container that has no record. Its
// lock must be held.
func (s *Store) removeContainerDir(id string) error {
	temp, err := s.newTemp("rm")
	if err != nil {
		return err
	}
	gone := filepath.Join(temp.path, "container")
	if err := s.disk.Rename(s.containerDir(id), gone); err != nil {
		return errors.Join(err, temp.remove())
	}
	makeRemovable(gone)
	return temp.remove()
}

// foreignFiles says what to do about files of a container that were written in a user
// namespace, for IDs that the user himself is not.
func foreignFiles(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w: it belongs to a subordinate ID; do this, or layerfs gc, in `podman unshare`", err)
	}
	return err
}
