package blob

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/layerfs/layerfs/internal/disk"
)

// A Large is a blob of any size that has been read, hashed and synced, but has not
// got its name.
type Large struct {
	Sum  Sum
	Size int64

	s    *Store
	path string
}

// StageLarge reads a blob to its end into a file in dir, which must be in the same
// file system as the store and belong to the caller, who removes what is left in it.
func (s *Store) StageLarge(dir string, r io.Reader) (*Large, error) {
	l := &Large{s: s, path: filepath.Join(dir, "blob")}
	f, err := s.disk.Create(l.path, fileMode)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	l.Size, err = copyLarge(f, h, r)
	if err == nil {
		err = f.Sync()
	}
	h.Sum(l.Sum[:0])
	return l, errors.Join(err, f.Close())
}

// copyLarge keeps the errors of the input as they are.
func copyLarge(f *disk.File, h io.Writer, r io.Reader) (n int64, err error) {
	buf := make([]byte, streamSize)
	for {
		m, rerr := r.Read(buf)
		h.Write(buf[:m])
		if m > 0 {
			if _, err := f.WriteAt(buf[:m], n); err != nil {
				return n, err
			}
			n += int64(m)
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// Publish gives the blob its name, durably. One of the name that is there already is
// replaced by the same bytes.
func (l *Large) Publish() error {
	shard := shardPath(l.s.blobsDir(), l.Sum[0])
	if err := l.s.disk.Mkdir(shard, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := l.s.disk.Rename(l.path, l.s.blobPath(l.Sum)); err != nil {
		return err
	}
	if err := l.s.disk.SyncDir(shard); err != nil {
		return err
	}
	return l.s.disk.SyncDir(l.s.blobsDir())
}
