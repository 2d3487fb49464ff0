package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/flock"
)

// A Partial is a blob on its way into the store: what has been fetched of it so
// far, in a file below blobs/partial that stays when the fetch is interrupted, so
// that the next one, in whatever process, goes on where this one stopped. The file
// is flocked while it is open; collection removes those that are not. What is in it
// is not verified.
type Partial struct {
	*os.File
	path string // empty: the file has no name, because another process has the blob open
	next int64  // where the next write-back begins
}

// Fetched is a blob that is read from a partial file. The import keeps that file instead
// of a copy.
type Fetched interface {
	// Partial returns the file, nil when there is none. It may wait for it.
	Partial(ctx context.Context) *Partial
}

// name returns the path of the file, empty when it has none.
func (p *Partial) name() string {
	if p == nil {
		return ""
	}
	return p.path
}

// writebackStep is how much of a blob is written before the kernel is asked to begin
// with its way to the disk.
const writebackStep = 8 << 20

// WriteAt writes what comes, in order, by one goroutine.
func (p *Partial) WriteAt(b []byte, off int64) (int, error) {
	n, err := p.File.WriteAt(b, off)
	if end := off + int64(n); end-p.next >= writebackStep {
		// It promises nothing: errors are left to the sync, which reports them.
		_ = unix.SyncFileRange(int(p.Fd()), p.next, end-p.next, unix.SYNC_FILE_RANGE_WRITE)
		p.next = end
	}
	return n, err
}

func (s *Store) partialDir() string { return filepath.Join(s.root, "blobs", "partial") }

// OpenPartial opens what there is of a blob, and makes an empty file when there is
// nothing. When another process is fetching the same blob, the file is a new one
// without a name. The caller ends it with Close or Discard.
func (s *Store) OpenPartial(d digest.Digest) (*Partial, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	if _, err := parseDigest(string(d)); err != nil {
		return nil, err
	}
	if err := s.disk.MkdirAll(s.partialDir(), 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(s.partialDir(), d.Encoded())
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("blob %s: %w", d, err)
		}
		if ok, err := flock.Try(f); !ok || err != nil {
			f.Close()
			return s.namelessPartial()
		}
		if flock.IsAt(f, path) {
			return &Partial{File: f, path: path}, nil
		}
		f.Close() // it was removed between the open and the lock
	}
}

func (s *Store) namelessPartial() (*Partial, error) {
	f, err := s.TempFile()
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	return &Partial{File: f}, nil
}

// Close ends the work with the blob for now; what has been fetched stays.
func (p *Partial) Close() error {
	if info, err := p.Stat(); err == nil && info.Size() == 0 {
		return p.Discard()
	}
	return p.File.Close()
}

// Discard removes what has been fetched.
func (p *Partial) Discard() error {
	var err error
	if p.path != "" && flock.IsAt(p.File, p.path) {
		err = os.Remove(p.path)
	}
	return errors.Join(err, p.File.Close())
}

// sweepPartials removes what interrupted fetches have left and nobody goes on with.
func (c *collection) sweepPartials(context.Context) error {
	s := c.s
	entries, err := os.ReadDir(s.partialDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.partialDir(), e.Name())
		lock, ok := lockDir(path) // a file does as well
		if !ok {
			continue
		}
		c.out.Blobs++
		c.out.Bytes += diskUsage(path)
		if !c.dryRun {
			err = errors.Join(err, s.disk.Remove(path))
		}
		lock.Close()
	}
	return err
}
