package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// CompactMin is how many bytes of free pages an index must have to be worth a
// rewrite; they must also be at least half of it.
const CompactMin = 1 << 20

// compactTx is how many bytes of the copy are written in one transaction.
const compactTx = 4 << 20

// Compact rewrites the index without its free pages, if it has so many that they
// are at least half of the file and minFree bytes; bbolt itself never gives space
// back. It returns by how much the file shrank. Readers go on meanwhile and are kept
// out only for the moments of looking and of the rename; writers wait.
func (db *DB) Compact(ctx context.Context, minFree int64) (freed int64, err error) {
	w, err := db.lockWriter(ctx, "compaction of the index")
	if err != nil {
		return 0, err
	}
	defer w.f.Close()
	db.sweep()
	before, worth, err := db.worthCompacting(w, minFree)
	if err != nil || !worth {
		return 0, err
	}
	if err := w.flock(unix.LOCK_SH); err != nil { // lets readers in again
		return 0, err
	}
	copied := db.path + ".compact.tmp"
	defer func() { _ = os.Remove(copied) }() // renamed, or of no use
	if err := db.copyTo(ctx, copied); err != nil {
		return 0, fmt.Errorf("compaction of the index: %w", err)
	}
	after, err := os.Stat(copied)
	if err != nil {
		return 0, err
	}
	if err := w.excludeReaders(); err != nil {
		return 0, err
	}
	if err := os.Rename(copied, db.path); err != nil {
		return 0, err
	}
	return before - after.Size(), syncDir(filepath.Dir(db.path))
}

// sweep removes what killed writers have left. Preconditions: nobody else writes.
func (db *DB) sweep() {
	for _, path := range []string{db.path + ".compact.tmp", db.path + ".rebuild.tmp", db.journalPath() + ".tmp"} {
		_ = os.Remove(path) // mostly it is not there
	}
}

// worthCompacting returns the size of the file and whether enough of it is free.
// bbolt counts its free pages only for a writer.
func (db *DB) worthCompacting(w *waiter, minFree int64) (size int64, worth bool, err error) {
	info, err := os.Stat(db.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil || info.Size() < minFree {
		return 0, false, err
	}
	if err := w.excludeReaders(); err != nil {
		return 0, false, err
	}
	var free int64
	err = db.use(&bolt.Options{FreelistType: bolt.FreelistMapType}, func(b *bolt.DB) error {
		tx, err := b.Begin(true)
		if err != nil {
			return err
		}
		if err := tx.Rollback(); err != nil {
			return err
		}
		st := b.Stats()
		free = int64(st.FreePageN+st.PendingPageN) * int64(b.Info().PageSize)
		return nil
	})
	return info.Size(), free >= minFree && free >= info.Size()/2, err
}

// copyTo writes a copy without free pages and syncs it.
func (db *DB) copyTo(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what a killed compaction has left
	}
	return db.use(&bolt.Options{ReadOnly: true}, func(src *bolt.DB) (err error) {
		dst, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
		if err != nil {
			return err
		}
		defer func() {
			if cerr := dst.Close(); err == nil {
				err = cerr
			}
		}()
		if err := bolt.Compact(dst, src, compactTx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return dst.Sync()
	})
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	return f.Sync()
}
