package layers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/idmap"
)

// A Container is the record of a container: what it was made of, its names and its
// labels. It never says that something runs in it; who writes into it is asked for
// with [Store.ContainerWriter].
type Container struct {
	index.Container
}

// Name returns the first name.
func (c *Container) Name() string {
	if len(c.Names) == 0 {
		return c.ID[:12]
	}
	return c.Names[0]
}

// DiffIDs returns the stack below the writable layer, bottom first.
func (c *Container) DiffIDs() []DiffID { return diffIDs(c.Layers) }

func diffIDs(stack []digest.Digest) []DiffID {
	ids := make([]DiffID, len(stack))
	for i, d := range stack {
		ids[i] = DiffID(d)
	}
	return ids
}

// ContainerOptions describe a container to create; the zero value makes an empty
// one with a generated ID and name.
type ContainerOptions struct {
	Image    string            // name or ID of the image; empty: the container begins with nothing
	ID       string            // 64 hexadecimal digits; empty: generated
	Names    []string          // empty: one is generated
	Labels   map[string]string // free to use
	Metadata string            // free to use
	// UIDMap and GIDMap shift the owners of the files where the container is shown, each
	// CONTAINER:HOST:COUNT[,...]; of one that is empty the other is used. What is stored
	// stays as it is.
	UIDMap, GIDMap string
}

// The directories of a container below containers/<id>: the writable layer and the
// scratch directory of overlayfs, what the store itself keeps about the layer, and
// what users of the library keep.
const (
	upperDir = "upper"
	workDir  = "work"
	metaDir  = "meta"
	userDir  = "dir"
)

func (s *Store) containerDir(id string) string { return filepath.Join(s.root, "containers", id) }

// UpperPath returns the directory that holds the changes of a container, in the
// format of package upper.
func (s *Store) UpperPath(id string) string { return filepath.Join(s.containerDir(id), upperDir) }

// WorkPath returns the directory in which a mount of a container prepares its
// changes; it is on the same file system as UpperPath.
func (s *Store) WorkPath(id string) string { return filepath.Join(s.containerDir(id), workDir) }

// MetaPath returns the directory for what a mount keeps about a container beside
// its changes.
func (s *Store) MetaPath(id string) string { return filepath.Join(s.containerDir(id), metaDir) }

// CreateContainer makes a container and its writable layer. After an error nothing
// is there. It returns ErrImageUnknown, ErrDuplicateID or ErrDuplicateName, and
// ErrInvalidName or ErrInvalidLabel for what cannot be one.
func (s *Store) CreateContainer(ctx context.Context, o *ContainerOptions) (*Container, error) {
	if o == nil {
		o = &ContainerOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	c, err := o.record()
	if err != nil {
		return nil, err
	}
	if err := s.pinImage(ctx, c, o.Image); err != nil {
		return nil, err
	}
	staged, err := s.stageContainer(c)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name(), err)
	}
	defer staged.lock.Close()
	if err := s.publishContainer(ctx, c, len(o.Names) == 0); err != nil {
		return nil, errors.Join(err, s.dropUnpublished(c, staged.path))
	}
	return c, nil
}

// dropUnpublished removes the directory of a container that could not be made visible. A
// commit whose last sync has failed is there all the same: then the directory stays, and a
// collection takes it if the record is gone after all.
func (s *Store) dropUnpublished(c *Container, path string) error {
	err := s.index.View(context.Background(), func(tx *index.Tx) error {
		_, err := tx.Container(c.ID)
		return err
	})
	if !errors.Is(err, index.ErrNotFound) {
		return nil
	}
	return s.disk.RemoveAll(path)
}

// record checks the options and makes the part of the record that they determine.
func (o *ContainerOptions) record() (*Container, error) {
	c := &Container{index.Container{
		ID: o.ID, Labels: o.Labels, Metadata: o.Metadata, Created: time.Now().UTC().Round(0), Layers: []digest.Digest{},
		UIDMap: o.UIDMap, GIDMap: o.GIDMap,
	}}
	if c.ID == "" {
		var raw [32]byte
		rand.Read(raw[:]) // never fails (crypto/rand)
		c.ID = hex.EncodeToString(raw[:])
	}
	if !isHex(c.ID) || len(c.ID) != 64 {
		return nil, fmt.Errorf("%w: %q is no ID; want 64 hexadecimal digits", ErrInvalidName, c.ID)
	}
	for _, m := range []string{o.UIDMap, o.GIDMap} {
		if _, err := idmap.Parse(m); m != "" && err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidMap, err)
		}
	}
	for _, name := range o.Names {
		if err := checkContainerName(name); err != nil {
			return nil, err
		}
		if !slices.Contains(c.Names, name) {
			c.Names = append(c.Names, name)
		}
	}
	return c, errors.Join(checkLabels(o.Labels), checkMetadata(o.Metadata))
}

// pinImage puts the image into the record. Its layers are the container's from the
// transaction on that makes the record visible.
func (s *Store) pinImage(ctx context.Context, c *Container, image string) error {
	if image == "" {
		return nil
	}
	if _, err := s.adopt(ctx, image); err != nil {
		return err
	}
	return s.index.View(ctx, func(tx *index.Tx) error {
		img, name, err := resolve(tx, image)
		if err == nil {
			err = checkNotArtifact(img)
		}
		c.Image, c.ImageName, c.Layers = img.ID, name, img.Layers
		if c.ImageName == "" && err == nil {
			c.ImageName, err = firstName(tx, img.ID)
		}
		return err
	})
}

func firstName(tx *index.Tx, id digest.Digest) (string, error) {
	first, sum := "", sumOf(id)
	err := tx.EachRawName(func(n index.Raw) error {
		if n.Image == sum && first == "" {
			first = n.Key
		}
		return nil
	})
	return first, err
}

// stageContainer makes the directory of a container and puts it in its place. As
// long as the lock of what it returns is held, collection leaves it alone although
// no record leads to it.
func (s *Store) stageContainer(c *Container) (*tempDir, error) {
	parent := filepath.Join(s.root, "containers")
	if err := s.disk.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	t, err := s.newTemp("container")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{upperDir, workDir, metaDir, userDir} {
		if err := s.disk.Mkdir(filepath.Join(t.path, name), 0o700); err != nil {
			return nil, errors.Join(err, t.remove())
		}
	}
	err = s.initUpper(filepath.Join(t.path, upperDir), c)
	final := s.containerDir(c.ID)
	if err == nil {
		err = s.disk.Rename(t.path, final)
	}
	if err != nil {
		return nil, errors.Join(duplicateID(err, c.ID), t.remove())
	}
	t.path = final
	// Nobody looks at the name before the record is there, so both are synced
	// together: a journal then has to be written once.
	for _, dir := range []string{filepath.Join(final, upperDir), final, parent} {
		if err := s.disk.SyncDir(dir); err != nil {
			return nil, errors.Join(err, t.remove())
		}
	}
	return t, nil
}

// publishContainer makes the container visible.
func (s *Store) publishContainer(ctx context.Context, c *Container, anyName bool) error {
	return s.index.Update(ctx, "create", func(tx *index.Tx) (err error) {
		if _, err := tx.Container(c.ID); err == nil {
			return fmt.Errorf("%w: container %s", ErrDuplicateID, c.ID)
		}
		if c.Image != "" {
			if _, err := tx.Image(c.Image); err != nil {
				return unknownImage(err, string(c.Image)) // it was removed a moment ago
			}
		}
		if anyName {
			if c.Names, err = freeName(tx); err != nil {
				return err
			}
		}
		if c.Slot, err = tx.NextContainerSlot(); err != nil {
			return err
		}
		return duplicateName(tx.PutContainer(c.Container))
	})
}

func duplicateName(err error) error {
	if errors.Is(err, index.ErrExists) {
		return fmt.Errorf("%w: %w; choose another, or rename that container", ErrDuplicateName, err)
	}
	return err
}

// duplicateID translates the error of renaming a container's directory into a
// place that is taken.
func duplicateID(err error, id string) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: container %s", ErrDuplicateID, id)
	}
	return err
}
