package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Version is the schema version that this package reads and writes.
const Version = 1

// DefaultTimeout is how long a transaction waits for the lock before ErrBusy.
const DefaultTimeout = 30 * time.Second

// A DB is the index of one store. It holds no file open between transactions and
// may be used by any number of goroutines.
type DB struct {
	path     string
	timeout  time.Duration
	readOnly bool
	boot     string
}

// New returns the index at path, which need not exist: reading an absent index is
// reading an empty one, and the first Update makes it. A timeout of 0 means
// DefaultTimeout.
func New(path string, timeout time.Duration) *DB {
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	return &DB{path: path, timeout: timeout}
}

// NewReadOnly returns the index at path for somebody who must not leave a trace
// there, not even a lock file. It can only be read.
func NewReadOnly(path string, timeout time.Duration) *DB {
	db := New(path, timeout)
	db.readOnly = true
	return db
}

// SetBoot says in which boot of the machine the index is used; without it, or with "",
// the kernel is asked. It is called before the index is used.
func (db *DB) SetBoot(id string) { db.boot = id }

// bootID identifies the present boot; it is "" where nobody knows.
func (db *DB) bootID() string {
	if db.boot != "" {
		return db.boot
	}
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// Path returns the path of index.db.
func (db *DB) Path() string { return db.path }

// View calls fn with a read-only transaction that sees the newest committed
// state. Nothing that fn got from the transaction may be kept after it returns,
// except the records, which are copies.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	release, err := db.lockShared(ctx)
	if err != nil {
		return err
	}
	defer release()
	return db.read(fn)
}

// Exclude calls fn with a read-only transaction while nobody else reads or writes
// the index. It is for those who must know that what the index says stays so until
// they have changed a few names in the store; it is as short as an Update.
func (db *DB) Exclude(ctx context.Context, purpose string, fn func(*Tx) error) error {
	release, err := db.lockExclusive(ctx, purpose)
	if err != nil {
		return err
	}
	defer release()
	return db.read(fn)
}

// Settle returns when every Update and Exclude that was going on has ended. Who
// writes down what he needs, and then settles, is seen by all later ones.
func (db *DB) Settle(ctx context.Context) error {
	release, err := db.lockShared(ctx)
	if err == nil {
		release()
	}
	return err
}

// read requires the lock.
func (db *DB) read(fn func(*Tx) error) error {
	if info, err := os.Lstat(db.path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		if err := db.refuseOlder(&Tx{}); err != nil {
			return err
		}
		return fn(&Tx{})
	}
	return db.use(&bolt.Options{ReadOnly: true}, func(b *bolt.DB) error {
		return b.View(func(tx *bolt.Tx) error {
			root, err := rootOf(tx)
			if err == nil && root == nil {
				err = db.refuseOlder(&Tx{})
			}
			if err != nil {
				return err
			}
			return fn(&Tx{root: root})
		})
	})
}

// Update calls fn with a read-write transaction and commits when fn returns nil;
// otherwise nothing has changed. The purpose, such as "load", is told to those who
// wait. Update returns after the commit has reached the disk.
func (db *DB) Update(ctx context.Context, purpose string, fn func(*Tx) error) error {
	release, err := db.lockExclusive(ctx, purpose)
	if err != nil {
		return err
	}
	defer release()
	_, err = os.Lstat(db.path)
	fresh := errors.Is(err, fs.ErrNotExist)
	return db.use(&bolt.Options{FreelistType: bolt.FreelistMapType}, func(b *bolt.DB) error {
		if fresh {
			// What follows relies on the index, so its name must not be lost with the power.
			if err := syncDir(filepath.Dir(db.path)); err != nil {
				return fmt.Errorf("index: %w", err)
			}
		}
		t := &Tx{}
		err := commit(b, t, func(tx *Tx) error {
			if err := db.refuseOlder(tx); err != nil {
				return err
			}
			return fn(tx)
		})
		if err != nil {
			return err
		}
		db.record(b, t)
		return nil
	})
}

// commit commits what fn does.
func commit(b *bolt.DB, t *Tx, fn func(*Tx) error) error {
	return b.Update(func(tx *bolt.Tx) (err error) {
		if t.root, err = createRoot(tx); err != nil {
			return err
		}
		if err := fn(t); err != nil {
			return err
		}
		if err := t.addBodyStats(); err != nil {
			return err
		}
		return t.bumpGeneration()
	})
}

func (db *DB) openError(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%w: %s is locked by another program", ErrBusy, db.path)
	case errors.Is(err, os.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("index: %w", err)
	case isOSError(err):
		return fmt.Errorf("index: %w", err)
	}
	return fmt.Errorf("%w: %s: %w; run `layerfs check --repair`", ErrDamaged, db.path, err)
}

func isOSError(err error) bool {
	var pe *fs.PathError
	var se *os.SyscallError
	return errors.As(err, &pe) || errors.As(err, &se)
}

var versionKey = []byte("v" + strconv.Itoa(Version))

// rootOf finds the version bucket. A file without any is an index that was being
// created when its writer died; it is empty.
func rootOf(tx *bolt.Tx) (*bolt.Bucket, error) {
	if err := refuseNewer(tx); err != nil {
		return nil, err
	}
	return tx.Bucket(versionKey), nil
}

func createRoot(tx *bolt.Tx) (*bolt.Bucket, error) {
	if err := refuseNewer(tx); err != nil {
		return nil, err
	}
	root, err := tx.CreateBucketIfNotExists(versionKey)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	for _, name := range [][]byte{
		bucketMeta, bucketNames, bucketImages, bucketLayers, bucketBodies, bucketContainers, bucketContainerNames,
		bucketLayerRecords, bucketLayerNames, bucketData, bucketForms,
	} {
		if _, err := root.CreateBucketIfNotExists(name); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
	}
	return root, nil
}

func refuseNewer(tx *bolt.Tx) error {
	return tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		v, ok := strings.CutPrefix(string(name), "v")
		if n, err := strconv.Atoi(v); ok && err == nil && n > Version {
			return fmt.Errorf("%w: schema %d, but this layerfs knows only up to %d; use a newer layerfs for this store",
				ErrNewer, n, Version)
		}
		return nil
	})
}
