package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"github.com/layerfs/layerfs/internal/disk"
)

// A Staged is a blob of any size on its way into the store: written to a file that
// nobody knows, until [Store.PublishBlobs] gives it its name. Somebody else finds
// out its digest.
type Staged struct {
	f    *disk.File
	n    int64
	next int64 // where the next write-back begins
	dir  func(*Store) string
	sum  Sum
}

// writebackStep is how much of a blob is written before the kernel is asked to
// begin with its way to the disk.
const writebackStep = 8 << 20

// StageBlob creates the file at path, in the file system of the store, for a layer
// blob. The caller closes it.
func (s *Store) StageBlob(path string) (*Staged, error) { return s.stage(path, (*Store).blobsDir) }

// StageFile takes over the file at path, in the file system of the store, which holds a
// layer blob already.
func (s *Store) StageFile(path string) (*Staged, error) {
	f, err := s.disk.Adopt(path)
	if err != nil {
		return nil, err
	}
	info, err := f.OS().Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Staged{f: f, n: info.Size(), dir: (*Store).blobsDir}, nil
}

// StageCorrection is StageBlob for a correction: what is needed besides the layer
// to make the blob whose digest PublishBlobs is told.
func (s *Store) StageCorrection(path string) (*Staged, error) {
	return s.stage(path, (*Store).correctionsDir)
}

func (s *Store) stage(path string, dir func(*Store) string) (*Staged, error) {
	f, err := s.disk.Create(path, fileMode)
	if err != nil {
		return nil, err
	}
	return &Staged{f: f, dir: dir}, nil
}

// Write appends p.
func (b *Staged) Write(p []byte) (int, error) {
	n, err := b.f.Write(p)
	b.n += int64(n)
	if b.n-b.next >= writebackStep {
		b.f.StartWriteback(b.next, b.n-b.next)
		b.next = b.n
	}
	return n, err
}

// Name returns the path of the file, until it is published.
func (b *Staged) Name() string { return b.f.Name() }

// Size returns how much was written.
func (b *Staged) Size() int64 { return b.n }

// Finish closes the file and says under which digest it is to be published.
func (b *Staged) Finish(sum Sum) error {
	b.sum = sum
	b.f.StartWriteback(b.next, 0)
	return b.f.Close()
}

// Discard closes the file, whatever state it is in, and removes it.
func (s *Store) Discard(b *Staged) error {
	_ = b.f.OS().Close() // nobody will read it; it may be closed already
	return s.remove(b.f.Name())
}

// PublishBlobs gives finished blobs their names, durably, in this order:
//
//	sync     the files
//	mkdir    shards that are missing
//	rename   to the final names
//	syncdir  the directories of these names
//
// A blob that is there already is replaced: what is there may be damaged, and what
// comes has just been verified.
func (s *Store) PublishBlobs(blobs []*Staged) error {
	if len(blobs) == 0 {
		return nil
	}
	if err := s.disk.SyncMany(filepath.Dir(blobs[0].f.Name()), stagedNames(blobs)); err != nil {
		return err
	}
	var dirs []string
	for _, b := range blobs {
		dir := b.dir(s)
		shard := shardPath(dir, b.sum[0])
		if err := s.disk.MkdirAll(shard, dirMode); err != nil {
			return err
		}
		if err := s.disk.Rename(b.f.Name(), sharded(dir, b.sum)); err != nil {
			return err
		}
		dirs = append(dirs, shard, dir)
	}
	seen := map[string]bool{}
	for _, dir := range append(dirs, filepath.Dir(s.blobsDir())) {
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if err := s.disk.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func stagedNames(blobs []*Staged) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, b := range blobs {
			if !yield(b.f.Name()) {
				return
			}
		}
	}
}

func (s *Store) correctionsDir() string { return filepath.Join(s.root, "blobs", "corrections") }

// OpenCorrection opens the correction for the blob with the digest, not verified.
// It returns ErrNotFound. The caller closes the file.
func (s *Store) OpenCorrection(sum Sum) (*os.File, error) {
	return openFile(sharded(s.correctionsDir(), sum), digestOf("correction for blob", sum))
}

// HasCorrection reports whether there is a correction for the blob with the digest.
func (s *Store) HasCorrection(sum Sum) bool {
	_, err := os.Stat(sharded(s.correctionsDir(), sum))
	return err == nil
}

// WalkCorrections is WalkBlobs for corrections; the size is that of the correction.
func (s *Store) WalkCorrections(fn func(Sum, int64) error) error {
	return walkShards(s.correctionsDir(), fn)
}

// MoveCorrection is as MoveObject.
func (s *Store) MoveCorrection(sum Sum, to string) (int64, error) {
	return s.move(sharded(s.correctionsDir(), sum), digestOf("correction for blob", sum), to)
}

// BlobSize returns the size of a blob, or ErrNotFound.
func (s *Store) BlobSize(sum Sum) (int64, error) {
	st, err := os.Stat(s.blobPath(sum))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s: %w", digestOf("blob", sum), ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
