package layers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
)

// RepairOptions change how a store is repaired; nil means the defaults.
type RepairOptions struct {
	// From are images that may have what is damaged.
	From []Source
	// Progress is called as by Check.
	Progress func(done, total int64)
}

// Repair checks the store and makes good what is damaged: the format file; the
// index, from its journal and the files of the layers; trees, from the split
// metadata; everything else from kept blobs, additional stores and o.From. What
// cannot be made good is put aside or marked, so that reading it is an error and all
// the rest goes on working. Mounts and commands may go on meanwhile; collections
// wait.
//
// The report says of each problem what became of it. Only those that are not
// StateRepaired are left.
func (s *Store) Repair(ctx context.Context, o *RepairOptions) (*CheckReport, error) {
	if o == nil {
		o = &RepairOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	release, err := s.lockGC(ctx, s.timeout)
	if err != nil {
		return nil, err
	}
	defer release()
	r := &repairer{s: s, o: o}
	if err := r.formatAndIndex(ctx); err != nil {
		return nil, err
	}
	first, err := r.check(ctx)
	if err != nil {
		return nil, err
	}
	if len(first.report.Problems) == 0 {
		return r.done(first, first)
	}
	if r.from, err = s.openFrom(ctx, o.From); err != nil {
		return nil, err
	}
	if err := r.mend(ctx, first); err != nil {
		return nil, err
	}
	second, err := r.check(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.putAside(ctx, second); err != nil {
		return nil, err
	}
	return r.done(first, second)
}

// A repairer is one repair.
type repairer struct {
	s    *Store
	o    *RepairOptions
	from *donors
	made []Problem // what was repaired before the first check
}

func (r *repairer) check(ctx context.Context) (*checker, error) {
	c := &checker{s: r.s, o: CheckOptions{Progress: r.o.Progress}, bad: map[blob.Sum]badBody{}}
	return c, c.run(ctx)
}

// formatAndIndex repairs what must be right before anything else can be looked at.
func (r *repairer) formatAndIndex(ctx context.Context) error {
	if err := checkFormat(r.s.root); err != nil {
		if err := r.s.copyAside("format"); err != nil {
			return err
		}
		if err := repairFormat(r.s.disk, r.s.root); err != nil {
			return err
		}
		r.made = append(r.made, Problem{What: "format", Why: err.Error(), Images: []ImageRef{}, State: StateRepaired})
	}
	problems, err := r.s.index.DB.Verify(ctx)
	if lost := r.s.indexLost(); lost != nil {
		problems = append(problems, lost)
	}
	if err == nil && len(problems) == 0 {
		err = r.s.view(ctx, func(tx *index.Tx) error { return r.s.readable(tx) })
		if errors.Is(err, ErrDamaged) || errors.Is(err, index.ErrDamaged) {
			problems, err = []error{err}, nil
		}
	}
	if err != nil {
		return err
	}
	if len(problems) == 0 {
		return r.journal(ctx)
	}
	if !slices.ContainsFunc(problems, func(p error) bool { return !errors.Is(p, index.ErrJournal) }) {
		for _, p := range problems {
			r.made = append(r.made, Problem{What: "index", Why: p.Error(), Images: []ImageRef{}, State: StateRepaired})
		}
		return r.s.index.DB.WriteJournal(ctx)
	}
	what, err := r.s.rebuildIndex(ctx)
	if err != nil {
		return err
	}
	for _, p := range problems {
		r.made = append(r.made, Problem{What: "index", Why: p.Error(), Images: []ImageRef{}, State: StateRepaired})
	}
	if !what.Whole {
		why := fmt.Sprintf("it was rebuilt from what was left: %d records, %d lost; names and containers of the lost ones are to be made again", what.Records, what.Lost)
		r.made = append(r.made, Problem{What: "index", Why: why, Images: []ImageRef{}, State: StateRepaired})
	}
	return nil
}

// journal writes the journal when it is missing.
func (r *repairer) journal(ctx context.Context) error {
	if _, err := os.Lstat(r.s.index.Path()); err != nil || r.s.index.DB.HasJournal() {
		return nil // an empty store has neither
	}
	return r.s.index.DB.WriteJournal(ctx)
}

// readable decodes every record.
func (s *Store) readable(tx *index.Tx) error {
	return errors.Join(
		tx.EachLayer(func(index.Layer) error { return nil }), tx.EachImage(func(index.Image) error { return nil }),
		tx.EachName(func(index.Name) error { return nil }), tx.EachContainer(func(index.Container) error { return nil }))
}

// copyAside keeps a copy of a file that is about to be replaced.
func (s *Store) copyAside(name string) error {
	raw, err := os.ReadFile(filepath.Join(s.root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	to, err := s.aside(name)
	if err != nil {
		return err
	}
	return s.disk.WriteFile(to, raw, 0o600)
}

// mend tries to make good each problem.
func (r *repairer) mend(ctx context.Context, c *checker) error {
	if err := r.places(ctx, c); err != nil {
		return err
	}
	for _, d := range c.damagedLayers() {
		if err := r.layer(ctx, c, d); err != nil {
			return err
		}
	}
	for _, p := range c.report.Problems {
		var err error
		switch {
		case p.part == partBlob:
			err = r.from.document(r.s, p.blob)
		case p.part == partForm:
			err = r.form(ctx, p)
		case p.part == partContainer:
			err = r.s.remakeContainerDir(ctx, p.container)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// places gives bodies in the index the places that the trees have, when they lie
// there.
func (r *repairer) places(ctx context.Context, c *checker) error {
	for _, p := range c.report.Problems {
		if p.part != partPlace {
			continue
		}
		if _, bad := c.bad[p.body.Sum]; bad {
			continue // it is mended where the tree says
		}
		err := r.s.index.DB.Update(ctx, "repair", func(tx *index.Tx) error {
			if err := tx.DeleteBody(p.body.Sum); err != nil {
				return err
			}
			_, err := tx.AddBody(p.body.Sum, index.Body{Pack: uint64(p.body.Place.Pack), Offset: p.body.Place.Offset, Size: p.body.Size})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// damagedLayers lists the layers with damage, those that lie lower first: hard
// links of the upper ones lead into them.
func (c *checker) damagedLayers() []DiffID {
	depth := map[DiffID]int{}
	for _, p := range c.report.Problems {
		if p.layer != "" && (p.part == partTree || p.part == partSplit || p.part == partBody) {
			depth[p.layer] = len(c.below(p.layer))
		}
	}
	list := slices.Collect(maps.Keys(depth))
	slices.SortFunc(list, func(a, b DiffID) int { return cmp.Or(cmp.Compare(depth[a], depth[b]), cmp.Compare(a, b)) })
	return list
}

// below returns the layers below a layer in one of the images that have it.
func (c *checker) below(d DiffID) []DiffID {
	for _, img := range c.images {
		if at := slices.Index(img.Layers, digest.Digest(d)); at >= 0 {
			return (&Image{Image: img}).DiffIDs()[:at]
		}
	}
	return nil
}

// layer tries all that may have the tar of a damaged layer.
func (r *repairer) layer(ctx context.Context, c *checker, d DiffID) error {
	what := damage{bodies: map[blob.Sum]bool{}}
	for _, p := range c.report.Problems {
		if p.layer != d {
			continue
		}
		what.tables = what.tables || p.part == partTree || p.part == partSplit
		if p.part == partBody {
			what.bodies[p.body.Sum] = true
		}
	}
	for _, tar := range r.tars(ctx, d, what) {
		err := r.s.healLayer(ctx, d, c.below(d), what, tar)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if isDiskFull(err) {
			return err
		}
	}
	return nil // the next check says what is left
}

// form brings a compressed layer back, or gives it up: the layer itself is there.
func (r *repairer) form(ctx context.Context, p Problem) error {
	if ok, err := r.from.restoreForm(ctx, r.s, p.blob); ok || err != nil {
		return err
	}
	return r.s.index.DB.Update(ctx, "repair", func(tx *index.Tx) error {
		f, err := tx.Form(sumOf(p.blob))
		if errors.Is(err, index.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		f.How, f.Stored = index.FormGone, 0
		return tx.PutForm(sumOf(p.blob), f)
	})
}

// putAside deals with what could not be mended.
func (r *repairer) putAside(ctx context.Context, c *checker) error {
	bad := map[blob.Sum]bool{}
	for sum := range c.bad {
		bad[sum] = true
	}
	good := map[blob.Sum]bool{}
	for sum := range r.s.damagedBodies() {
		if !bad[sum] {
			good[sum] = true // mended, or nobody needs it any more
		}
	}
	if err := r.s.changeBadList(bad, good); err != nil {
		return err
	}
	for i := range c.report.Problems {
		p := &c.report.Problems[i]
		p.State = StateLeft
		var err error
		switch p.part {
		case partBody:
			p.State = StateQuarantined
		case partTree:
			p.State = StateQuarantined
			if !r.s.isQuarantined(p.layer) {
				err = r.s.quarantineLayer(p.layer)
			}
		case partBlob:
			p.State = StateQuarantined
			err = r.s.quarantineBlob(sumOf(p.blob))
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// remakeContainerDir gives a container whose directory is lost an empty one.
func (s *Store) remakeContainerDir(ctx context.Context, id string) error {
	var c Container
	err := s.view(ctx, func(tx *index.Tx) (err error) {
		c.Container, err = tx.Container(id)
		return err
	})
	if errors.Is(err, index.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	aside, err := s.aside("container-" + id)
	if err != nil {
		return err
	}
	if err := s.disk.Rename(s.containerDir(id), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	staged, err := s.stageContainer(&c)
	if err != nil {
		return err
	}
	staged.lock.Close()
	return nil
}

// quarantineBlob moves a damaged blob aside, if there is one.
func (s *Store) quarantineBlob(sum blob.Sum) error {
	to, err := s.aside(fmt.Sprintf("blob-%x", sum))
	if err != nil {
		return err
	}
	err = s.disk.Rename(s.blobs.BlobPath(sum), to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// done puts the report together: what the second check did not find any more was
// repaired.
func (r *repairer) done(first, second *checker) (*CheckReport, error) {
	type key struct {
		what, path string
		part       part
		blob       digest.Digest
	}
	keyOf := func(p Problem) key { return key{p.What, p.Path, p.part, p.blob} }
	left := map[key]bool{}
	for _, p := range second.report.Problems {
		left[keyOf(p)] = true
	}
	out := second.report
	out.Problems = slices.Clone(r.made)
	if first != second {
		for _, p := range first.report.Problems {
			if !left[keyOf(p)] {
				p.State = StateRepaired
				out.Problems = append(out.Problems, p)
			}
		}
	}
	out.Problems = append(out.Problems, second.report.Problems...)
	return &out, nil
}
