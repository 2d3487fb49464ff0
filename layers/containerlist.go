package layers

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// A ContainerFilter chooses containers. All its parts must fit; of the names, IDs
// and ancestors one of each must, of the labels all.
type ContainerFilter struct {
	Labels    []string // KEY, or KEY=VALUE
	Names     []string // regular expressions for a part of a name
	IDs       []string // beginnings of IDs
	Ancestors []string // images that the container's image is or is built on
}

// Containers returns the containers that fit the filter, the newest first; nil
// fits all.
func (s *Store) Containers(ctx context.Context, f *ContainerFilter) ([]Container, error) {
	if f == nil {
		f = &ContainerFilter{}
	}
	var names []*regexp.Regexp
	for _, n := range f.Names {
		re, err := regexp.Compile(n)
		if err != nil {
			return nil, fmt.Errorf("%w: name filter %q: %w", ErrInvalidName, n, err)
		}
		names = append(names, re)
	}
	var out []Container
	err := s.index.View(ctx, func(tx *index.Tx) error {
		stacks, err := f.stacks(tx)
		if err != nil {
			return err
		}
		return tx.EachContainer(func(c index.Container) error {
			if f.fits(&c, names) && (len(f.Ancestors) == 0 || slices.ContainsFunc(stacks, func(s []digest.Digest) bool { return beginsWith(c.Layers, s) })) {
				out = append(out, Container{c})
			}
			return nil
		})
	})
	slices.SortStableFunc(out, func(a, b Container) int { return b.Created.Compare(a.Created) })
	return out, err
}

// stacks returns the stacks of the ancestors.
func (f *ContainerFilter) stacks(tx *index.Tx) ([][]digest.Digest, error) {
	var out [][]digest.Digest
	for _, a := range f.Ancestors {
		img, _, err := resolve(tx, a)
		if err != nil {
			return nil, err
		}
		out = append(out, img.Layers)
	}
	return out, nil
}

func beginsWith(stack, start []digest.Digest) bool {
	return len(stack) >= len(start) && slices.Equal(stack[:len(start)], start)
}

// fits checks everything but the ancestors.
func (f *ContainerFilter) fits(c *index.Container, names []*regexp.Regexp) bool {
	for _, l := range f.Labels {
		key, want, valued := strings.Cut(l, "=")
		if got, ok := c.Labels[key]; !ok || valued && got != want {
			return false
		}
	}
	if len(f.IDs) > 0 && !slices.ContainsFunc(f.IDs, func(id string) bool { return strings.HasPrefix(c.ID, id) }) {
		return false
	}
	if len(names) == 0 {
		return true
	}
	return slices.ContainsFunc(c.Names, func(name string) bool {
		return slices.ContainsFunc(names, func(re *regexp.Regexp) bool { return re.MatchString(name) })
	})
}

// Container finds a container by its ID, by a name, or by an abbreviation of its ID
// that only it has. It returns ErrContainerUnknown, or ErrAmbiguous with the
// candidates.
func (s *Store) Container(ctx context.Context, nameOrID string) (*Container, error) {
	var out *Container
	err := s.index.View(ctx, func(tx *index.Tx) error {
		c, err := resolveContainer(tx, nameOrID)
		out = &Container{c}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func resolveContainer(tx *index.Tx, nameOrID string) (index.Container, error) {
	if c, err := tx.ContainerByName(nameOrID); !errors.Is(err, index.ErrNotFound) {
		return c, err
	}
	if isHex(nameOrID) && len(nameOrID) >= minPrefix && len(nameOrID) <= 64 {
		found, err := tx.ContainersByPrefix(nameOrID, maxCandidates)
		if err != nil {
			return index.Container{}, err
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			var ids []string
			for _, c := range found {
				ids = append(ids, c.ID)
			}
			return index.Container{}, ambiguous(nameOrID, ids)
		}
	}
	return index.Container{}, fmt.Errorf("%w: %q; `layerfs containers` lists those that are", ErrContainerUnknown, nameOrID)
}

// containersOf returns how people call the containers that use an image.
func containersOf(tx *index.Tx, image digest.Digest) ([]string, error) {
	var names []string
	sum := sumOf(image)
	err := tx.EachRawContainer(func(raw index.Raw) error {
		if raw.Image != sum {
			return nil
		}
		c, err := raw.DecodeContainer()
		names = append(names, (&Container{c}).Name())
		return err
	})
	return names, err
}
