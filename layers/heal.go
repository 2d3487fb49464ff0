package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
)

// This file makes layers whole again from their tars, whoever gives them: a load
// of the image, a kept blob, an archive that a repair was given. The tar goes
// through the pipeline of an import; only what is damaged is kept of it, and put to
// where it was, because the trees of other layers and running mounts know the place.

// A damage is what is wrong with one layer.
type damage struct {
	tables bool              // its tree or its split metadata
	bodies map[blob.Sum]bool // contents of files
	blob   bool              // the compressed form that it is loaded from
}

func (d damage) layer() bool { return d.tables || len(d.bodies) > 0 }

// suspect looks for damage of a layer without reading it all: what has the size that
// it should have, and was not written since the layer was made, is believed, and the
// rest is verified. It finds what editors, tools and lost files do, not what a disk
// does by itself; that is the business of Check.
func (s *Store) suspect(ctx context.Context, d DiffID) (damage, error) {
	var rec index.Layer
	err := s.view(ctx, func(tx *index.Tx) (err error) {
		rec, err = tx.Layer(digest.Digest(d))
		return err
	})
	if err != nil {
		return damage{}, err
	}
	out := damage{bodies: map[blob.Sum]bool{}}
	l, err := s.openOwn(d)
	if err != nil {
		if errors.Is(err, ErrDamaged) || errors.Is(err, ErrLayerUnknown) {
			out.tables = true
			return out, nil
		}
		return damage{}, err
	}
	defer l.Close()
	if !s.tablesUntouched(d, rec) {
		tar, err := l.Tar()
		if err == nil {
			err = tar.Verify()
		}
		if out.tables = err != nil || l.tree.Verify() != nil; out.tables {
			return out, nil
		}
	}
	return out, s.suspectBodies(ctx, l, rec, out.bodies)
}

// tablesUntouched reports whether the files of a layer are as they were made.
func (s *Store) tablesUntouched(d DiffID, rec index.Layer) bool {
	var sum int64
	for _, name := range []string{"tree", "split.zst"} {
		info, err := os.Stat(filepath.Join(s.layerDir(d), name))
		if err != nil || info.ModTime().After(rec.Created) {
			return false
		}
		sum += info.Size()
	}
	return sum == rec.MetaBytes
}

// suspectBodies adds the damaged bodies of a layer.
func (s *Store) suspectBodies(ctx context.Context, l *Layer, rec index.Layer, bad map[blob.Sum]bool) error {
	v := s.blobs.NewBodyVerifier()
	defer v.Close()
	packs := map[blob.PackID]os.FileInfo{}
	for _, id := range l.tree.Packs() {
		packs[blob.PackID(id)], _ = os.Stat(s.blobs.PackPath(blob.PackID(id)))
	}
	return l.tree.EachBody(func(b tree.Body) error {
		p := blob.Placed{Sum: b.Sum, Size: b.Size, Place: place(b)}
		info, end := packs[p.Place.Pack], p.Place.Offset+p.Size
		if p.Place.Pack == 0 {
			info, _ = os.Stat(s.blobs.ObjectPath(p.Sum))
			end = p.Size
		}
		switch {
		case l.bad[p.Sum]:
			bad[p.Sum] = v.Verify(p) != nil
		case info == nil || info.Size() < end:
			bad[p.Sum] = true
		case info.ModTime().After(rec.Created) && v.Verify(p) != nil:
			bad[p.Sum] = true
		}
		if !bad[p.Sum] {
			delete(bad, p.Sum)
		}
		return ctx.Err()
	})
}

// A healing is an import that puts damaged bodies back to their places.
type healing struct {
	*importer
	bad    map[blob.Sum]bool // bodies that the store has not, whatever the index says
	healed map[blob.Sum]bool
	packs  map[blob.PackID]bool // that were written to
}

// heals makes an import a healing one.
func (im *importer) heals(bad map[blob.Sum]bool) (*healing, error) {
	h := &healing{importer: im, bad: bad, healed: map[blob.Sum]bool{}, packs: map[blob.PackID]bool{}}
	if err := im.ingest.Abort(); err != nil { // it has no writers yet
		return nil, err
	}
	var err error
	if im.ingest, err = im.s.blobs.NewIngest(im.temp.path, h.known); err != nil {
		return nil, err
	}
	im.healing = h
	return h, im.lease.holdPack(im.ingest.PackID())
}

// known tells the ingest which bodies the store has in good order.
func (h *healing) known(sums []blob.Sum) ([]bool, error) {
	found, err := h.knownBodies(sums)
	for i, sum := range sums {
		if err == nil && h.bad[sum] {
			found[i] = false
		}
	}
	return found, err
}

// register records bodies that the index does not know and copies the others from
// their new place to their old one, where they are damaged. The new copy is given up
// then.
func (h *healing) register(placed []blob.Placed) ([]bool, error) {
	kept := make([]bool, len(placed))
	var fresh []blob.Placed
	var places []int
	for i, p := range placed {
		var old index.Body
		var ok bool
		err := h.s.view(context.Background(), func(tx *index.Tx) (err error) {
			old, ok, err = tx.Body(p.Sum)
			return err
		})
		if err != nil {
			return nil, err
		}
		if !ok || !h.bad[p.Sum] {
			fresh, places = append(fresh, p), append(places, i)
			continue
		}
		if kept[i], err = h.putBack(p, old); err != nil {
			return nil, err
		}
	}
	registered, err := h.importer.register(fresh)
	for i, at := range places {
		if err == nil {
			kept[at] = registered[i]
		}
	}
	if err != nil {
		return nil, err
	}
	return kept, h.sync()
}

// putBack mends a body in its old place; it reports whether the new copy is the one.
func (h *healing) putBack(p blob.Placed, old index.Body) (kept bool, err error) {
	h.healed[p.Sum] = true
	if p.Place.Pack == 0 && old.Pack == 0 {
		h.s.blobs.ForgetObject(p.Sum) // the file has been replaced
		return true, nil
	}
	data := make([]byte, p.Size)
	if _, err := h.s.blobs.BodyAt(p.Sum, p.Size, p.Place, data, 0); err != nil {
		return false, err
	}
	was := blob.Placed{Sum: p.Sum, Size: p.Size, Place: blob.Place{Pack: blob.PackID(old.Pack), Offset: old.Offset}}
	if was.Place.Pack == 0 {
		return true, nil
	}
	h.packs[was.Place.Pack] = true
	return false, h.s.blobs.ReplacePacked(was, data)
}

// sync makes what was put back durable.
func (h *healing) sync() error {
	for id := range h.packs {
		if err := h.s.blobs.SyncPack(id); err != nil {
			return err
		}
		h.s.blobs.Forget(id)
		delete(h.packs, id)
	}
	return nil
}

// replace puts a finished layer in place.
func (im *importer) replace(l *stagedLayer) error {
	if im.healing == nil {
		return im.place(l)
	}
	return im.replaceTables(l)
}

// replaceTables puts a new tree and new split metadata to where damaged ones are.
// The tree's file stays the same one when there is one: a mount that has it mapped
// sees the right table at once, and its lock keeps holding the layer. Whoever dies
// here leaves what was there before: a damaged tree.
func (im *importer) replaceTables(l *stagedLayer) error {
	final := im.s.layerDir(l.diffID)
	old, err := os.OpenFile(filepath.Join(final, "tree"), os.O_RDWR, 0)
	if err != nil {
		return im.place(l) // nobody can have it open
	}
	defer old.Close()
	fresh, err := os.Open(filepath.Join(l.dir, "tree"))
	if err != nil {
		return err
	}
	defer fresh.Close()
	n, err := io.Copy(io.NewOffsetWriter(old, 0), fresh)
	if err == nil {
		err = old.Truncate(n)
	}
	if err == nil {
		err = old.Sync()
	}
	if err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	if err := im.s.disk.Rename(filepath.Join(l.dir, "split.zst"), filepath.Join(final, "split.zst")); err != nil {
		return err
	}
	return im.s.disk.SyncDir(final)
}

// healLayer makes a layer whole again from its tar. below is the stack that it lies
// on, for its hard links.
func (s *Store) healLayer(ctx context.Context, d DiffID, below []DiffID, what damage, tar func() (io.ReadCloser, error)) (err error) {
	lease, err := s.NewLease(ctx, "repair")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lease.Close()) }()
	im, err := s.newImport(lease, 0, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.close(err)) }()
	h, err := im.heals(what.bodies)
	if err != nil {
		return err
	}
	r, err := tar()
	if err != nil {
		return err
	}
	l := &stagedLayer{diffID: d, bodiesOnly: !what.tables}
	defer l.close()
	err = im.split(l, &ctxReader{ctx, r})
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	// The layer itself is the last of the stack that publish is told about.
	in := &incoming{diffIDs: append(append([]DiffID{}, below...), d)}
	staged := make([]*stagedLayer, len(in.diffIDs))
	staged[len(below)] = l
	records, err := im.publish(ctx, in, staged)
	if err != nil {
		return err
	}
	return s.finishHealing(ctx, h, records)
}

// finishHealing takes what is whole again out of quarantine.
func (s *Store) finishHealing(ctx context.Context, h *healing, records []index.Layer) error {
	if err := s.changeBadList(nil, h.healed); err != nil {
		return err
	}
	for _, rec := range records {
		if err := s.releaseLayer(DiffID(rec.DiffID)); err != nil {
			return err
		}
	}
	return s.recordSizes(ctx, records)
}

// recordSizes records how long the tables of layers are now, which may have been
// written by another layerfs before.
func (s *Store) recordSizes(ctx context.Context, records []index.Layer) error {
	var changed []index.Layer
	err := s.view(ctx, func(tx *index.Tx) error {
		changed = changed[:0]
		for _, rec := range records {
			if old, err := tx.Layer(rec.DiffID); err == nil && old.MetaBytes != rec.MetaBytes {
				old.MetaBytes = rec.MetaBytes
				changed = append(changed, old)
			}
		}
		return nil
	})
	if err != nil || len(changed) == 0 {
		return err
	}
	return s.index.Update(ctx, "repair", func(tx *index.Tx) error {
		for _, rec := range changed {
			if err := tx.PutLayer(rec); err != nil {
				return err
			}
		}
		return nil
	})
}

// damaged returns the damage of those layers of an image that the store has.
func (s *Store) damaged(ctx context.Context, in *incoming, todo []task) (map[DiffID]damage, error) {
	out := map[DiffID]damage{}
	for i, d := range in.diffIDs {
		isNew := func(t task) bool { return !t.onlyBlob && in.diffIDs[t.place] == d }
		if _, lent := in.borrowed[d]; lent || slices.Index(in.diffIDs, d) != i || slices.ContainsFunc(todo, isNew) {
			continue
		}
		what, err := s.suspect(ctx, d)
		if errors.Is(err, index.ErrNotFound) {
			continue // removed since; the load begins again
		}
		if err != nil {
			return nil, err
		}
		what.blob = in.keep && s.suspectForm(ctx, d, in.manifest.Layers[i].Digest)
		if what.layer() || what.blob {
			out[d] = what
		}
	}
	return out, nil
}

// suspectForm reports whether the kept blob of a layer is damaged, as suspect does.
func (s *Store) suspectForm(ctx context.Context, d DiffID, form digest.Digest) bool {
	var rec index.Layer
	var f index.Form
	err := s.view(ctx, func(tx *index.Tx) (err error) {
		if rec, err = tx.Layer(digest.Digest(d)); err != nil {
			return err
		}
		f, err = tx.Form(sumOf(form))
		return err
	})
	if err != nil || f.How != index.FormKept {
		return false
	}
	info, err := os.Stat(s.blobs.BlobPath(sumOf(form)))
	if err != nil || !info.ModTime().After(rec.Created) {
		return err != nil
	}
	return s.blobs.VerifyBlob(sumOf(form)) != nil
}

// withDamaged adds the damaged layers to what has to be read.
func withDamaged(in *incoming, todo []task, damaged map[DiffID]damage) []task {
	for i, d := range in.diffIDs {
		what, ok := damaged[d]
		if !ok || slices.Index(in.diffIDs, d) != i {
			continue
		}
		at := slices.IndexFunc(todo, func(t task) bool { return in.diffIDs[t.place] == d })
		if at < 0 {
			todo = append(todo, task{place: i, onlyBlob: !what.layer()})
		} else if what.layer() {
			todo[at].onlyBlob = false
		}
	}
	return todo
}

// healsAll makes the import a healing one when there is anything to heal: damage of
// the layers that it reads, or bodies that are known to be damaged.
func (im *importer) healsAll(damaged map[DiffID]damage) error {
	bad := map[blob.Sum]bool{}
	maps.Copy(bad, im.s.damagedBodies())
	for _, what := range damaged {
		maps.Copy(bad, what.bodies)
	}
	if len(damaged) == 0 && len(bad) == 0 {
		return nil
	}
	_, err := im.heals(bad)
	return err
}
