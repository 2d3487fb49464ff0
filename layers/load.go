package layers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerfs/layerfs/index"
)

// parallelLayers is how many layers of an image are read at once: inflating one
// layer keeps one core busy, hashing and writing it the better part of another.
const parallelLayers = 2

// Load brings the image of src into the store and returns it when all of it is on
// disk. Layers and bodies that the store has are not stored again; an image that
// it has only gets the names. After an error the store is as it was.
//
// It returns ErrVerification when content does not match its digest, ErrInvalidImage
// and ErrInvalidLayer for what is no image, ErrTooLarge above o.MaxBytes.
func (s *Store) Load(ctx context.Context, src Source, o *LoadOptions) (*Image, error) {
	if o == nil {
		o = &LoadOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	names, err := normalizeAll(o.Names)
	if err != nil {
		return nil, err
	}
	in, err := s.readImage(ctx, src)
	if err != nil {
		return nil, err
	}
	in.rawIndexes = o.Indexes
	for range loadAttempts {
		if err = s.loadImage(ctx, src, in, names, o); !errors.Is(err, errLayerGone) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return s.Image(ctx, string(in.id))
}

// loadAttempts is how often a load begins again when a layer that it found in the
// store was removed by somebody else before the image was complete.
const loadAttempts = 5

var errLayerGone = errors.New("was removed while the image was loaded; load it again")

func (s *Store) loadImage(ctx context.Context, src Source, in *incoming, names []string, o *LoadOptions) (err error) {
	lease, err := s.NewLease(ctx, "load")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	if err := lease.holdIncoming(in); err != nil {
		return err
	}
	read := s.importLayers
	if in.artifact != "" {
		read = s.importArtifact
	}
	if err := read(ctx, src, in, lease, o); err != nil {
		return err
	}
	return s.publishImage(ctx, in, names)
}

// holdIncoming holds the layers and the documents of an image. It counts from the
// next transaction on.
func (l *Lease) holdIncoming(in *incoming) error {
	blobs := []digest.Digest{in.manifest.Config.Digest, in.desc.Digest}
	for _, d := range in.manifest.Layers {
		blobs = append(blobs, d.Digest)
	}
	for _, raw := range in.rawIndexes {
		blobs = append(blobs, digest.FromBytes(raw))
	}
	return errors.Join(l.holdLayers(in.diffIDs), l.holdBlobs(blobs...))
}

func normalizeAll(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		n, err := NormalizeName(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// An incoming image has been described by its source, and the description has been
// verified; its layers have not been read.
type incoming struct {
	id          digest.Digest
	desc        ocispec.Descriptor
	rawManifest []byte
	rawConfig   []byte
	rawIndexes  [][]byte
	manifest    ocispec.Manifest
	config      config
	diffIDs     []DiffID
	layers      []index.Layer          // the records of layers that are new, filled by the import
	borrowed    map[DiffID]index.Layer // those that additional stores have

	// keep says that the layers' compressed blobs shall be in the store afterwards; kept
	// are the sizes of those that the import has put there.
	keep bool
	kept map[digest.Digest]int64

	artifact string // what kind of artifact this is, "" for an image
}

func (s *Store) readImage(ctx context.Context, src Source) (*incoming, error) {
	raw, desc, err := src.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	got := digest.FromBytes(raw)
	if desc.Digest != "" && got != desc.Digest {
		return nil, fmt.Errorf("%w: manifest %s has the digest %s; the source is corrupt or was tampered with",
			ErrVerification, desc.Digest, got)
	}
	desc.Digest, desc.Size = got, int64(len(raw))
	m, err := parseManifest(raw, desc)
	if err != nil {
		return nil, err
	}
	if desc.MediaType == "" {
		desc.MediaType = m.MediaType
	}
	cfg, err := document(ctx, src, m.Config)
	if err != nil {
		return nil, err
	}
	if isArtifact(m) {
		return &incoming{id: got, artifact: artifactType(m), desc: desc, rawManifest: raw, rawConfig: cfg, manifest: m}, nil
	}
	c, ids, err := parseConfig(cfg, m)
	if err != nil {
		return nil, err
	}
	return &incoming{
		id: m.Config.Digest, desc: desc, rawManifest: raw, rawConfig: cfg,
		manifest: m, config: c, diffIDs: ids,
	}, nil
}

// importLayers reads the layers and blobs that the store does not have and puts
// them in place, not yet visible.
func (s *Store) importLayers(ctx context.Context, src Source, in *incoming, lease *Lease, o *LoadOptions) (err error) {
	in.keep = !o.DropBlobs
	todo, err := s.missing(ctx, in, o)
	if err != nil {
		return err
	}
	damaged, err := s.damaged(ctx, in, todo)
	if err != nil {
		return err
	}
	if todo = withDamaged(in, todo, damaged); len(todo) == 0 {
		return nil
	}
	if a, ok := src.(Announced); ok {
		a.Announce(in.blobs(todo))
	}
	im, err := s.newImport(lease, o.MaxBytes, in.keep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.close(err)) }()
	if err := im.healsAll(damaged); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLayers)
	staged := make([]*stagedLayer, len(in.diffIDs))
	for _, t := range todo {
		g.Go(func() error {
			if gctx.Err() != nil {
				return gctx.Err()
			}
			p := progress(o.Progress, in, t.place)
			if t.onlyBlob {
				return im.readBlob(gctx, src, in.manifest.Layers[t.place], in.diffIDs[t.place], p)
			}
			l := &stagedLayer{diffID: in.diffIDs[t.place], desc: in.manifest.Layers[t.place]}
			if what, ok := damaged[l.diffID]; ok {
				l.bodiesOnly = !what.tables
			}
			if err := im.read(gctx, src, l, p); err != nil {
				l.close()
				return fmt.Errorf("layer %s: %w", l.diffID, err)
			}
			staged[t.place] = l
			return nil
		})
	}
	defer func() {
		for _, l := range staged {
			l.close()
		}
	}()
	if err := g.Wait(); err != nil {
		return err
	}
	if in.layers, err = im.publish(ctx, in, staged); err != nil {
		return err
	}
	if im.healing != nil {
		if err := s.finishHealing(ctx, im.healing, in.layers); err != nil {
			return err
		}
	}
	in.kept, err = im.publishBlobs()
	return err
}

// blobs returns the descriptors of layers.
func (in *incoming) blobs(todo []task) []ocispec.Descriptor {
	out := make([]ocispec.Descriptor, len(todo))
	for i, t := range todo {
		out[i] = in.manifest.Layers[t.place]
	}
	return out
}

// A task is a layer that has to be read.
type task struct {
	place    int  // in the stack
	onlyBlob bool // the store has the layer, but not the compressed form
}

// missing returns what has to be read, each DiffID and each compressed form once.
func (s *Store) missing(ctx context.Context, in *incoming, o *LoadOptions) ([]task, error) {
	var todo []task
	var err error
	if in.borrowed, err = s.borrowable(ctx, in.diffIDs); err != nil {
		return nil, err
	}
	err = s.view(ctx, func(tx *index.Tx) error {
		todo = todo[:0]
		blobs := map[digest.Digest]bool{}
		for i, d := range in.diffIDs {
			l, err := tx.Layer(digest.Digest(d))
			if err != nil && !errors.Is(err, index.ErrNotFound) {
				return err
			}
			_, lent := in.borrowed[d]
			known := lent || err == nil && l.Additional == "" || slices.Index(in.diffIDs, d) != i
			blob := in.manifest.Layers[i].Digest
			wanted := in.keep && !lent && blob != digest.Digest(d) && !blobs[blob]
			if known && wanted {
				if wanted, err = s.lacksForm(tx, blob, d); err != nil {
					return err
				}
			}
			blobs[blob] = true
			switch {
			case !known || wanted:
				todo = append(todo, task{place: i, onlyBlob: known})
			case slices.Index(in.diffIDs, d) == i:
				progress(o.Progress, in, i).done(true)
			}
		}
		return nil
	})
	return todo, err
}

// publishImage makes the image visible: blobs first, then one transaction with
// its layers, its record and its names.
func (s *Store) publishImage(ctx context.Context, in *incoming, names []string) error {
	for _, raw := range append([][]byte{in.rawConfig, in.rawManifest}, in.rawIndexes...) {
		if _, err := s.blobs.PutBlob(raw); err != nil {
			return err
		}
	}
	return s.index.Update(ctx, "load", func(tx *index.Tx) error {
		if err := putLayers(tx, in); err != nil {
			return err
		}
		if err := putImage(tx, in); err != nil {
			return err
		}
		for _, name := range names {
			if err := setName(tx, name, in.id, in.desc); err != nil {
				return err
			}
		}
		return nil
	})
}

// putLayers adds the new layers, and to the known ones the form that they came in.
func putLayers(tx *index.Tx, in *incoming) error {
	for _, l := range in.layers {
		old, err := tx.Layer(l.DiffID)
		if err == nil && old.Additional == "" {
			continue // another process was faster; what we made is the same
		}
		if err == nil {
			l.Slot, l.Blobs = old.Slot, old.Blobs // no longer borrowed
		} else if l.Slot, err = tx.NextLayerSlot(); err != nil {
			return err
		}
		if err := tx.PutLayer(l); err != nil {
			return err
		}
	}
	if err := putBorrowed(tx, in.diffIDs, in.borrowed); err != nil {
		return err
	}
	for i, d := range in.diffIDs {
		l, err := tx.Layer(digest.Digest(d))
		if errors.Is(err, index.ErrNotFound) {
			return fmt.Errorf("layer %s %w", d, errLayerGone)
		}
		if err != nil {
			return err
		}
		if err := putForm(tx, in, &l, in.manifest.Layers[i]); err != nil {
			return err
		}
	}
	return nil
}

func layerBlob(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// setName points name to the image; a new slot makes the kernel forget what it
// knew of the old one.
func setName(tx *index.Tx, name string, id digest.Digest, manifest ocispec.Descriptor) error {
	old, err := tx.Name(name)
	if err == nil && old.Image == id && old.Manifest.Digest == manifest.Digest {
		return nil
	}
	if err != nil && !errors.Is(err, index.ErrNotFound) {
		return err
	}
	slot, err := tx.NextViewSlot()
	if err != nil {
		return err
	}
	return tx.PutName(index.Name{Name: name, Image: id, Manifest: manifest, Slot: slot, Created: time.Now().UTC().Round(0)})
}

// A progressor reports the progress of one layer; its zero value reports nothing.
type progressor struct {
	fn   func(Progress)
	p    Progress
	read atomic.Int64
}

func progress(fn func(Progress), in *incoming, i int) *progressor {
	p := &progressor{fn: fn, p: Progress{Index: i, Count: len(in.manifest.Layers), Total: in.manifest.Layers[i].Size}}
	if in.artifact == "" {
		p.p.Layer = in.diffIDs[i]
	}
	return p
}

func (p *progressor) add(n int) {
	if p.fn != nil && n > 0 {
		q := p.p
		q.Read = p.read.Add(int64(n))
		p.fn(q)
	}
}

func (p *progressor) done(known bool) {
	if p.fn != nil {
		q := p.p
		q.Read, q.Done, q.Known = p.read.Load(), true, known
		p.fn(q)
	}
}
