package layers

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/flock"
)

// A Lease keeps things of the store from removal and collection until it is closed
// or its process ends, however it ends. An import holds one too, for all that it
// relies on.
//
// A lease is a file below leases/, flocked by its owner:
//
//	one line of JSON: what LeaseInfo has of it
//	then 33 bytes for each thing that is held: its kind and its sha256 (a pack: its ID)
//
// A thing is written down first, then [index.DB.Settle] lets the transactions end that
// could not know of it, and only then it is looked for. So whoever removes something
// in a later transaction, after reading the leases in it, sees that it is held.
type Lease struct {
	s    *Store
	path string
	mu   sync.Mutex // guards file
	file *os.File   // nil once closed
}

// LeaseInfo describes a lease.
type LeaseInfo struct {
	ID      string    `json:"id"`
	PID     int       `json:"pid"`
	Purpose string    `json:"purpose"`
	Since   time.Time `json:"since"`
	// What is held by name; bodies and packs that an import holds are not listed.
	Images []digest.Digest `json:"images,omitempty"`
	// Records are IDs of layer records.
	Records []string        `json:"records,omitempty"`
	Layers  []DiffID        `json:"layers,omitempty"`
	Blobs   []digest.Digest `json:"blobs,omitempty"`
}

// String names the owner, for those whom the lease is in the way of.
func (l LeaseInfo) String() string { return fmt.Sprintf("process %d (%s)", l.PID, l.Purpose) }

// The kinds of what a lease holds.
const (
	heldImage  = 'i' // by its ID
	heldRecord = 'r' // a layer record, by its ID
	heldLayer  = 'l' // by its DiffID
	heldBlob   = 'd'
	heldBody   = 'b'
	heldPack   = 'p' // in the first 8 bytes
)

// heldLen is the length of one thing in the file.
const heldLen = 1 + 32

type held struct {
	kind byte
	sum  [32]byte
}

func (s *Store) leasesDir() string { return filepath.Join(s.root, "leases") }

// NewLease makes a lease that holds nothing yet. The purpose, such as "build", is
// told to those who want to remove what it holds. The caller closes it.
func (s *Store) NewLease(ctx context.Context, purpose string) (*Lease, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	head, err := json.Marshal(LeaseInfo{PID: os.Getpid(), Purpose: purpose, Since: time.Now().UTC().Round(0)})
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	for range 100 { // a sweeper may take it for a dead one before it is locked
		var id [8]byte
		rand.Read(id[:]) // never fails (crypto/rand)
		path := filepath.Join(s.leasesDir(), hex.EncodeToString(id[:]))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrNotExist) { // a store from before there were leases
			if err = os.Mkdir(s.leasesDir(), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
				continue
			}
		}
		if err != nil {
			return nil, fmt.Errorf("lease: %w", err)
		}
		if !flock.TryAt(f, path) {
			f.Close()
			continue
		}
		l := &Lease{s: s, path: path, file: f}
		if _, err := f.Write(append(head, '\n')); err != nil {
			return nil, errors.Join(fmt.Errorf("lease: %w", err), l.Close())
		}
		return l, nil
	}
	return nil, fmt.Errorf("lease: another process removes it again and again below %s", s.root)
}

// Close releases everything that the lease holds. A second call does nothing.
func (l *Lease) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := os.Remove(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	l.file.Close() // the lock goes with it; nothing depends on what was written
	l.file = nil
	return err
}

// hold writes down what is held from now on. It counts for transactions that begin
// after the next Settle or View.
func (l *Lease) hold(things ...held) error {
	raw := make([]byte, 0, heldLen*len(things))
	for _, t := range things {
		raw = append(append(raw, t.kind), t.sum[:]...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return errors.New("lease: used after Close")
	}
	if _, err := l.file.Write(raw); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}

func (l *Lease) holdBodies(sums []blob.Sum) error {
	things := make([]held, len(sums))
	for i, sum := range sums {
		things[i] = held{heldBody, sum}
	}
	return l.hold(things...)
}

func (l *Lease) holdPack(id blob.PackID) error {
	t := held{kind: heldPack}
	for i := range 8 {
		t.sum[i] = byte(id >> (56 - 8*i))
	}
	return l.hold(t)
}

func (l *Lease) holdLayers(ids []DiffID) error {
	things := make([]held, len(ids))
	for i, d := range ids {
		things[i] = held{heldLayer, sumOf(digest.Digest(d))}
	}
	return l.hold(things...)
}

func (l *Lease) holdBlobs(ids ...digest.Digest) error {
	var things []held
	for _, d := range ids {
		if d.Algorithm() == digest.SHA256 {
			things = append(things, held{heldBlob, sumOf(d)})
		}
	}
	return l.hold(things...)
}

// RetainImage keeps an image, its layers and its blobs: until the lease ends the
// image cannot be removed. It returns the ID, or ErrImageUnknown.
func (l *Lease) RetainImage(ctx context.Context, nameOrID string) (digest.Digest, error) {
	img, err := l.s.Image(ctx, nameOrID)
	if err != nil {
		return "", err
	}
	if err := l.hold(held{heldImage, sumOf(img.ID)}); err != nil {
		return "", err
	}
	_, err = l.s.Image(ctx, string(img.ID)) // it may have been removed a moment ago
	return img.ID, err
}

// RetainLayer keeps a layer, named by its DiffID, or a layer record or ChainID with
// its whole stack. An image that has the layers may go, they stay; a record cannot be
// removed until the lease ends. It returns the layers, or ErrLayerUnknown.
func (l *Lease) RetainLayer(ctx context.Context, id string) ([]DiffID, error) {
	record, ids, err := l.s.layersNamed(ctx, id)
	if err != nil {
		return nil, err
	}
	if record != "" {
		if err := l.hold(held{heldRecord, sumOf(digest.NewDigestFromEncoded(digest.SHA256, record))}); err != nil {
			return nil, err
		}
	}
	if err := l.holdLayers(ids); err != nil {
		return nil, err
	}
	return ids, l.s.index.View(ctx, func(tx *index.Tx) error { // they may have gone a moment ago
		for _, d := range ids {
			if _, err := tx.Layer(d.digest()); err != nil {
				return unknownLayer(err, string(d))
			}
		}
		if record == "" {
			return nil
		}
		_, err := tx.LayerRecord(record)
		return unknownLayer(err, id)
	})
}

// RetainBlob keeps a blob, also one that the store does not have yet.
func (l *Lease) RetainBlob(ctx context.Context, d digest.Digest) error {
	if _, err := parseDigest(string(d)); err != nil {
		return err
	}
	if err := l.holdBlobs(d); err != nil {
		return err
	}
	return l.s.index.Settle(ctx)
}

// Leases returns the leases whose owners live, the oldest first, those of imports
// included.
func (s *Store) Leases(ctx context.Context) ([]LeaseInfo, error) {
	h := newHolds(s)
	if err := h.refresh(); err != nil {
		return nil, err
	}
	return h.infos(), ctx.Err()
}

// parseLease takes the file of a lease apart. What is torn at its end is left out;
// n is how much was understood.
func parseLease(raw []byte) (info LeaseInfo, things []held, n int) {
	line, _, ok := bytes.Cut(raw, []byte{'\n'})
	if !ok || json.Unmarshal(line, &info) != nil {
		return info, nil, 0
	}
	n = len(line) + 1
	things = parseHeld(raw[n:])
	return info, things, n + heldLen*len(things)
}

func parseHeld(raw []byte) (things []held) {
	for ; len(raw) >= heldLen; raw = raw[heldLen:] {
		things = append(things, held{raw[0], [32]byte(raw[1:heldLen])})
	}
	return things
}
