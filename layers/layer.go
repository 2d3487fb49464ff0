package layers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/internal/blob"
	"github.com/layerfs/layerfs/internal/flock"
	"github.com/layerfs/layerfs/tarsplit"
)

// A Layer is an open layer. While it is open, collection leaves it and its bodies
// alone, also when its record is removed. Its methods may be called from any
// number of goroutines.
type Layer struct {
	DiffID DiffID

	s    *Store
	from contents
	lock *os.File // the tree's file, with a shared flock
	tree *tree.Tree
	refs int               // guarded by Store.mu
	bad  map[blob.Sum]bool // bodies that are known to be damaged; nearly always nil

	tarOnce sync.Once
	tarFile *os.File
	tar     *tarsplit.Reader
	tarErr  error
}

// contents is where the bodies of a layer are.
type contents interface {
	// BodyAt reads like io.ReaderAt from a body.
	BodyAt(sum blob.Sum, size int64, pl blob.Place, p []byte, off int64) (int, error)
	// PackBytes returns a part of a body in a pack as it lies in memory.
	PackBytes(pl blob.Place, off, n int64) ([]byte, error)
	// OpenObject opens the file that holds a body and nothing else.
	OpenObject(sum blob.Sum) (*os.File, error)
}

// OpenLayer opens a layer of the store; opening it again is cheap and gives the same
// Layer, which must be closed as often. It returns ErrLayerUnknown when neither the
// store nor an additional one has it.
func (s *Store) OpenLayer(d DiffID) (*Layer, error) {
	if _, err := parseDigest(string(d)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLayerUnknown, err)
	}
	l, err := s.openOwn(d)
	if errors.Is(err, ErrLayerUnknown) {
		return s.openLower(d)
	}
	return l, err
}

// openOwn opens a layer whose content is in this store.
func (s *Store) openOwn(d DiffID) (*Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.open[d]; l != nil {
		l.refs++
		return l, nil
	}
	f, err := openLocked(filepath.Join(s.layerDir(d), "tree"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.absentLayer(d)
	}
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d, err)
	}
	t, err := tree.OpenFile(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("layer %s: %w", d, treeError(err))
	}
	l := &Layer{DiffID: d, s: s, from: s.blobs, lock: f, tree: t, refs: 1, bad: s.damagedBodies()}
	if s.graph != nil {
		if l.from, err = s.graph.contents(d); err != nil {
			return nil, errors.Join(err, t.Close(), f.Close())
		}
		s.open[d] = l
		return l, nil
	}
	for _, id := range t.Packs() {
		s.blobs.Pin(blob.PackID(id))
	}
	s.open[d] = l
	s.locks.took(layerLock(d), f)
	return l, nil
}

// absentLayer is the error for a layer without a tree: it is not there, or it should
// be.
func (s *Store) absentLayer(d DiffID) error {
	if s.isQuarantined(d) {
		return fmt.Errorf("%w: layer %s is in quarantine; run `layerfs check --repair --from ARCHIVE`, or load its image again", ErrDamaged, d)
	}
	if _, err := os.Lstat(s.layerDir(d)); err == nil {
		return fmt.Errorf("%w: layer %s: its tree is missing; run `layerfs check --repair`", ErrDamaged, d)
	}
	return fmt.Errorf("%w: %s", ErrLayerUnknown, d)
}

func treeError(err error) error {
	if errors.Is(err, tree.ErrDamaged) {
		return fmt.Errorf("%w: %w; run `layerfs check --repair`", ErrDamaged, err)
	}
	return err
}

// openLocked opens a layer's tree and shares its lock. Collection moves a layer
// away while it holds the lock exclusively, so the file must still be where it was
// once the lock is ours.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		if err := flock.Shared(f); err != nil {
			f.Close()
			return nil, err
		}
		if flock.IsAt(f, path) {
			return f, nil
		}
		f.Close() // moved away; the next open says so
	}
}

// Close releases the layer; after the last Close nothing of it may be used.
func (l *Layer) Close() error {
	l.s.mu.Lock()
	l.refs--
	last := l.refs == 0
	if last {
		delete(l.s.open, l.DiffID)
	}
	l.s.mu.Unlock()
	if !last {
		return nil
	}
	if l.tarFile != nil {
		l.tarFile.Close()
	}
	if g, ok := l.from.(*graphContents); ok {
		return errors.Join(g.close(), l.tree.Close(), l.lock.Close())
	}
	// What another process has collected becomes free only when we let go of it.
	for _, id := range l.tree.Packs() {
		l.s.blobs.Unpin(blob.PackID(id))
		l.s.blobs.Forget(blob.PackID(id))
	}
	l.s.blobs.ForgetObjects()
	return errors.Join(l.tree.Close(), l.s.locks.release(layerLock(l.DiffID), l.lock))
}

// Tree returns the layer's own tree, valid until Close.
func (l *Layer) Tree() *tree.Tree { return l.tree }

// Tar returns the exact uncompressed tar of the layer, put together while it is
// read; valid until Close.
func (l *Layer) Tar() (*tarsplit.Reader, error) {
	l.tarOnce.Do(func() { l.tarFile, l.tar, l.tarErr = l.openTar() })
	return l.tar, l.tarErr
}

func (l *Layer) openTar() (*os.File, *tarsplit.Reader, error) {
	f, err := os.Open(filepath.Join(l.s.layerDir(l.DiffID), "split.zst"))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: layer %s: %w", ErrDamaged, l.DiffID, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	r, err := tarsplit.Open(f, info.Size(), layerBodies{l})
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%w: layer %s: split metadata: %w", ErrDamaged, l.DiffID, err)
	}
	return f, r, nil
}

// layerBodies finds the bodies of a layer for its tar.
type layerBodies struct{ l *Layer }

// Body implements tarsplit.Bodies.
func (b layerBodies) Body(sum tarsplit.Sum, size int64) (io.ReaderAt, error) {
	body, ok, err := b.l.tree.BodyBySum(sum)
	if err == nil {
		err = b.l.refuseBad(sum)
	}
	if err != nil {
		return nil, treeError(err)
	}
	if !ok || body.Size != size {
		return nil, fmt.Errorf("%w: layer %s: its tree does not list the body %x of %d bytes; run `layerfs check --repair`", ErrDamaged, b.l.DiffID, sum, size)
	}
	r := bodyReader{s: b.l.from, body: body}
	if _, ok := b.l.from.(*graphContents); ok || body.Place.Pack == 0 {
		return &r, nil
	}
	data, err := r.s.PackBytes(place(body), 0, size)
	if err != nil {
		return nil, err
	}
	return &packedBody{bodyReader: r, data: data}, nil
}

// A bodyReader reads one body.
type bodyReader struct {
	s    contents
	body tree.Body
}

// ReadAt implements io.ReaderAt.
func (r *bodyReader) ReadAt(p []byte, off int64) (int, error) {
	return r.s.BodyAt(r.body.Sum, r.body.Size, place(r.body), p, off)
}

// A packedBody is a body in a pack, which is mapped into memory.
type packedBody struct {
	bodyReader
	data []byte
}

// Bytes implements tarsplit.BytesBody.
func (r *packedBody) Bytes() []byte { return r.data }

func place(b tree.Body) blob.Place {
	return blob.Place{Pack: blob.PackID(b.Place.Pack), Offset: b.Place.Offset}
}

// ReadAt reads the content of a regular file as read(2) would show it: holes of a
// sparse file are zeros. It returns io.EOF at the end.
func (l *Layer) ReadAt(ino tree.Ino, p []byte, off int64) (int, error) {
	a, err := l.tree.Attr(ino)
	if err != nil {
		return 0, treeError(err)
	}
	if off >= a.Size {
		return 0, io.EOF
	}
	eof := false
	if rest := a.Size - off; int64(len(p)) >= rest {
		p, eof = p[:rest], true
	}
	if err := l.fill(ino, a, p, off); err != nil {
		return 0, err
	}
	if eof {
		return len(p), io.EOF
	}
	return len(p), nil
}

func (l *Layer) fill(ino tree.Ino, a tree.Attr, p []byte, off int64) error {
	body, ok, err := l.tree.Body(ino)
	if err != nil {
		return treeError(err)
	}
	if a.Sparse {
		return l.fillSparse(ino, body, p, off)
	}
	if !ok {
		clear(p)
		return nil
	}
	return l.bodyAt(body, p, off)
}

func (l *Layer) bodyAt(body tree.Body, p []byte, off int64) error {
	if err := l.refuseBad(body.Sum); err != nil {
		return err
	}
	n, err := l.from.BodyAt(body.Sum, body.Size, place(body), p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: body %x is shorter than %d bytes", ErrDamaged, body.Sum, body.Size)
	}
	return err
}

// fillSparse reads the data extents that p overlaps and zeros the rest.
func (l *Layer) fillSparse(ino tree.Ino, body tree.Body, p []byte, off int64) error {
	for len(p) > 0 {
		e, stored, ok, err := l.tree.SparseAt(ino, off)
		if err != nil {
			return treeError(err)
		}
		if !ok || e.Offset >= off+int64(len(p)) {
			clear(p)
			return nil
		}
		if hole := e.Offset - off; hole > 0 {
			clear(p[:hole])
			p, off = p[hole:], e.Offset
		}
		n := min(e.Offset+e.Length-off, int64(len(p)))
		if err := l.bodyAt(body, p[:n], stored+off-e.Offset); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// Bytes returns n bytes of a regular file from off on without copying them, when
// they lie in a pack and the file has no holes. They are valid until Close.
func (l *Layer) Bytes(ino tree.Ino, off, n int64) ([]byte, bool) {
	body, ok, err := l.tree.Body(ino)
	if err != nil || !ok || body.Place.Pack == 0 || l.bad[body.Sum] {
		return nil, false
	}
	a, err := l.tree.Attr(ino)
	if err != nil || a.Sparse || off >= a.Size {
		return nil, false
	}
	b, err := l.from.PackBytes(place(body), off, min(n, a.Size-off))
	return b, err == nil
}

// OpenBody opens the file of the store that holds the content of a regular file,
// and nothing else; ok is false when there is no such file, because the content is
// empty, sparse or in a pack.
func (l *Layer) OpenBody(ino tree.Ino) (f *os.File, ok bool, err error) {
	body, has, err := l.tree.Body(ino)
	if err != nil || !has || body.Place.Pack != 0 || l.bad[body.Sum] {
		return nil, false, treeError(err)
	}
	a, err := l.tree.Attr(ino)
	if err != nil || a.Sparse {
		return nil, false, treeError(err)
	}
	f, err = l.from.OpenObject(body.Sum)
	return f, err == nil, err
}
