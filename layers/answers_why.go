package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
)

// What a thing that Why explains is.
const (
	ThingImage    = "image"
	ThingLayer    = "layer"
	ThingManifest = "manifest"
	ThingBlob     = "compressed layer"
	ThingContent  = "file content"
	ThingUnused   = "unused" // in the store, and nothing needs it
)

// A Why says what a digest is in the store and what keeps it there.
type Why struct {
	Digest digest.Digest `json:"digest"`
	Thing  string        `json:"thing"`
	// Store is the root of the additional store that it lies in; empty when it lies in
	// this one. What keeps it may be in both.
	Store string `json:"store,omitempty"`
	// Images need it, with their names.
	Images []ImageRef `json:"images"`
	// Layers hold it, when it is the content of a file or a compressed layer.
	Layers []Holder `json:"layers,omitempty"`
	// Processes have it open at this moment; collection leaves it alone for them.
	Processes []Process `json:"processes,omitempty"`
	// Others are the other reasons, such as containers and leases.
	Others []string `json:"others,omitempty"`
}

// Kept reports whether a collection would leave it alone.
func (w *Why) Kept() bool {
	return len(w.Images)+len(w.Processes)+len(w.Others) > 0
}

// liesIn reports whether it, or a layer that holds it, lies in an additional store.
func (w *Why) liesIn(root string) bool {
	return w.Store == root || slices.ContainsFunc(w.Layers, func(h Holder) bool { return h.Store == root })
}

// A Holder is a layer that holds the content of a file.
type Holder struct {
	Layer DiffID `json:"layer"`
	// Store is the root of the additional store that the layer lies in.
	Store string `json:"store,omitempty"`
	// Paths are some of the files, at the most 10.
	Paths []string `json:"paths,omitempty"`
}

// A Process has something open.
type Process struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
}

// Why says what keeps a layer, a manifest, a config, a compressed layer or the
// content of a file. What may be an image's name or ID, a DiffID, a digest, or an
// abbreviation of an ID or a DiffID. What the store itself does not have is looked for
// in its additional stores; for a layer that lies in one of those, both tell what keeps
// it. It returns an error that wraps fs.ErrNotExist when there is nothing of that digest.
func (s *Store) Why(ctx context.Context, what string) (*Why, error) {
	askers := []*asker{{st: s}}
	for _, st := range s.lowers() {
		askers = append(askers, &asker{st: st, root: st.Root()})
	}
	a, err := firstAnswer(ctx, askers, what)
	if err != nil {
		return nil, s.explainGone(err)
	}
	if err := a.finish(ctx); err != nil {
		return nil, err
	}
	for _, b := range askers {
		if a.root == "" && b.root != "" && a.out.liesIn(b.root) {
			if err := b.addTo(ctx, a.out); err != nil {
				return nil, err
			}
		}
	}
	return a.out, nil
}

// firstAnswer asks the stores in turn, first their indexes, then the layers, and
// returns the asker that got an answer.
func firstAnswer(ctx context.Context, askers []*asker, what string) (*asker, error) {
	for _, ask := range []func(*asker) error{
		func(a *asker) error { return a.inIndex(ctx, what) },
		func(a *asker) error { return a.content(ctx, what) },
	} {
		for _, a := range askers {
			err := ask(a)
			if err != nil && a.root != "" && !errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("additional store %s: %w", a.root, err)
			}
			if err != nil || a.out != nil {
				return a, err
			}
		}
	}
	err := fmt.Errorf("%q is no image, layer, blob or file content of the store: %w", what, fs.ErrNotExist)
	if gone := askers[0].gone; gone != nil {
		err = fmt.Errorf("%w (not searched: %w)", err, gone)
	}
	return nil, err
}

// An asker asks one store for the answer of one Why.
type asker struct {
	st     lower
	root   string // of an additional store
	out    *Why
	stack  []DiffID // what processes may have open
	layers []Holder // all of the store
	users  map[digest.Digest][]ImageRef
	gone   error // why a layer could not be searched
}

func (a *asker) inIndex(ctx context.Context, what string) error {
	return a.st.view(ctx, func(tx *index.Tx) error { return a.ask(tx, what) })
}

// finish adds what is not in the records of images.
func (a *asker) finish(ctx context.Context) error {
	if a.root != "" {
		a.out.Store = a.root
	}
	for _, d := range a.stack {
		for _, p := range holders(filepath.Join(a.st.base().layerDir(d), "tree")) {
			if !slices.Contains(a.out.Processes, p) {
				a.out.Processes = append(a.out.Processes, p)
			}
		}
	}
	return a.others(ctx)
}

// addTo adds what keeps a layer in its additional store to the answer of the store
// that has borrowed it.
func (a *asker) addTo(ctx context.Context, out *Why) error {
	err := a.inIndex(ctx, string(out.Digest))
	if err == nil && a.out == nil {
		err = a.content(ctx, string(out.Digest))
	}
	if err != nil || a.out == nil {
		return err
	}
	if err := a.finish(ctx); err != nil {
		return err
	}
	out.Images = append(out.Images, a.out.Images...)
	out.Processes = append(out.Processes, a.out.Processes...)
	out.Others = append(out.Others, a.out.Others...)
	return nil
}

// ask looks in the index.
func (a *asker) ask(tx *index.Tx, what string) error {
	a.out, a.stack, a.layers = nil, nil, nil
	refs, err := imageRefs(tx)
	if err != nil {
		return err
	}
	for id, r := range refs {
		r.Store = a.root
		refs[id] = r
	}
	a.users = map[digest.Digest][]ImageRef{}
	users, err := layerUsers(tx)
	if err != nil {
		return err
	}
	for d, ids := range users {
		for _, id := range ids {
			a.users[d] = append(a.users[d], refs[id])
		}
	}
	img, _, err := resolve(tx, what)
	switch {
	case err == nil:
		a.out = &Why{Digest: img.ID, Thing: ThingImage, Images: []ImageRef{refs[img.ID]}}
		for _, d := range img.Layers {
			a.stack = append(a.stack, DiffID(d))
		}
		return nil
	case !errors.Is(err, ErrImageUnknown) && !errors.Is(err, ErrInvalidName):
		return err
	}
	hex := strings.TrimPrefix(what, "sha256:")
	l, err := resolveLayer(tx, hex)
	if err == nil {
		a.layer(l, hex)
		return nil
	}
	if !errors.Is(err, index.ErrNotFound) {
		return err
	}
	if err := a.blob(tx, hex, refs); err != nil {
		return err
	}
	return tx.EachLayer(func(l index.Layer) error {
		a.layers = append(a.layers, Holder{Layer: DiffID(l.DiffID), Store: a.storeOf(l)})
		return nil
	})
}

// storeOf returns the additional store that a layer lies in, if in one.
func (a *asker) storeOf(l index.Layer) string {
	if l.Additional != "" {
		return l.Additional
	}
	return a.root
}

// layer answers for a layer or one of its compressed forms.
func (a *asker) layer(l index.Layer, hex string) {
	a.out = &Why{Digest: l.DiffID, Thing: ThingLayer, Store: a.storeOf(l), Images: a.users[l.DiffID]}
	a.stack = []DiffID{DiffID(l.DiffID)}
	for _, b := range l.Blobs {
		if b.Digest.Encoded() == hex && b.Digest != l.DiffID {
			a.out.Digest, a.out.Thing, a.out.Layers = b.Digest, ThingBlob, []Holder{{Layer: DiffID(l.DiffID), Store: a.storeOf(l)}}
		}
	}
}

// blob answers for a manifest of an image, or a file among the blobs that nothing
// names. A config is an image, and was found as one.
func (a *asker) blob(tx *index.Tx, hex string, refs map[digest.Digest]ImageRef) error {
	if len(hex) != 64 || !isHex(hex) {
		return nil
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, hex)
	found := &Why{Digest: d, Thing: ThingUnused}
	err := tx.EachImage(func(img index.Image) error {
		for _, m := range img.Manifests {
			if m.Descriptor.Digest == d {
				found.Thing = ThingManifest
				found.Images = append(found.Images, refs[img.ID])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if found.Thing == ThingUnused {
		f, err := a.st.base().blobs.OpenBlob(sumOf(d))
		if errors.Is(err, blob.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		f.Close()
	}
	a.out = found
	return nil
}

// content looks for the digest among the contents of files.
func (a *asker) content(ctx context.Context, what string) error {
	d, err := parseDigest("sha256:" + strings.TrimPrefix(what, "sha256:"))
	if err != nil {
		return fmt.Errorf("%q is no image, layer or digest of the store: %w", what, fs.ErrNotExist)
	}
	sum := sumOf(d)
	for _, h := range a.layers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.holder(h, sum); err != nil {
			return err
		}
	}
	if a.out == nil {
		return a.unused(ctx, d)
	}
	a.out.Digest, a.out.Store = d, a.out.Layers[0].Store
	if slices.ContainsFunc(a.out.Layers, func(h Holder) bool { return h.Store != a.out.Store }) {
		a.out.Store = ""
	}
	return nil
}

// holder looks for a content in one layer.
func (a *asker) holder(h Holder, sum tree.Sum) (err error) {
	l, err := a.st.OpenLayer(h.Layer)
	if errors.Is(err, ErrLayerUnknown) {
		return nil // removed since the index was read
	}
	if errors.Is(err, ErrStoreGone) {
		a.gone = err
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if _, ok, err := l.tree.BodyBySum(sum); err != nil || !ok {
		return treeError(err)
	}
	err = walkTree(l.tree, 0, "", func(path string, e tree.Dirent) error {
		if e.Kind != tree.KindRegular {
			return nil
		}
		b, ok, err := l.tree.Body(e.Ino)
		if err != nil || !ok || b.Sum != sum {
			return treeError(err)
		}
		h.Paths = append(h.Paths, "/"+path)
		if len(h.Paths) == maxCandidates {
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	if a.out == nil {
		a.out = &Why{Thing: ThingContent}
	}
	a.out.Layers = append(a.out.Layers, h)
	a.stack = append(a.stack, h.Layer)
	for _, ref := range a.users[digest.Digest(h.Layer)] {
		if !slices.ContainsFunc(a.out.Images, func(r ImageRef) bool { return r.ID == ref.ID }) {
			a.out.Images = append(a.out.Images, ref)
		}
	}
	return nil
}

// unused answers for a content that is in the store but in no layer.
func (a *asker) unused(ctx context.Context, d digest.Digest) error {
	return a.st.view(ctx, func(tx *index.Tx) error {
		_, ok, err := tx.Body(sumOf(d))
		if ok {
			a.out = &Why{Digest: d, Thing: ThingUnused}
		}
		return err
	})
}
