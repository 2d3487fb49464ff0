package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	bucketContainers     = []byte("containers")
	bucketContainerNames = []byte("container.names")

	keySlotContainer = []byte("slot.container")
)

// A Container is the record of one container: what it was made of. Its writable
// layer is a directory of the store.
type Container struct {
	ID        string            `json:"id"` // 64 hexadecimal digits
	Slot      uint32            `json:"slot"`
	Names     []string          `json:"names"`                // unique among containers; the first is the one that people see
	Image     digest.Digest     `json:"image,omitempty"`      // ID of the image; empty: made from nothing
	ImageName string            `json:"image_name,omitempty"` // normalized name by which the image was found
	Layers    []digest.Digest   `json:"layers"`               // DiffIDs of the stack below the writable layer, bottom first
	Labels    map[string]string `json:"labels,omitempty"`
	Metadata  string            `json:"metadata,omitempty"`
	Created   time.Time         `json:"created"`
	Flags     map[string]string `json:"flags,omitempty"`
	UIDMap    string            `json:"uidmap,omitempty"` // how its files are shown: CONTAINER:HOST:COUNT[,...]
	GIDMap    string            `json:"gidmap,omitempty"`
}

// head leaves Image zero for a container without one.
func (c Container) head() Head {
	h := Head{Slot: c.Slot, Time: c.Created}
	if c.Image != "" {
		h.Image = sumOf(c.Image)
	}
	for _, d := range c.Layers {
		h.Layers = append(h.Layers, sumOf(d))
	}
	return h
}

// Container returns the record of a container, or ErrNotFound.
func (tx *Tx) Container(id string) (Container, error) {
	var c Container
	return c, tx.get(bucketContainers, id, &c)
}

// ContainerByName returns the container that has the name, or ErrNotFound.
func (tx *Tx) ContainerByName(name string) (Container, error) {
	b := tx.bucket(bucketContainerNames)
	if b == nil {
		return Container{}, ErrNotFound
	}
	id := b.Get([]byte(name))
	if id == nil {
		return Container{}, ErrNotFound
	}
	c, err := tx.Container(string(id))
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: name %q of a container leads to %s, which has no record", ErrDamaged, name, id)
	}
	return c, err
}

// PutContainer adds or replaces a container and its names. When another container
// has one of them it returns ErrExists and nothing has changed.
func (tx *Tx) PutContainer(c Container) error {
	names := tx.bucket(bucketContainerNames)
	for _, n := range c.Names {
		if id := names.Get([]byte(n)); id != nil && string(id) != c.ID {
			return fmt.Errorf("name %q %w: container %s has it", n, ErrExists, id)
		}
	}
	old, err := tx.Container(c.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	for _, n := range old.Names {
		if !slices.Contains(c.Names, n) {
			if err := names.Delete([]byte(n)); err != nil {
				return fmt.Errorf("index: name %q: %w", n, err)
			}
		}
	}
	for _, n := range c.Names {
		if err := names.Put([]byte(n), []byte(c.ID)); err != nil {
			return fmt.Errorf("index: name %q: %w", n, err)
		}
	}
	return tx.put(bucketContainers, c.ID, c.head(), c)
}

// DeleteContainer removes a container with its names and big data, or returns ErrNotFound.
func (tx *Tx) DeleteContainer(id string) error {
	c, err := tx.Container(id)
	if err != nil {
		return err
	}
	for _, n := range c.Names {
		if err := tx.bucket(bucketContainerNames).Delete([]byte(n)); err != nil {
			return fmt.Errorf("index: name %q: %w", n, err)
		}
	}
	if err := tx.DeleteAllData(Owner{KindContainer, id}); err != nil {
		return err
	}
	return tx.remove(bucketContainers, id)
}

// EachContainer calls fn for every container in the order of their IDs.
func (tx *Tx) EachContainer(fn func(Container) error) error { return each(tx, bucketContainers, fn) }

// EachRawContainer calls fn for every container in the order of their IDs. The
// records stay valid after the transaction.
func (tx *Tx) EachRawContainer(fn func(Raw) error) error { return tx.eachRaw(bucketContainers, fn) }

// EachContainerName calls fn for every name of a container, in byte order, and the
// ID of the container.
func (tx *Tx) EachContainerName(fn func(name, id string) error) error {
	b := tx.bucket(bucketContainerNames)
	if b == nil {
		return nil
	}
	return b.ForEach(func(k, v []byte) error { return fn(string(k), string(v)) })
}

// ContainersByPrefix returns the containers whose ID begins with prefix, at most
// limit of them.
func (tx *Tx) ContainersByPrefix(prefix string, limit int) ([]Container, error) {
	return byPrefix[Container](tx, bucketContainers, prefix, limit)
}

// NextContainerSlot gives a slot for a new container.
func (tx *Tx) NextContainerSlot() (uint32, error) { return tx.nextSlot(keySlotContainer) }

// DecodeContainer returns the record, which must be one of EachRawContainer.
func (r Raw) DecodeContainer() (c Container, err error) {
	if err := json.Unmarshal(r.text, &c); err != nil {
		return c, fmt.Errorf("%w: record %s/%s: %w", ErrDamaged, bucketContainers, r.Key, err)
	}
	return c, nil
}
