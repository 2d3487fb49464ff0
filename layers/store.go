package layers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/disk"
)

// Options change how a store is opened. The zero value, and a nil *Options, mean
// the defaults.
type Options struct {
	// ReadOnly opens the store without the right to change anything; it must exist.
	ReadOnly bool
	// Repair opens also a store whose format file is damaged, for Check and Repair.
	Repair bool
	// Timeout is how long a lock is waited for before ErrBusy; 0 means
	// index.DefaultTimeout.
	Timeout time.Duration
	// RunRoot is a directory for what is not to outlive the next boot, such as the
	// temporary directories of containers; without it there are none.
	RunRoot string
	// Additional are the roots of stores that are read besides this one, in the order
	// in which they are searched. They are never changed. One that is not there is
	// left out, see Store.Additional, and used as soon as it appears.
	Additional []string
	// KeepLock, if set, is told of each lock that is held for as long as a layer or a
	// container is used, by a name of it, so that somebody can hold it, too, should this
	// process die; -1 says that it was given up.
	KeepLock func(name string, fd int)
	// LeftLocks are locks of containers that another process has left, by the ID of the
	// container. LockContainer takes them over.
	LeftLocks map[string]*os.File
	// Disk is the way to the disk; nil means the disk itself. Tests put faults here.
	Disk *disk.Disk
	// Boot identifies the present boot of the machine; without it the kernel is asked.
	// Tests of power failures boot here.
	Boot string
}

// A Store is an open store. Its methods may be called from any number of
// goroutines, and any number of processes may have the same store open.
type Store struct {
	root     string
	readOnly bool
	timeout  time.Duration
	runRoot  string
	locks    heldLocks
	disk     *disk.Disk
	index    *indexes
	blobs    *blob.Store

	additional []*additional
	slots      slotBook    // of what is in additional stores
	graph      *graphStore // in whose graph root the bodies are; nil for most stores

	bad badList

	mu   sync.Mutex // guards open
	open map[DiffID]*Layer
}

// directories that every store has, besides those of package blob.
var directories = []string{"layers", "containers", "cache", "leases", "tmp"}

// Open opens the store in the directory root and makes it when there is none. It
// returns ErrNotStore for a directory that holds other things, ErrNewer for a
// store that it does not understand. Leftovers of killed processes are removed.
func Open(root string, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", root, err)
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = index.DefaultTimeout
	}
	s := &Store{
		root: root, readOnly: o.ReadOnly, timeout: timeout, runRoot: o.RunRoot, disk: o.Disk, locks: heldLocks{keep: o.KeepLock, left: o.LeftLocks},
		open: map[DiffID]*Layer{},
	}
	s.index = &indexes{index.New(filepath.Join(root, "index.db"), timeout), s}
	if o.ReadOnly {
		s.index.DB = index.NewReadOnly(s.index.Path(), timeout)
	}
	s.index.SetBoot(o.Boot)
	for _, dir := range o.Additional {
		s.additional = append(s.additional, &additional{root: filepath.Clean(dir), s: s})
	}
	err = useFormat(root, o.ReadOnly, o.Repair)
	if errors.Is(err, fs.ErrNotExist) && !o.ReadOnly {
		if err = s.create(); err == nil {
			err = useFormat(root, o.ReadOnly, o.Repair)
		}
	}
	if err == nil {
		err = s.indexLost()
	}
	if err != nil && !(o.Repair && errors.Is(err, ErrDamaged)) {
		return nil, s.openError(err)
	}
	if s.blobs, err = blob.Open(root, o.Disk); err != nil {
		return nil, fmt.Errorf("store %s: %w", root, err)
	}
	if !o.ReadOnly {
		s.sweepTemp()
	}
	return s, nil
}

func (s *Store) openError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no store at %s", ErrNotStore, s.root)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("store %s: %w; it belongs to somebody else: choose another with --root or LAYERFS_ROOT", s.root, err)
	}
	return fmt.Errorf("store %s: %w", s.root, err)
}

// create makes an empty store. It refuses a directory with foreign content, so
// that a mistyped --root does not spread a store over somebody's home.
func (s *Store) create() error {
	if err := s.makeRoot(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !ownName(e.Name()) {
			return fmt.Errorf("%w: %s holds other files (%s) and no format file; name an empty directory", ErrNotStore, s.root, e.Name())
		}
	}
	for _, dir := range directories {
		if err := s.disk.MkdirAll(filepath.Join(s.root, dir), 0o700); err != nil {
			return err
		}
	}
	if _, err := blob.Create(s.root, s.disk); err != nil {
		return err
	}
	return writeFormat(s.disk, s.root)
}

// makeRoot makes the directory of the store, and the way to it durable: a store whose
// own name is lost with the power is lost with all that was acknowledged.
func (s *Store) makeRoot() error {
	var made []string // directories that get a new name
	for dir := s.root; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, filepath.Dir(dir))
	}
	if err := s.disk.MkdirAll(s.root, 0o700); err != nil {
		return err
	}
	for _, dir := range made {
		// A directory that may be written but not read cannot be synced.
		if err := s.disk.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// ownName tells the names that a creation may have left behind when it was killed,
// or that another process is making at this moment.
func ownName(name string) bool {
	switch name {
	case "layers", "containers", "leases", "tmp", "blobs", "objects", "packs", "format", "format.copy", "index.db", "index.db.lock", "index.journal", "quarantine", "cache", "gc.lock", "gc.pending", "squeeze.lock", "lost+found":
		return true
	}
	return filepath.Ext(name) == ".tmp" || len(name) > 0 && name[0] == '.'
}

// Root returns the directory of the store.
func (s *Store) Root() string { return s.root }

// ReadOnly reports whether the store was opened read-only.
func (s *Store) ReadOnly() bool { return s.readOnly }

// Close releases what the store holds. Layers that are still open stay usable
// until they are closed.
func (s *Store) Close() error {
	err := s.blobs.Close()
	for _, a := range s.additional {
		err = errors.Join(err, a.close())
	}
	return err
}

func (s *Store) writable() error {
	if s.readOnly {
		return fmt.Errorf("%w: %s", ErrReadOnly, s.root)
	}
	return nil
}

func (s *Store) layerDir(d DiffID) string { return filepath.Join(s.root, "layers", d.Hex()) }
