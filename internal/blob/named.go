package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/layerfs/layerfs/internal/disk"
)

// MaxBlob is the size up to which PutBlob and Blob handle blobs, in memory.
// Registries refuse manifests above 4 MiB.
const MaxBlob = 64 << 20

// PutBlob stores data, durably, and returns its digest. A blob that is there
// already is fine, and a damaged one is replaced.
func (s *Store) PutBlob(data []byte) (Sum, error) {
	sum := Sum(sha256.Sum256(data))
	if len(data) > MaxBlob {
		return sum, fmt.Errorf("%s: %d bytes are more than the %d that a manifest or config may have",
			digestOf("blob", sum), len(data), MaxBlob)
	}
	shard := shardPath(s.blobsDir(), sum[0])
	if err := s.disk.Mkdir(shard, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return sum, err
	}
	if err := s.putBlob(sum, data); err != nil {
		return sum, err
	}
	// Also when the blob or the shard was there: another process may have made
	// it a moment ago and not have synced it yet.
	if err := s.disk.SyncDir(shard); err != nil {
		return sum, err
	}
	return sum, s.disk.SyncDir(s.blobsDir())
}

// putBlob gives the blob its file.
func (s *Store) putBlob(sum Sum, data []byte) error {
	_, err := s.Blob(sum)
	if errors.Is(err, ErrDamaged) {
		return s.disk.WriteFile(s.blobPath(sum), data, fileMode)
	}
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	err = s.disk.WriteNew(s.blobPath(sum), data, fileMode)
	if errors.Is(err, fs.ErrExist) {
		return nil // raced with another PutBlob of the same data
	}
	return err
}

// Blob returns the content of a blob after verifying it. It returns ErrNotFound
// or ErrDamaged.
func (s *Store) Blob(sum Sum) ([]byte, error) {
	f, err := s.OpenBlob(sum)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	data, err := io.ReadAll(io.LimitReader(f, MaxBlob+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", digestOf("blob", sum), err)
	}
	if len(data) > MaxBlob {
		return nil, fmt.Errorf("%s: larger than %d bytes: not a manifest or config", digestOf("blob", sum), MaxBlob)
	}
	if sha256.Sum256(data) != sum {
		return nil, fmt.Errorf("%s: %w", digestOf("blob", sum), ErrDamaged)
	}
	return data, nil
}

// OpenBlob opens a blob for reading, not verified. It returns ErrNotFound. The
// caller closes the file.
func (s *Store) OpenBlob(sum Sum) (*os.File, error) {
	return openFile(s.blobPath(sum), digestOf("blob", sum))
}

// WalkBlobs calls fn with the digest and size of every blob, in the order of
// the first byte, until fn returns an error, which it returns.
func (s *Store) WalkBlobs(fn func(Sum, int64) error) error {
	return walkShards(s.blobsDir(), fn)
}

// RemoveBlob removes a blob. A missing one is no error.
func (s *Store) RemoveBlob(sum Sum) error { return s.remove(s.blobPath(sum)) }

// tempAge is the age at which an unfinished blob is left over for sure: blobs are small,
// and written in a moment.
const tempAge = time.Hour

// SweepTemp removes what killed processes have left of blobs. (Staged bodies lie in
// the importer's own directory.)
func (s *Store) SweepTemp() error {
	return eachShard(s.blobsDir(), func(shard string) error {
		return eachEntry(shard, func(e fs.DirEntry) error {
			if !disk.IsTemp(e.Name()) {
				return nil
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < tempAge {
				return nil // finished meanwhile, or being written
			}
			return errors.Join(err, s.remove(shard+"/"+e.Name()))
		})
	})
}
