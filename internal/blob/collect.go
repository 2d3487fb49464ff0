package blob

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Range is a part of a pack.
type Range struct{ Offset, Length int64 }

// WalkObjects calls fn with the digest and size of every object, in the order
// of the first byte, until fn returns an error, which it returns.
func (s *Store) WalkObjects(fn func(Sum, int64) error) error {
	return walkShards(s.objectsDir(), fn)
}

// WalkPacks calls fn with the name and size of every pack, in no order, until
// fn returns an error, which it returns. The size counts holes too.
func (s *Store) WalkPacks(fn func(id PackID, size int64) error) error {
	return eachEntry(s.packsDir(), func(e fs.DirEntry) error {
		id, ok := parsePackID(e.Name())
		if !ok {
			return nil
		}
		return withSize(e, func(size int64) error { return fn(id, size) })
	})
}

// walkShards calls fn for every file of dir/ab that is named by a digest.
func walkShards(dir string, fn func(Sum, int64) error) error {
	return eachShard(dir, func(shard string) error {
		return eachEntry(shard, func(e fs.DirEntry) error {
			sum, ok := parseSum(e.Name())
			if !ok {
				return nil
			}
			return withSize(e, func(size int64) error { return fn(sum, size) })
		})
	})
}

// withSize calls fn with the size of a directory's file, unless it was removed since the
// directory was read.
func withSize(e fs.DirEntry, fn func(int64) error) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fn(info.Size())
}

// eachShard calls fn for every shard of dir that exists.
func eachShard(dir string, fn func(shard string) error) error {
	for b := range 256 {
		err := fn(shardPath(dir, byte(b)))
		if err != nil && !errors.Is(err, errNoDir) {
			return err
		}
	}
	return nil
}

// errNoDir is returned by eachEntry when there is no such directory.
var errNoDir = errors.New("no directory")

// eachEntry calls fn for every entry of dir, without reading all of them into
// memory.
func eachEntry(dir string, fn func(fs.DirEntry) error) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, errNoDir)
	}
	if err != nil {
		return err
	}
	defer f.Close() // read only
	for {
		entries, err := f.ReadDir(512)
		for _, e := range entries {
			if err := fn(e); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// remove removes a file; a missing one is no error. The name's absence is not
// synced: a file that comes back after a crash is collected again.
func (s *Store) remove(path string) error {
	if err := s.disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// MoveObject gives the file of an object another name, from where the caller
// removes it: that is quicker than removing a large file, and he may be in a hurry.
// It returns the space that the file takes; with an empty name it only says that. A
// missing one is ErrNotFound.
func (s *Store) MoveObject(sum Sum, to string) (int64, error) {
	if to != "" {
		s.objects.forget(sum)
	}
	return s.move(s.objectPath(sum), digestOf("object", sum), to)
}

// MoveBlob is as MoveObject.
func (s *Store) MoveBlob(sum Sum, to string) (int64, error) {
	return s.move(s.blobPath(sum), digestOf("blob", sum), to)
}

func (s *Store) move(path, what, to string) (int64, error) {
	n, err := usage(path, what)
	if err != nil || to == "" {
		return n, err
	}
	return n, s.disk.Rename(path, to)
}

// PackUsage returns the space that a pack takes. A missing one is ErrNotFound.
func (s *Store) PackUsage(id PackID) (int64, error) { return usage(s.packPath(id), packName(id)) }

func usage(path, what string) (int64, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512, nil
}

// RemovePack removes a pack. A missing one is no error.
func (s *Store) RemovePack(id PackID) error {
	s.Forget(id)
	return s.remove(s.packPath(id))
}

// PunchPack gives the space of dead bodies back to the file system, which reads
// as zeros afterwards, and returns how many bytes that freed: 0 where the file
// system cannot do it.
//
// Only whole blocks can be freed, and blocks that hold a byte of a living body
// are not touched. So dead should be all of the pack that is dead, including
// what was punched before: neighbours share blocks. It is sorted in place.
func (s *Store) PunchPack(id PackID, dead []Range) (freed int64, err error) {
	f, err := os.OpenFile(s.packPath(id), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%s: %w", packName(id), ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	before, err := statOf(f)
	if err != nil {
		return 0, err
	}
	if err := s.punch(f, before, dead); err != nil {
		return 0, err
	}
	after, err := statOf(f)
	if err != nil {
		return 0, err
	}
	return max(0, before.Blocks-after.Blocks) * 512, nil
}

// statOf returns what the file system says about an open file.
func statOf(f *os.File) (*syscall.Stat_t, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return info.Sys().(*syscall.Stat_t), nil
}

// PunchablePack returns how many bytes PunchPack would free.
func (s *Store) PunchablePack(id PackID, dead []Range) (int64, error) {
	f, err := openFile(s.packPath(id), packName(id))
	if err != nil {
		return 0, err
	}
	defer f.Close() // read only
	st, err := statOf(f)
	if err != nil {
		return 0, err
	}
	var sum int64
	err = wholeBlocks(f, st, dead, func(start, end int64) (bool, error) {
		n, err := dataIn(f, start, end)
		sum += n
		return true, err
	})
	return sum, err
}

// dataIn returns how much of a range of a file is no hole.
func dataIn(f *os.File, start, end int64) (sum int64, err error) {
	for start < end {
		data, err := unix.Seek(int(f.Fd()), start, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= end {
			return sum, nil
		}
		if err != nil {
			return sum, fmt.Errorf("%s: %w", f.Name(), err)
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return sum, fmt.Errorf("%s: %w", f.Name(), err)
		}
		st, err := statOf(f)
		if err != nil {
			return sum, err
		}
		if hole >= st.Size { // the last block is used to its end
			hole = end
		}
		sum += min(hole, end) - data
		start = hole
	}
	return sum, nil
}

// punch makes holes of the whole blocks in the union of the dead ranges.
func (s *Store) punch(f *os.File, st *syscall.Stat_t, dead []Range) error {
	return wholeBlocks(f, st, dead, func(start, end int64) (bool, error) { return s.disk.Punch(f, start, end-start) })
}

// wholeBlocks calls fn for the whole blocks in the union of the dead ranges, until
// fn returns false.
func wholeBlocks(f *os.File, st *syscall.Stat_t, dead []Range, fn func(start, end int64) (bool, error)) error {
	for _, r := range dead {
		if r.Offset < 0 || r.Length < 0 || r.Offset > math.MaxInt64-r.Length {
			return fmt.Errorf("%s: bytes %d+%d cannot be freed", f.Name(), r.Offset, r.Length)
		}
	}
	slices.SortFunc(dead, func(a, b Range) int { return cmp.Compare(a.Offset, b.Offset) })
	block := max(int64(st.Blksize), 512)
	for len(dead) > 0 {
		start, end := dead[0].Offset, dead[0].Offset+dead[0].Length
		for dead = dead[1:]; len(dead) > 0 && dead[0].Offset <= end; dead = dead[1:] {
			end = max(end, dead[0].Offset+dead[0].Length)
		}
		if end >= st.Size { // nothing lives in the rest of the last block
			end = (st.Size + block - 1) / block * block
		}
		start, end = (start+block-1)/block*block, end/block*block
		if start >= end {
			continue
		}
		if ok, err := fn(start, end); err != nil || !ok {
			return err
		}
	}
	return nil
}
