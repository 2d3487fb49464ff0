package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/layers/graphroot"
)

// refresh makes the records those of the lists of the graph root, if these have
// changed.
func (g *graphStore) refresh() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	mark, err := g.root.Mark()
	if err != nil || mark == g.mark {
		return err
	}
	records, err := g.root.Read()
	if err != nil {
		return err
	}
	ctx := context.Background()
	want := g.want(records)
	removed := false
	if g.savedMark() != mark {
		if removed, err = g.record(ctx, want); err != nil {
			return err
		}
	}
	g.mark, g.places, g.unusable = mark, want.places, want.unusable
	if removed {
		_, _ = g.tryCollect(ctx) // what stays is removed the next time
	}
	_ = os.WriteFile(g.markPath(), []byte(mark), 0o600) // without it the records are compared again
	return nil
}

// record puts the documents of a picture into the cache and then its records into the
// index. It reports whether records were removed.
func (g *graphStore) record(ctx context.Context, want *graphPicture) (removed bool, err error) {
	lease, err := g.NewLease(ctx, "graph root")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	for _, doc := range want.documents {
		if err := lease.holdBlobs(digest.FromBytes(doc)); err != nil {
			return false, err
		}
	}
	if err := g.index.Settle(ctx); err != nil {
		return false, err
	}
	for _, doc := range want.documents {
		if _, err := g.blobs.PutBlob(doc); err != nil {
			return false, err
		}
	}
	err = g.index.Update(ctx, "graph root", func(tx *index.Tx) (err error) {
		removed, err = want.apply(tx)
		return err
	})
	return removed, err
}

func (g *graphStore) markPath() string { return filepath.Join(g.Store.root, ".graphroot") }

func (g *graphStore) savedMark() string {
	raw, err := os.ReadFile(g.markPath())
	if err != nil {
		return ""
	}
	return string(raw)
}

// A graphPicture is what the records are to be.
type graphPicture struct {
	images    map[digest.Digest]index.Image
	names     map[string]index.Name
	layers    map[digest.Digest]index.Layer
	places    map[DiffID][]graphroot.Layer
	documents [][]byte // manifests and configs
	unusable  []string
}

// want makes the picture of the lists.
func (g *graphStore) want(records *graphroot.Records) *graphPicture {
	p := &graphPicture{
		images: map[digest.Digest]index.Image{}, names: map[string]index.Name{},
		layers: map[digest.Digest]index.Layer{}, places: map[DiffID][]graphroot.Layer{},
	}
	for _, l := range records.Layers {
		p.places[DiffID(l.DiffID)] = append(p.places[DiffID(l.DiffID)], l)
	}
	for _, list := range p.places { // always in the same order
		slices.SortFunc(list, func(a, b graphroot.Layer) int { return strings.Compare(a.ID, b.ID) })
	}
	for _, img := range records.Images {
		if err := g.wantImage(p, records, img); err != nil {
			name := img.ID
			if len(img.Names) > 0 {
				name = img.Names[0]
			}
			p.unusable = append(p.unusable, fmt.Sprintf("image %s of %s is left out: %v", name, g.Root(), err))
		}
	}
	return p
}

// wantImage adds one image with its names and layers.
func (g *graphStore) wantImage(p *graphPicture, records *graphroot.Records, img graphroot.Image) error {
	stack, err := records.Stack(img.Layer)
	if err != nil {
		return err
	}
	rec, first, docs, err := graphRecord(g.root, img, stack)
	if err != nil {
		return err
	}
	p.documents = append(p.documents, docs...)
	for i, l := range stack {
		p.layers[l.DiffID] = layerRecord(l, rec.Manifests[0].Layers[i].MediaType)
	}
	p.images[rec.ID] = rec
	for _, name := range img.Names {
		if normal, err := NormalizeName(name); err == nil {
			p.names[normal] = index.Name{Name: normal, Image: rec.ID, Manifest: first, Created: rec.Loaded}
		}
	}
	return nil
}

// graphRecord makes the record of an image of a graph root from its documents, which
// it returns too.
func graphRecord(root *graphroot.Root, img graphroot.Image, stack []graphroot.Layer) (rec index.Image, first ocispec.Descriptor, docs [][]byte, err error) {
	raw, err := root.Document(img.ID, "manifest")
	if err != nil {
		return rec, first, nil, err
	}
	first = ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	m, err := parseManifest(raw, first)
	if err != nil {
		return rec, first, nil, err
	}
	if first.MediaType = m.MediaType; first.MediaType == "" {
		first.MediaType = ocispec.MediaTypeImageManifest
	}
	cfg, err := root.Document(img.ID, string(m.Config.Digest))
	if err != nil {
		return rec, first, nil, err
	}
	if got := digest.FromBytes(cfg); got != m.Config.Digest {
		return rec, first, nil, fmt.Errorf("%w: config %s has the digest %s", ErrVerification, m.Config.Digest, got)
	}
	c, ids, err := parseConfig(cfg, m)
	if err != nil {
		return rec, first, nil, err
	}
	if !slices.EqualFunc(ids, stack, func(d DiffID, l graphroot.Layer) bool { return string(d) == string(l.DiffID) }) {
		return rec, first, nil, fmt.Errorf("%w: its layers are not those of its config", ErrInvalidImage)
	}
	rec = index.Image{
		ID: m.Config.Digest, Config: m.Config, Platform: c.Platform, Created: c.Created, Loaded: img.Created.UTC().Round(0),
		Manifests: []index.Manifest{{Descriptor: first, Layers: m.Layers}},
	}
	for _, l := range stack {
		rec.Layers = append(rec.Layers, l.DiffID)
	}
	return rec, first, [][]byte{raw, cfg}, nil
}

// layerRecord makes the record of a layer that has not been opened yet: of its size
// only that of its tar is known.
func layerRecord(l graphroot.Layer, mediaType string) index.Layer {
	rec := index.Layer{DiffID: l.DiffID, Size: l.Size, Bytes: l.Size, Created: l.Created.UTC().Round(0)}
	if _, err := parseDigest(string(l.CompressedDigest)); err == nil && l.CompressedDigest != l.DiffID {
		rec.Blobs = []ocispec.Descriptor{{MediaType: mediaType, Digest: l.CompressedDigest, Size: l.CompressedSize}}
	}
	return rec
}

// apply makes the records of the index those of the picture; what is as it was stays
// untouched. It reports whether something was removed.
func (p *graphPicture) apply(tx *index.Tx) (removed bool, err error) {
	if removed, err = p.removeOthers(tx); err != nil {
		return removed, err
	}
	for _, l := range p.layers {
		if _, err := tx.Layer(l.DiffID); err == nil {
			continue
		}
		if l.Slot, err = tx.NextLayerSlot(); err != nil {
			return removed, err
		}
		if err := tx.PutLayer(l); err != nil {
			return removed, err
		}
		for _, b := range l.Blobs {
			f := index.Form{Layer: sumOf(l.DiffID), Size: b.Size, How: index.FormGone}
			if err := tx.PutForm(sumOf(b.Digest), f); err != nil {
				return removed, err
			}
		}
	}
	for _, img := range p.images {
		old, err := tx.Image(img.ID)
		if err == nil && old.Manifests[0].Descriptor.Digest == img.Manifests[0].Descriptor.Digest {
			continue
		}
		img.Slot = old.Slot
		if err != nil {
			if img.Slot, err = tx.NextViewSlot(); err != nil {
				return removed, err
			}
		}
		if err := tx.PutImage(img); err != nil {
			return removed, err
		}
	}
	for _, n := range p.names {
		if err := setName(tx, n.Name, n.Image, n.Manifest); err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// removeOthers removes the records that are not in the picture.
func (p *graphPicture) removeOthers(tx *index.Tx) (bool, error) {
	var names []string
	var images, layers []digest.Digest
	err := tx.EachRawName(func(n index.Raw) error {
		if _, ok := p.names[n.Key]; !ok {
			names = append(names, n.Key)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	err = tx.EachRawImage(func(img index.Raw) error {
		if _, ok := p.images[img.Digest()]; !ok {
			images = append(images, img.Digest())
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	err = tx.EachRawLayer(func(l index.Raw) error {
		if _, ok := p.layers[l.Digest()]; !ok {
			layers = append(layers, l.Digest())
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if err := tx.DeleteName(name); err != nil {
			return false, err
		}
	}
	for _, id := range images {
		if err := tx.DeleteImage(id); err != nil {
			return false, err
		}
	}
	for _, d := range layers {
		if err := tx.DeleteLayer(d); err != nil {
			return false, err
		}
	}
	return len(images)+len(layers) > 0, nil
}

// describe completes the record of a layer whose table has been made.
func (g *graphStore) describe(ctx context.Context, made index.Layer) error {
	return g.index.Update(ctx, "graph root", func(tx *index.Tx) error {
		old, err := tx.Layer(made.DiffID)
		if err != nil {
			return err
		}
		made.Slot, made.Created, made.Blobs = old.Slot, old.Created.Round(time.Nanosecond), old.Blobs
		return tx.PutLayer(made)
	})
}
