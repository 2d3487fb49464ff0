package layers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// An ItemKind is a kind of things that have an ID, names, metadata, flags and big
// data.
type ItemKind string

// The kinds of items.
const (
	ItemImage     ItemKind = "image"
	ItemLayer     ItemKind = "layer"
	ItemContainer ItemKind = "container"
)

// An Item is an image, a layer record or a container, as far as they are alike.
type Item struct {
	Kind     ItemKind          `json:"kind"`
	ID       string            `json:"id"` // 64 hexadecimal digits
	Names    []string          `json:"names"`
	Metadata string            `json:"metadata"`
	Flags    map[string]string `json:"flags"`
}

func (it *Item) owner() index.Owner {
	kinds := map[ItemKind]index.Kind{ItemImage: index.KindImage, ItemLayer: index.KindLayer, ItemContainer: index.KindContainer}
	return index.Owner{Kind: kinds[it.Kind], ID: it.ID}
}

func (it *Item) digest() digest.Digest { return digest.NewDigestFromEncoded(digest.SHA256, it.ID) }

// Item finds whatever has the ID, the name, or the ID of which that is an
// abbreviation: an image, a layer record or ChainID, or a container. Who has all of
// it goes before those of whom it is an abbreviation, images before layers before
// containers. It returns ErrNotAnID, or ErrAmbiguous with the candidates.
func (s *Store) Item(ctx context.Context, nameOrID string) (*Item, error) {
	var out *Item
	err := s.index.View(ctx, func(tx *index.Tx) (err error) {
		out, err = resolveItem(tx, nameOrID)
		return err
	})
	return out, err
}

// Exists reports whether an image, a layer record or a container has the ID or name.
func (s *Store) Exists(ctx context.Context, nameOrID string) (bool, error) {
	_, err := s.Item(ctx, nameOrID)
	if errors.Is(err, ErrNotAnID) {
		return false, nil
	}
	return err == nil, err
}

// Lookup returns the ID of what has the name, or ErrNotAnID.
func (s *Store) Lookup(ctx context.Context, name string) (string, error) {
	it, err := s.Item(ctx, name)
	if err != nil {
		return "", err
	}
	return it.ID, nil
}

func resolveItem(tx *index.Tx, nameOrID string) (*Item, error) {
	var loose []*Item
	for _, find := range []func(*index.Tx, string) (*Item, bool, error){imageItem, layerItem, containerItem} {
		it, exact, err := find(tx, nameOrID)
		switch {
		case err == nil && exact:
			return it, nil
		case err == nil:
			loose = append(loose, it)
		case !errors.Is(err, ErrImageUnknown) && !errors.Is(err, ErrLayerUnknown) && !errors.Is(err, ErrContainerUnknown):
			return nil, err
		}
	}
	switch len(loose) {
	case 0:
		return nil, &unknownError{ErrNotAnID, nameOrID, "`layerfs images`, `layers` and `containers` list what is"}
	case 1:
		return loose[0], nil
	}
	var ids []string
	for _, it := range loose {
		ids = append(ids, string(it.Kind)+" "+it.ID)
	}
	return nil, ambiguous(nameOrID, ids)
}

// isWhole reports whether the text can only be an ID in full.
func isWhole(id string) bool {
	hex := strings.TrimPrefix(id, "sha256:")
	return len(hex) == 64 && isHex(hex)
}

func imageItem(tx *index.Tx, nameOrID string) (*Item, bool, error) {
	img, name, err := resolve(tx, nameOrID)
	if err != nil {
		return nil, false, err
	}
	names, err := namesOf(tx, img.ID)
	return &Item{ItemImage, img.ID.Encoded(), names, img.Metadata, img.Flags}, name != "" || isWhole(nameOrID), err
}

func layerItem(tx *index.Tx, nameOrID string) (*Item, bool, error) {
	ns, err := readNodes(tx)
	if err != nil {
		return nil, false, err
	}
	n, exact, err := ns.find(nameOrID)
	if err != nil {
		return nil, false, err
	}
	r := ns.record(n)
	return &Item{ItemLayer, r.ID, r.Names, r.Metadata, r.Flags}, exact, nil
}

func containerItem(tx *index.Tx, nameOrID string) (*Item, bool, error) {
	c, err := resolveContainer(tx, nameOrID)
	if err != nil {
		return nil, false, err
	}
	exact := isWhole(nameOrID) || slices.Contains(c.Names, nameOrID)
	return &Item{ItemContainer, c.ID, c.Names, c.Metadata, c.Flags}, exact, nil
}

// SetNames replaces all names of an item. A name that another item of the kind has
// moves; names that come twice are dropped. A container must keep one name.
func (s *Store) SetNames(ctx context.Context, nameOrID string, names ...string) error {
	return s.change(ctx, nameOrID, "names", func(tx *index.Tx, it *Item) error {
		switch it.Kind {
		case ItemImage:
			return setImageNames(tx, it, names)
		case ItemLayer:
			unique, err := layerNames(names)
			if err == nil {
				err = takeLayerNames(tx, it.ID, unique)
			}
			it.Names = unique
			return err
		}
		for _, name := range names {
			if err := checkContainerName(name); err != nil {
				return err
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("%w: a container needs a name", ErrInvalidName)
		}
		it.Names = unique(names)
		return takeContainerNames(tx, it.ID, it.Names)
	})
}

func unique(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func setImageNames(tx *index.Tx, it *Item, names []string) error {
	normal, err := normalizeAll(names)
	if err != nil {
		return err
	}
	img, err := tx.Image(it.digest())
	if err != nil {
		return err
	}
	manifest, err := manifestOf(tx, img, "")
	if err != nil {
		return err
	}
	for _, old := range it.Names {
		if !slices.Contains(normal, old) {
			if err := tx.DeleteName(old); err != nil {
				return err
			}
		}
	}
	for _, name := range normal {
		if err := checkDigestName(name, img); err != nil {
			return err
		}
		if slices.Contains(it.Names, name) {
			continue // it keeps the manifest that it stands for
		}
		if err := setName(tx, name, img.ID, manifest); err != nil {
			return err
		}
	}
	return nil
}

// takeLayerNames takes names away from the layer records that have them.
func takeLayerNames(tx *index.Tx, id string, names []string) error {
	for _, name := range names {
		r, err := tx.LayerRecordNamed(name)
		if errors.Is(err, index.ErrNotFound) || err == nil && r.ID == id {
			continue
		}
		if err != nil {
			return err
		}
		r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return n == name })
		if err := tx.PutLayerRecord(r); err != nil {
			return err
		}
	}
	return nil
}

// takeContainerNames takes names away from the containers that have them; the last
// one of a container stays its own.
func takeContainerNames(tx *index.Tx, id string, names []string) error {
	for _, name := range names {
		c, err := tx.ContainerByName(name)
		if errors.Is(err, index.ErrNotFound) || err == nil && c.ID == id {
			continue
		}
		if err != nil {
			return err
		}
		if len(c.Names) == 1 {
			return fmt.Errorf("%w: %q is the only name of container %.12s; rename that first", ErrDuplicateName, name, c.ID)
		}
		c.Names = slices.DeleteFunc(c.Names, func(n string) bool { return n == name })
		if err := tx.PutContainer(c); err != nil {
			return err
		}
	}
	return nil
}

// SetMetadata replaces the free text that is kept with an item.
func (s *Store) SetMetadata(ctx context.Context, nameOrID, metadata string) error {
	if err := checkMetadata(metadata); err != nil {
		return err
	}
	return s.change(ctx, nameOrID, "metadata", func(_ *index.Tx, it *Item) error {
		it.Metadata = metadata
		return nil
	})
}

// SetFlag sets a flag of an item, with a value or without.
func (s *Store) SetFlag(ctx context.Context, nameOrID, flag, value string) error {
	if err := checkFlags(map[string]string{flag: value}); err != nil {
		return err
	}
	return s.change(ctx, nameOrID, "flag", func(_ *index.Tx, it *Item) error {
		flags := map[string]string{flag: value}
		for k, v := range it.Flags {
			if k != flag {
				flags[k] = v
			}
		}
		it.Flags = flags
		return nil
	})
}

// ClearFlag clears a flag of an item; one that is not set is no error.
func (s *Store) ClearFlag(ctx context.Context, nameOrID, flag string) error {
	return s.change(ctx, nameOrID, "flag", func(_ *index.Tx, it *Item) error {
		it.Flags = maps.Clone(it.Flags)
		delete(it.Flags, flag)
		return nil
	})
}

func checkFlags(flags map[string]string) error {
	for k, v := range flags {
		if k == "" || len(k)+len(v) > maxLabel || !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("%w: flag %.40q; the name and the value of a flag are UTF-8 texts of at most %d bytes, the name not empty", ErrInvalidName, k, maxLabel)
		}
	}
	return nil
}

// change changes an item in one transaction.
func (s *Store) change(ctx context.Context, nameOrID, purpose string, fn func(*index.Tx, *Item) error) error {
	if err := s.writable(); err != nil {
		return err
	}
	return s.index.Update(ctx, purpose, func(tx *index.Tx) error {
		it, err := resolveItem(tx, nameOrID)
		if err != nil {
			return err
		}
		if err := fn(tx, it); err != nil {
			return err
		}
		return it.put(tx)
	})
}

// put writes back what may have been changed. A ChainID that gets something of its
// own gets a record for it.
func (it *Item) put(tx *index.Tx) error {
	switch it.Kind {
	case ItemImage:
		img, err := tx.Image(it.digest())
		if err != nil {
			return err
		}
		img.Metadata, img.Flags = it.Metadata, it.Flags
		return tx.PutImage(img)
	case ItemLayer:
		ns, err := readNodes(tx)
		if err != nil {
			return err
		}
		r := ns.record(ns.nodes[it.ID])
		if r.Created.IsZero() {
			r.Created = now()
		}
		r.Names, r.Metadata, r.Flags = it.Names, it.Metadata, it.Flags
		return tx.PutLayerRecord(r)
	}
	c, err := tx.Container(it.ID)
	if err != nil {
		return err
	}
	c.Names, c.Metadata, c.Flags = it.Names, it.Metadata, it.Flags
	return tx.PutContainer(c)
}
