package blob

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/layerfs/layerfs/internal/spool"
)

// registerChunk is the number of bodies that are registered in one call.
const registerChunk = 4096

// Placed is a body that Commit has published.
type Placed struct {
	Sum   Sum
	Size  int64
	Place Place
}

// Register puts bodies into the index, in one transaction. The bodies of all
// calls together are sorted by Sum, at most 4096 a call. The answer says for
// each whether this place is now the registered one; when it is not, the index
// had another, and this copy is given up. It must keep nothing of bodies.
type Register func(bodies []Placed) (kept []bool, err error)

// staged is a body of the ingest with the number of its staged object, or 0.
type staged struct {
	body   Placed
	object uint64
}

// Commit publishes the bodies that were put and has them registered. It is the
// one place that fixes the order of durability:
//
//	close    the pack
//	sync     the pack and all staged objects
//	mkdir    shards of objects/ that are missing
//	rename   pack and objects to their final names
//	syncdir  the directories of these names
//	register the places, in the index
//	remove   copies that lost against another import's
//
// Nil means that every body that was put is in the store and registered, here
// or by somebody else. On an error before register nothing is known to the
// index; files that already have their final name are complete, and the
// collector's. An error of register may leave some bodies registered, which is
// no harm. Commit releases the ingest also when it fails, and removes what is
// still staged; without writers or after a failed write it fails.
func (in *Ingest) Commit(register Register) error {
	if err := in.begin(); err != nil {
		return err
	}
	published, err := in.commit(register)
	if !published {
		err = errors.Join(err, in.removeStaged())
	}
	return errors.Join(err, in.release())
}

// commit does the steps that Commit describes. It reports whether nothing is
// staged any more.
func (in *Ingest) commit(register Register) (published bool, err error) {
	bodies, err := in.sorted()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, bodies.Close()) }()
	if bodies.Len() == 0 {
		return true, nil
	}
	if err := in.closePack(); err != nil {
		return false, err
	}
	if err := in.sync.Files(in.stagedFiles(bodies)); err != nil {
		return false, err
	}
	if err := in.makeShards(bodies); err != nil {
		return false, err
	}
	if err := in.publish(bodies); err != nil {
		return false, err
	}
	if err := in.sync.Dirs(in.changedDirs(bodies)); err != nil {
		return true, in.unpublish(err)
	}
	// From here on errors are reported but nothing is undone, because the index
	// may name the files.
	lost, err := in.register(bodies, register)
	if err != nil {
		return true, err
	}
	return true, in.dropLost(lost)
}

// begin checks that the ingest can be committed and marks it as used.
func (in *Ingest) begin() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.done {
		return errUsed
	}
	if in.writers > 0 {
		return fmt.Errorf("ingest: %d writers are not closed", in.writers)
	}
	in.done = true
	return nil
}

// sorted returns the bodies in the order of their digests, and the error that
// makes a commit impossible. The caller closes the array.
func (in *Ingest) sorted() (*spool.Array[staged], error) {
	if in.err != nil {
		return nil, in.err
	}
	bodies := spool.NewArray[staged](in.sync.Dir())
	var err error
	in.claims.Each(func(sum Sum, c *claim) bool {
		b := staged{body: Placed{Sum: sum, Size: c.size}, object: c.object}
		if c.object == 0 {
			b.body.Place = Place{Pack: in.packID, Offset: c.offset}
		}
		_, err = bodies.Append(b)
		return err == nil
	})
	if err != nil {
		return nil, errors.Join(err, bodies.Close())
	}
	slices.SortFunc(bodies.Slice(), func(a, b staged) int { return bytes.Compare(a.body.Sum[:], b.body.Sum[:]) })
	return bodies, nil
}

// stagedFiles are the files that are to be published.
func (in *Ingest) stagedFiles(bodies *spool.Array[staged]) iter.Seq[string] {
	return func(yield func(string) bool) {
		if in.packMade && !yield(in.stagedPack()) {
			return
		}
		for i := range bodies.Slice() {
			if b := bodies.At(i); b.object != 0 && !yield(in.stagedObject(b.object)) {
				return
			}
		}
	}
}

// shards are the directories that the objects go to.
func (in *Ingest) shards(bodies *spool.Array[staged]) iter.Seq[string] {
	return func(yield func(string) bool) {
		last := -1
		for i := range bodies.Slice() {
			b := bodies.At(i)
			if b.object == 0 || int(b.body.Sum[0]) == last {
				continue
			}
			last = int(b.body.Sum[0])
			if !yield(shardPath(in.store.objectsDir(), b.body.Sum[0])) {
				return
			}
		}
	}
}

// makeShards makes the shards that are missing.
func (in *Ingest) makeShards(bodies *spool.Array[staged]) error {
	for shard := range in.shards(bodies) {
		if err := in.store.disk.MkdirAll(shard, dirMode); err != nil {
			return err
		}
	}
	return nil
}

// publish gives the staged files their final names. An object that is there
// already is replaced by the same bytes.
func (in *Ingest) publish(bodies *spool.Array[staged]) error {
	if in.packMade {
		if err := in.store.disk.Rename(in.stagedPack(), in.store.packPath(in.packID)); err != nil {
			return err
		}
	}
	for i := range bodies.Slice() {
		b := bodies.At(i)
		if b.object == 0 {
			continue
		}
		if err := in.store.disk.Rename(in.stagedObject(b.object), in.store.objectPath(b.body.Sum)); err != nil {
			return in.unpublish(err)
		}
		in.store.objects.forget(b.body.Sum) // the one that was replaced
	}
	return nil
}

// unpublish removes the pack, whose name nobody knows yet. Objects stay: another
// import may have published the same ones a moment ago.
func (in *Ingest) unpublish(err error) error {
	if !in.packMade {
		return err
	}
	return errors.Join(err, in.store.remove(in.store.packPath(in.packID)))
}

// changedDirs are the directories that have got new names. Objects is one also
// when no shard is new here: another process may have made one a moment ago.
func (in *Ingest) changedDirs(bodies *spool.Array[staged]) iter.Seq[string] {
	return func(yield func(string) bool) {
		if in.packMade && !yield(in.store.packsDir()) {
			return
		}
		if in.objects == 0 {
			return
		}
		if !yield(in.store.objectsDir()) {
			return
		}
		in.shards(bodies)(yield)
	}
}

// lost is what Commit gives up.
type lost struct {
	ranges     *spool.Array[Range] // of the pack
	keptInPack bool                // something in the pack is registered
}

// register has the bodies registered and returns what lost. The caller closes
// the ranges.
func (in *Ingest) register(bodies *spool.Array[staged], register Register) (*lost, error) {
	l := &lost{ranges: spool.NewArray[Range](in.sync.Dir())}
	chunk := make([]Placed, 0, min(bodies.Len(), registerChunk))
	for i := range bodies.Slice() {
		chunk = append(chunk, bodies.At(i).body)
		if len(chunk) < registerChunk && i < bodies.Len()-1 {
			continue
		}
		kept, err := register(chunk)
		if err == nil && len(kept) != len(chunk) {
			err = fmt.Errorf("index: %d answers for %d bodies", len(kept), len(chunk))
		}
		if err == nil {
			err = in.note(l, chunk, kept)
		}
		if err != nil {
			return nil, errors.Join(err, l.ranges.Close())
		}
		chunk = chunk[:0]
	}
	return l, nil
}

// note keeps the account of what was registered. A lost object has the same
// file as the one that won.
func (in *Ingest) note(l *lost, chunk []Placed, kept []bool) error {
	for i, b := range chunk {
		if kept[i] {
			l.keptInPack = l.keptInPack || b.Place.Pack != 0
			continue
		}
		in.unclaim(b.Size)
		if b.Place.Pack == 0 {
			continue
		}
		if _, err := l.ranges.Append(Range{b.Place.Offset, b.Size}); err != nil {
			return err
		}
	}
	return nil
}

// dropLost gives back the space of what lost. When that fails the import is
// still good, and the collector does it later; a pack that is gone already was
// the collector's.
func (in *Ingest) dropLost(l *lost) error {
	if in.packMade && l.ranges.Len() > 0 {
		if l.keptInPack {
			_, _ = in.store.PunchPack(in.packID, l.ranges.Slice())
		} else {
			_ = in.store.RemovePack(in.packID)
		}
	}
	return l.ranges.Close()
}
