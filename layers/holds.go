package layers

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/flock"
)

// holds are what the leases of living processes hold. It only grows: what a lease
// has held counts until the user of holds is done, also when the lease ends before.
type holds struct {
	s       *Store
	files   map[string]*leaseFile
	images  map[[32]byte]*LeaseInfo
	records map[[32]byte]*LeaseInfo
	layers  map[[32]byte]*LeaseInfo
	blobs   map[[32]byte]bool
	packs   map[blob.PackID]bool
	body    func(blob.Sum) error // nil: bodies do not matter
}

// A leaseFile is how far the file of a lease has been read.
type leaseFile struct {
	info LeaseInfo
	read int64
}

func newHolds(s *Store) *holds {
	return &holds{
		s: s, files: map[string]*leaseFile{}, images: map[[32]byte]*LeaseInfo{}, records: map[[32]byte]*LeaseInfo{}, layers: map[[32]byte]*LeaseInfo{},
		blobs: map[[32]byte]bool{}, packs: map[blob.PackID]bool{},
	}
}

// refresh reads what has been written since the last call, and removes the leases
// of the dead. Inside an exclusive transaction nothing that counts for it can be
// added afterwards.
func (h *holds) refresh() error {
	entries, err := os.ReadDir(h.s.leasesDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := h.readLease(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (h *holds) readLease(name string) error {
	path := filepath.Join(h.s.leasesDir(), name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // read only
	if isFree(f) {
		if h.s.readOnly {
			return nil
		}
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	known := h.files[name]
	if known == nil {
		known = &leaseFile{}
	}
	raw, err := io.ReadAll(io.NewSectionReader(f, known.read, 1<<62))
	if err != nil {
		return err
	}
	things := parseHeld(raw)
	n := heldLen * len(things)
	if known.read == 0 {
		known.info, things, n = parseLease(raw)
		if n == 0 {
			return nil // its owner has not written the line yet
		}
		known.info.ID = name
	}
	h.files[name] = known
	known.read += int64(n)
	return h.add(&known.info, things)
}

func (h *holds) add(info *LeaseInfo, things []held) error {
	for _, t := range things {
		d := digest.NewDigestFromBytes(digest.SHA256, t.sum[:])
		switch t.kind {
		case heldImage:
			h.images[t.sum] = info
			info.Images = append(info.Images, d)
		case heldRecord:
			h.records[t.sum] = info
			info.Records = append(info.Records, d.Encoded())
		case heldLayer:
			h.layers[t.sum] = info
			info.Layers = append(info.Layers, DiffID(d))
		case heldBlob:
			h.blobs[t.sum] = true
			info.Blobs = append(info.Blobs, d)
		case heldPack:
			var id blob.PackID
			for i := range 8 {
				id = id<<8 | blob.PackID(t.sum[i])
			}
			h.packs[id] = true
		case heldBody:
			if h.body == nil {
				continue
			}
			if err := h.body(t.sum); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *holds) infos() []LeaseInfo {
	out := []LeaseInfo{}
	for _, f := range h.files {
		out = append(out, f.info)
	}
	slices.SortFunc(out, func(a, b LeaseInfo) int { return a.Since.Compare(b.Since) })
	return out
}

// isFree reports whether nobody has the lock alone. Any number of
// processes may ask at once.
func isFree(f *os.File) bool {
	ok, err := flock.TryShared(f)
	return ok && err == nil
}
