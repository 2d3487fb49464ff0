package layers

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/flock"
)

// A tempDir is a directory below tmp/ that is flocked while its owner lives.
type tempDir struct {
	path string
	lock *os.File
	s    *Store
}

// newTemp makes and locks a directory whose name begins with what. A sweeper may
// remove the directory between its creation and its locking; then another is made.
func (s *Store) newTemp(what string) (*tempDir, error) {
	for range 100 {
		var id [8]byte
		rand.Read(id[:]) // never fails (crypto/rand)
		path := filepath.Join(s.root, "tmp", what+"-"+hex.EncodeToString(id[:]))
		if err := s.disk.Mkdir(path, 0o700); err != nil {
			return nil, fmt.Errorf("temporary directory: %w", err)
		}
		lock, ok := lockDir(path)
		if ok {
			return &tempDir{path: path, lock: lock, s: s}, nil
		}
	}
	return nil, fmt.Errorf("temporary directory: another process removes it again and again below %s", s.root)
}

func (t *tempDir) remove() error {
	err := t.s.disk.RemoveAll(t.path)
	t.lock.Close()
	return err
}

// lockDir locks the directory and reports whether it is still where it was: only
// then is the lock worth anything.
func lockDir(path string) (*os.File, bool) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	if !flock.TryAt(f, path) {
		f.Close()
		return nil, false
	}
	return f, true
}

// sweepTemp removes what dead processes left below tmp/. It does what it can: a
// leftover that cannot be removed now does no harm and is tried again next time.
func (s *Store) sweepTemp() {
	dir := filepath.Join(s.root, "tmp")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if lock, ok := lockDir(path); ok {
			_ = os.RemoveAll(path)
			lock.Close()
		}
	}
}

// spoolDir is where temporary tables lie: in the store, or elsewhere when that
// cannot be written.
func (s *Store) spoolDir() string {
	if s.readOnly {
		return os.TempDir()
	}
	return filepath.Join(s.root, "tmp")
}

// TempFile makes a file without a name, for what is put together while it is read. It
// takes space until it is closed.
func (s *Store) TempFile() (*os.File, error) {
	dir := s.spoolDir()
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return f, err
	}
	if f, err = os.CreateTemp(dir, "file-"); err != nil { // a file system that knows no other
		return nil, err
	}
	// Who sweeps may have removed it already.
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
