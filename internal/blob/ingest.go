package blob

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/layerfs/layerfs/internal/disk"
	"github.com/layerfs/layerfs/internal/spool"
)

// Known asks the index which bodies it has places for. The answer has one
// element for each sum. The sums are in no order and may repeat. It is called
// from all writers at once, and must keep nothing of sums.
type Known func(sums []Sum) (found []bool, err error)

// Ingest is one import of bodies: many writers, then Commit or Abort, then
// nothing else. Its files are staged in the importer's directory.
type Ingest struct {
	store  *Store
	known  Known
	prefix string // of staged files: unique in the directory
	sync   *disk.Syncer
	pack   func() (*disk.File, error) // creates it at the first call

	mu       sync.Mutex
	claims   *spool.Map[claim] // the bodies that this ingest writes or has written
	packID   PackID
	packSize int64 // bytes promised to writers
	packMade bool
	objects  uint64 // numbers given to staged objects
	writers  int    // that are not closed
	err      error  // the first one that makes a commit impossible
	done     bool   // Commit or Abort was called
	stats    stats

	packClosed bool // touched by Commit and Abort only
}

// claim is a body of this ingest: in the pack at offset, or a staged object
// when object is not 0.
type claim struct {
	size   int64
	offset int64
	object uint64
}

// stats counts what an ingest was given.
type stats struct{ newBodies, newBytes, reusedBodies, reusedBytes int64 }

// errUsed is returned when something is done with an ingest after its Commit or
// Abort.
var errUsed = errors.New("ingest: already committed or aborted")

// NewIngest begins an import that stages files in dir, which must be in the
// same file system as the store, and asks known (nil: nothing is known) what
// need not be stored. Only an ingest that stores something makes files. The
// caller calls Commit or Abort; Abort after Commit does nothing.
func (s *Store) NewIngest(dir string, known Known) (*Ingest, error) {
	syncer, err := s.disk.OpenSyncer(dir)
	if err != nil {
		return nil, err
	}
	in := &Ingest{
		store:  s,
		known:  known,
		sync:   syncer,
		packID: newPackID(),
		claims: spool.NewMap[claim](dir),
	}
	in.prefix = filepath.Join(dir, in.packID.String())
	in.pack = sync.OnceValues(in.createPack)
	return in, nil
}

// PackID returns the name of the pack that the ingest puts small bodies in.
func (in *Ingest) PackID() PackID { return in.packID }

// newPackID returns a random name.
func newPackID() PackID {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if id := PackID(binary.LittleEndian.Uint64(b[:])); id != 0 {
			return id
		}
	}
}

func (in *Ingest) stagedPack() string { return in.prefix + ".pack" }
func (in *Ingest) stagedObject(n uint64) string {
	return fmt.Sprintf("%s.object-%d", in.prefix, n)
}

// createPack is what in.pack calls once.
func (in *Ingest) createPack() (*disk.File, error) {
	f, err := in.store.disk.Create(in.stagedPack(), fileMode)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.packMade = err == nil
	return f, err
}

// fail makes Commit return err, unless an earlier error already does, and
// returns err.
func (in *Ingest) fail(err error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		in.err = err
	}
	return err
}

// ask asks the index.
func (in *Ingest) ask(sums []Sum) ([]bool, error) {
	if in.known == nil {
		return make([]bool, len(sums)), nil
	}
	found, err := in.known(sums)
	if err == nil && len(found) != len(sums) {
		err = fmt.Errorf("index: %d answers for %d bodies", len(found), len(sums))
	}
	return found, err
}

// reuseClaimed counts a body as reused when this ingest has it.
func (in *Ingest) reuseClaimed(sum Sum, size int64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.reuseClaimedLocked(sum, size)
}

// reuseClaimedLocked is reuseClaimed.
//
// Preconditions: in.mu is held.
func (in *Ingest) reuseClaimedLocked(sum Sum, size int64) bool {
	if _, ok := in.claims.Get(sum); !ok {
		return false
	}
	in.reuseLocked(size)
	return true
}

// reuse counts a body that need not be stored.
func (in *Ingest) reuse(size int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reuseLocked(size)
}

// reuseLocked is reuse.
//
// Preconditions: in.mu is held.
func (in *Ingest) reuseLocked(size int64) {
	in.stats.reusedBodies++
	in.stats.reusedBytes += size
}

// claimLocked notes that the caller stores the body. From here on an error must
// be reported to fail, because other writers rely on the claim.
//
// Preconditions: in.mu is held; sum is not claimed.
func (in *Ingest) claimLocked(sum Sum, c claim) error {
	if err := in.claims.Put(sum, c); err != nil {
		if in.err == nil {
			in.err = err
		}
		return err
	}
	in.stats.newBodies++
	in.stats.newBytes += c.size
	return nil
}

// unclaim counts a body as reused that was counted as new.
func (in *Ingest) unclaim(size int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stats.newBodies--
	in.stats.newBytes -= size
	in.reuseLocked(size)
}

// claimObject notes that the caller stores the body as staged object n. It
// reports false when another writer of this ingest does or did.
func (in *Ingest) claimObject(sum Sum, size int64, n uint64) (bool, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.reuseClaimedLocked(sum, size) {
		return false, nil
	}
	return true, in.claimLocked(sum, claim{size: size, object: n})
}

// nextObject returns a fresh number for a staged object.
func (in *Ingest) nextObject() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.objects++
	return in.objects
}

// Stats returns how many bodies and bytes this ingest stores, and how many of
// those that it was given it need not store: because the index has them, or
// because they came twice. After Commit, bodies that another import registered
// first count as reused.
func (in *Ingest) Stats() (newBodies, newBytes, reusedBodies, reusedBytes int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	st := in.stats
	return st.newBodies, st.newBytes, st.reusedBodies, st.reusedBytes
}

// Abort ends an ingest and removes what it has staged. What Commit had already
// published stays for the collector. After Commit or Abort it does nothing.
//
// Preconditions: no writer is in a call.
func (in *Ingest) Abort() error {
	in.mu.Lock()
	used := in.done
	in.done = true
	in.mu.Unlock()
	if used {
		return nil
	}
	return errors.Join(in.release(), in.removeStaged())
}

// release gives back what the ingest holds besides files.
func (in *Ingest) release() error {
	return errors.Join(in.sync.Close(), in.claims.Close(), in.closePack())
}

// closePack closes the pack if there is one. A second call does nothing.
func (in *Ingest) closePack() error {
	if !in.packMade || in.packClosed {
		return nil
	}
	in.packClosed = true
	f, _ := in.pack()
	return f.Close()
}

// removeStaged removes the staged files that are left.
func (in *Ingest) removeStaged() error {
	var errs []error
	if in.packMade {
		errs = append(errs, in.store.remove(in.stagedPack()))
	}
	for n := uint64(1); n <= in.objects; n++ {
		if err := in.store.remove(in.stagedObject(n)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
