package layers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
)

// FindOptions say what to find. What is zero does not matter.
type FindOptions struct {
	// Digest is the sha256 of the content of a regular file. Files with holes are not
	// found by it.
	Digest digest.Digest
	// Name is a pattern of path.Match for the last name of a path, or, when there is
	// a slash in it, for all of the path.
	Name string
	// Types are letters as find -type has them: f d l c b p s.
	Types string
	// Images are names or IDs; none means all images, those of additional stores too.
	Images []string
	// Hidden finds also what upper layers have deleted or replaced: what is in the
	// image but not shown by it.
	Hidden bool
}

// A Found is a file of a layer and the images that have it.
type Found struct {
	Layer DiffID `json:"layer"`
	Path  string `json:"path"`
	File
	// Images show the file; HiddenIn have the layer, but a layer above it has
	// deleted or replaced the file.
	Images   []ImageRef `json:"images"`
	HiddenIn []ImageRef `json:"hidden_in,omitempty"`
}

// Find calls fn for every file that fits, layer by layer, until fn returns an
// error, which it returns. A layer is searched once, however many images have it.
// Layers in an additional store that is missing now are left out; the error at the
// end is then ErrStoreGone.
func (s *Store) Find(ctx context.Context, o *FindOptions, fn func(*Found) error) error {
	f := &finder{s: s, ctx: ctx, o: o, fn: fn}
	if err := f.prepare(); err != nil {
		return err
	}
	for _, d := range f.layers {
		err := f.layer(d)
		switch {
		case errors.Is(err, ErrStoreGone):
			f.gone = err
		case err != nil:
			return fmt.Errorf("layer %s: %w", d, err)
		}
	}
	if f.gone != nil {
		return fmt.Errorf("not all layers were searched: %w", f.gone)
	}
	return nil
}

// A finder is one search.
type finder struct {
	s      *Store
	ctx    context.Context
	o      *FindOptions
	fn     func(*Found) error
	layers []DiffID
	users  map[DiffID][]user // of the images to be searched
	gone   error             // why layers were left out, if so

	// Of the layer that is being searched.
	open  *Layer
	here  []user
	count int
}

// A user is an image that has a layer.
type user struct {
	ref    ImageRef
	ids    []DiffID
	places []int  // of the layer in the stack
	stack  *Stack // opened at the first file that is found
	lost   bool   // it cannot be opened now
}

// prepare checks the options and reads which layers are to be searched.
func (f *finder) prepare() error {
	if f.o.Digest != "" {
		d, err := parseDigest(string(f.o.Digest))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalidName, err)
		}
		f.o.Digest = d
	}
	if _, err := path.Match(f.o.Name, ""); err != nil {
		return fmt.Errorf("%w: pattern %q: %w", ErrInvalidName, f.o.Name, err)
	}
	if bad := strings.Trim(f.o.Types, "fdlcbps"); bad != "" {
		return fmt.Errorf("%w: type %q: want some of f, d, l, c, b, p, s", ErrInvalidName, bad)
	}
	wanted := map[digest.Digest]bool{}
	for _, name := range f.o.Images {
		img, err := f.s.Image(f.ctx, name)
		if err != nil {
			return err
		}
		wanted[img.ID] = true
	}
	all, err := f.s.stackRefs(f.ctx)
	if err != nil {
		return err
	}
	f.users = map[DiffID][]user{}
	for _, r := range all {
		if len(f.o.Images) == 0 || wanted[r.ID] {
			f.add(r.ImageRef, r.layers)
		}
	}
	return nil
}

// add notes the layers of an image.
func (f *finder) add(ref ImageRef, stack []index.Sum) {
	u := user{ref: ref}
	for _, sum := range stack {
		u.ids = append(u.ids, DiffID(descriptor(sum, 0).Digest))
	}
	places := map[DiffID][]int{}
	for i, d := range u.ids {
		places[d] = append(places[d], i)
	}
	for i, d := range u.ids {
		if places[d][0] != i {
			continue
		}
		if f.users[d] == nil {
			f.layers = append(f.layers, d)
		}
		u.places = places[d]
		f.users[d] = append(f.users[d], u)
	}
}

// layer searches one layer.
func (f *finder) layer(d DiffID) (err error) {
	l, err := f.s.OpenLayer(d)
	if err != nil {
		if known, kerr := f.s.hasLayer(f.ctx, d); kerr == nil && !known {
			return nil // removed since the search began
		}
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if f.o.Digest != "" && f.o.Digest != emptyDigest {
		if _, ok, err := l.tree.BodyBySum(sumOf(f.o.Digest)); err != nil || !ok {
			return treeError(err)
		}
	}
	f.open, f.here = l, f.users[d]
	defer func() {
		for i := range f.here {
			if f.here[i].stack != nil {
				err = errors.Join(err, f.here[i].stack.Close())
				f.here[i].stack = nil
			}
		}
	}()
	return walkTree(l.tree, 0, "", f.entry)
}

// entry reports one entry of the layer if it is wanted.
func (f *finder) entry(name string, e tree.Dirent) error {
	if f.count++; f.count%1024 == 0 && f.ctx.Err() != nil {
		return f.ctx.Err()
	}
	if e.Kind == tree.KindWhiteout || !f.named(name, e.Name) {
		return nil
	}
	t, ino := f.open.tree, e.Ino
	if e.Kind == tree.KindLink {
		copied, ok, err := t.LowerCopy(uint32(ino))
		if err != nil || !ok {
			return treeError(err)
		}
		ino = copied
	}
	a, err := t.Attr(ino)
	if err != nil {
		return treeError(err)
	}
	if a.Implied || f.o.Types != "" && !strings.Contains(f.o.Types, kindLetters[a.Kind]) {
		return nil
	}
	file, err := describeFile(t, ino, a)
	if err != nil || f.o.Digest != "" && file.Digest != f.o.Digest {
		return err
	}
	found := &Found{Layer: f.open.DiffID, Path: "/" + name, File: file, Images: []ImageRef{}}
	if err := f.shown(found, name, e); err != nil {
		return err
	}
	if len(found.Images) == 0 && !f.o.Hidden {
		return nil
	}
	return f.fn(found)
}

// named reports whether a path fits the pattern.
func (f *finder) named(name string, base []byte) bool {
	pattern := f.o.Name
	if pattern == "" {
		return true
	}
	if !strings.Contains(pattern, "/") {
		ok, _ := path.Match(pattern, string(base)) // prepare has tried it
		return ok
	}
	ok, _ := path.Match(strings.Trim(pattern, "/"), name)
	return ok
}

// shown finds the images that show the file. What an image shows at the path must
// come from this very layer: of a directory, any part.
func (f *finder) shown(found *Found, name string, e tree.Dirent) error {
	for i := range f.here {
		u := &f.here[i]
		if err := f.openUser(u); err != nil {
			return err
		}
		if u.lost {
			continue
		}
		ok, err := u.shows(name, e)
		if err != nil {
			return treeError(err)
		}
		if ok {
			found.Images = append(found.Images, u.ref)
		} else if f.o.Hidden {
			found.HiddenIn = append(found.HiddenIn, u.ref)
		}
	}
	return nil
}

// openUser opens the stack of an image, if it can be opened.
func (f *finder) openUser(u *user) error {
	if u.stack != nil || u.lost {
		return nil
	}
	stack, err := f.s.OpenStack(u.ids)
	switch {
	case errors.Is(err, ErrStoreGone):
		f.gone, u.lost = err, true
	case errors.Is(err, ErrLayerUnknown): // the image is being removed
		u.lost = true
	case err != nil:
		return err
	default:
		u.stack = stack
	}
	return nil
}

// shows reports whether the image shows the entry.
func (u *user) shows(name string, e tree.Dirent) (bool, error) {
	top := u.places[len(u.places)-1]
	for i := top + 1; i < len(u.ids); i++ {
		p, err := probe(u.stack.layers[i].tree, split(name))
		if err != nil {
			return false, err
		}
		// Of several entries for a directory the topmost one counts.
		if p.passes && e.Kind == tree.KindDirectory {
			continue
		}
		if p.hidden || p.found {
			return false, nil
		}
	}
	return true, nil
}
