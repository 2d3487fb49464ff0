package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/layerfs/layerfs/internal/flock"
)

// pendingWanted in gc.pending asks the collection that is running for another round.
const pendingWanted DiffID = "wanted"

// gc.pending says why there may be something to collect: one line for each layer
// that was in use when it was to be removed, or pendingWanted.
func (s *Store) pendingPath() string { return filepath.Join(s.root, "gc.pending") }

// addPending is not synced: what is lost costs no more than a collection by hand.
func (s *Store) addPending(lines ...DiffID) error {
	f, err := os.OpenFile(s.pendingPath(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintln(&text, l)
	}
	_, err = io.WriteString(f, text.String())
	return errors.Join(err, f.Close())
}

// takeWanted reports whether another round was asked for, and forgets it.
func (s *Store) takeWanted() bool {
	raw, err := os.ReadFile(s.pendingPath())
	if err != nil || !strings.Contains(string(raw), string(pendingWanted)) {
		return false
	}
	return os.Remove(s.pendingPath()) == nil
}

// pendingReady reports whether one of the layers that were in use no longer is, or
// a collection that was asked for did not come.
func (s *Store) pendingReady() bool {
	raw, err := os.ReadFile(s.pendingPath())
	if err != nil {
		return false
	}
	for _, line := range strings.Fields(string(raw)) {
		if DiffID(line) == pendingWanted {
			return true
		}
		if _, err := parseDigest(line); err != nil {
			continue
		}
		if free, err := lockTree(s.layerDir(DiffID(line))); err == nil {
			free()
			return true
		}
	}
	return false
}

// lockGC takes gc.lock, which one collection at a time has, and writes down who.
func (s *Store) lockGC(ctx context.Context, timeout time.Duration) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.root, "gc.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", s.root, err)
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch err := flock.Wait(limited, f); {
	case err == nil:
		if f.Truncate(0) == nil {
			fmt.Fprintf(f, "%d", os.Getpid()) // for those who wait; a torn one does no harm
		}
		return func() { f.Close() }, nil
	case ctx.Err() != nil || limited.Err() == nil:
		f.Close()
		return nil, err
	}
	pid := make([]byte, 20)
	n, _ := f.ReadAt(pid, 0)
	f.Close()
	return nil, fmt.Errorf("%w: process %s (gc) has been collecting for more than %v; wait for it, or stop it", ErrBusy, pid[:n], timeout)
}
