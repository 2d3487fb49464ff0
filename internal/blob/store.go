package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/layerfs/layerfs/internal/disk"
)

// Sum is a SHA-256.
type Sum = [sha256.Size]byte

// PackID names a pack. It is random and never 0.
type PackID uint64

// String returns the name of the pack's file.
func (id PackID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// Place says where a body lies. A zero Pack means an object, which is found by
// its digest, and Offset has no meaning.
type Place struct {
	Pack   PackID
	Offset int64
}

// ObjectMin is the size from which on a body is an object.
const ObjectMin = 128 << 10

var (
	// ErrNotFound is returned when no file has the wanted name. It wraps
	// fs.ErrNotExist.
	ErrNotFound = fmt.Errorf("not in the store: %w", fs.ErrNotExist)

	// ErrDamaged is returned when the bytes in the store are not those that the
	// digest names, or fewer than recorded. Loading the image again repairs it.
	ErrDamaged = errors.New("damaged in the store")
)

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// Store is a directory of blobs, objects and packs. It is safe for concurrent
// use, and any number of Stores, in any number of processes, may have the same
// directory open.
type Store struct {
	root    string
	disk    *disk.Disk
	packs   packCache
	objects objectCache
}

// Open opens the store below root, which Create has made. It changes nothing. A
// nil Disk is one without a hook.
func Open(root string, d *disk.Disk) (*Store, error) {
	s := &Store{root: root, disk: d}
	for _, dir := range s.dirs() {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("store %s: %w", root, err)
		}
	}
	s.packs.init(s)
	s.objects.init(s)
	return s, nil
}

// Create makes the directories that a store needs below root, durably, and
// opens it. Directories that exist are fine.
func Create(root string, d *disk.Disk) (*Store, error) {
	s := &Store{root: root, disk: d}
	for _, dir := range s.dirs() {
		if err := d.MkdirAll(dir, dirMode); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{filepath.Join(root, "blobs"), root} {
		if err := d.SyncDir(dir); err != nil {
			return nil, err
		}
	}
	return Open(root, d)
}

// Close releases mappings and open files. Nothing may be read afterwards, nor
// may slices from PackBytes be used.
func (s *Store) Close() error {
	s.packs.close()
	s.objects.close()
	return nil
}

// dirs returns the directories that hold files or shards.
func (s *Store) dirs() []string { return []string{s.blobsDir(), s.objectsDir(), s.packsDir()} }

func (s *Store) blobsDir() string   { return filepath.Join(s.root, "blobs", "sha256") }
func (s *Store) objectsDir() string { return filepath.Join(s.root, "objects") }
func (s *Store) packsDir() string   { return filepath.Join(s.root, "packs") }

// sharded returns the path of the file named by sum below dir.
func sharded(dir string, sum Sum) string {
	name := hex.EncodeToString(sum[:])
	return filepath.Join(dir, name[:2], name)
}

func (s *Store) blobPath(sum Sum) string   { return sharded(s.blobsDir(), sum) }
func (s *Store) objectPath(sum Sum) string { return sharded(s.objectsDir(), sum) }
func (s *Store) packPath(id PackID) string { return filepath.Join(s.packsDir(), id.String()) }
func shardPath(dir string, b byte) string  { return filepath.Join(dir, hex.EncodeToString([]byte{b})) }
func digestOf(kind string, sum Sum) string { return fmt.Sprintf("%s sha256:%x", kind, sum) }
func packName(id PackID) string            { return "pack " + id.String() }

// parseSum is the reverse of a file name in a shard.
func parseSum(name string) (sum Sum, ok bool) {
	if len(name) != hex.EncodedLen(len(sum)) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(name))
	return sum, err == nil && hex.EncodeToString(sum[:]) == name
}

// parsePackID is the reverse of PackID.String.
func parsePackID(name string) (PackID, bool) {
	id, err := strconv.ParseUint(name, 16, 64)
	return PackID(id), err == nil && id != 0 && PackID(id).String() == name
}

// openFile opens a file of the store for reading. A missing one is ErrNotFound.
func openFile(path, what string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", what, ErrNotFound)
	}
	return f, err
}

// missingIsDamage adds ErrDamaged to ErrNotFound, for bodies: their place comes
// from a record that says they are there.
func missingIsDamage(err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w (%w)", err, ErrDamaged)
	}
	return err
}
