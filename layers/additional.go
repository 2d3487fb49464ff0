package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/layers/graphroot"
)

// A lower is a store that is only read. It is searched for what the own store does
// not have.
type lower interface {
	// Root returns its directory.
	Root() string
	// base returns the Store that its records, blobs and leases are in.
	base() *Store
	// view is index.DB.View on its index.
	view(ctx context.Context, fn func(*index.Tx) error) error
	// Blob returns a manifest or a config, verified.
	Blob(d digest.Digest) ([]byte, error)
	// OpenLayer opens a layer, or returns ErrLayerUnknown.
	OpenLayer(d DiffID) (*Layer, error)
	// openLayerBlob opens a layer blob, or returns ErrLayerUnknown or ErrBlobGone.
	openLayerBlob(ctx context.Context, d digest.Digest) (*LayerBlob, error)
	// OwnInfo counts what it holds.
	OwnInfo(ctx context.Context) (*Info, error)
	// refresh takes notice of changes that others have made.
	refresh() error
	// notes are sentences about what in it cannot be used.
	notes() []string
	// Close releases what it holds.
	Close() error
}

func (s *Store) base() *Store { return s }

func (s *Store) refresh() error { return nil }

func (s *Store) notes() []string { return nil }

func (s *Store) view(ctx context.Context, fn func(*index.Tx) error) error {
	return s.index.DB.View(ctx, fn)
}

// An additional is a place where an additional store is expected. The store may come
// and go, such as one on a medium that can be taken out.
type additional struct {
	root string
	s    *Store // whose additional store it is

	mu    sync.Mutex // guards the rest
	store lower      // the last one that was there
	mark  fileMark   // of store
}

// A fileMark tells a file from all others.
type fileMark struct{ dev, ino uint64 }

// markOf returns the mark of what makes a directory a store: its format file, or the
// directories of a graph root.
func markOf(root string) (mark fileMark, err error) {
	for _, name := range []string{"format", "overlay-images", "overlay-layers"} {
		var st unix.Stat_t
		err = unix.Stat(filepath.Join(root, name), &st)
		if err == nil {
			return fileMark{uint64(st.Dev), st.Ino}, nil
		}
		err = &os.PathError{Op: "stat", Path: filepath.Join(root, name), Err: err}
		if !errors.Is(err, os.ErrNotExist) {
			return mark, err
		}
	}
	if _, other := graphroot.Is(root); other != nil {
		return mark, other
	}
	return mark, err
}

// use returns the store that is there now, or ErrStoreGone with the reason.
func (a *additional) use() (lower, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	mark, err := markOf(a.root)
	st := a.store
	switch {
	case err != nil:
	case st != nil && mark == a.mark:
		err = st.refresh()
	default:
		st, err = a.open()
	}
	if err == nil { // one whose index cannot be read is as good as none
		err = st.view(context.Background(), func(*index.Tx) error { return nil })
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrStoreGone, a.root, reason(err))
	}
	// Layers of the one before may still be open, so it is left to the garbage collector.
	a.store, a.mark = st, mark
	return st, nil
}

// reason leaves out of an error what ErrStoreGone and the path have said already.
func reason(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("there is no store; mount or restore it, or take it out of the configuration")
	case errors.Is(err, os.ErrPermission):
		return errors.New("permission denied; its owner can let others read it with chmod -R a+rX")
	}
	return err
}

func (a *additional) open() (lower, error) {
	if own, err := markOf(a.s.root); err == nil {
		if other, err := markOf(a.root); err == nil && own == other {
			return nil, errors.New("is the store itself; take it out of the configuration")
		}
	}
	if _, err := os.Stat(filepath.Join(a.root, "format")); errors.Is(err, os.ErrNotExist) {
		return openGraph(a.s, a.root)
	}
	return Open(a.root, &Options{ReadOnly: true, Timeout: a.s.timeout})
}

func (a *additional) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.store == nil {
		return nil
	}
	return a.store.Close()
}

// lowers returns the additional stores that are there, in the order of the search.
func (s *Store) lowers() []lower {
	var list []lower
	for _, a := range s.additional {
		if st, err := a.use(); err == nil {
			list = append(list, st)
		}
	}
	return list
}

// openLowerBlob opens a layer blob in the first additional store that has it, or
// returns the own store's error.
func (s *Store) openLowerBlob(ctx context.Context, d digest.Digest, own error) (*LayerBlob, error) {
	for _, st := range s.lowers() {
		b, err := st.openLayerBlob(ctx, d)
		if !errors.Is(err, ErrLayerUnknown) && !errors.Is(err, ErrBlobGone) {
			return b, err
		}
	}
	return nil, own
}

// An indexes is the index of a store with those of its additional stores behind it.
type indexes struct {
	*index.DB
	s *Store
}

// View calls fn with the own index and, when that does not have what fn looks for,
// with those of the additional stores in turn, until fn finds it.
func (x *indexes) View(ctx context.Context, fn func(*index.Tx) error) error {
	_, err := x.find(ctx, fn)
	return err
}

// find is View; it returns the additional store in which fn found what it looked
// for, nil for the own one.
func (x *indexes) find(ctx context.Context, fn func(*index.Tx) error) (lower, error) {
	err := x.DB.View(ctx, fn)
	if !isUnknown(err) {
		return nil, err
	}
	for _, st := range x.s.lowers() {
		if lerr := st.view(ctx, fn); !isUnknown(lerr) {
			return st, lerr
		}
	}
	return nil, x.s.explainGone(err)
}

// Update calls fn with the own index alone. When that does not have what is to be
// changed, but an additional store does, the error is ErrReadOnly.
func (x *indexes) Update(ctx context.Context, purpose string, fn func(*index.Tx) error) error {
	return x.s.explainReadOnly(ctx, x.DB.Update(ctx, purpose, fn))
}

func isUnknown(err error) bool {
	var u *unknownError
	return errors.As(err, &u) || errors.Is(err, ErrImageUnknown) || errors.Is(err, ErrLayerUnknown) || errors.Is(err, ErrNotAnID)
}

// An unknownError is an error such as ErrImageUnknown about something.
type unknownError struct {
	target   error
	id, hint string
}

func (e *unknownError) Error() string { return fmt.Sprintf("%v: %q; %s", e.target, e.id, e.hint) }

func (e *unknownError) Unwrap() error { return e.target }

// explainReadOnly makes ErrReadOnly of an unknownError about something that an
// additional store has.
func (s *Store) explainReadOnly(ctx context.Context, err error) error {
	var u *unknownError
	if len(s.additional) == 0 || !errors.As(err, &u) {
		return err
	}
	for _, st := range s.lowers() {
		ferr := st.view(ctx, func(tx *index.Tx) error {
			switch u.target {
			case ErrLayerUnknown:
				_, err := findLayer(tx, u.id)
				return err
			case ErrNotAnID:
				_, err := resolveItem(tx, u.id)
				return err
			}
			_, _, err := resolve(tx, u.id)
			return err
		})
		if ferr == nil {
			return fmt.Errorf("%w: %q is in the additional store %s, which can only be changed there", ErrReadOnly, u.id, st.Root())
		}
	}
	return s.explainGone(err)
}

// explainGone says with an error about something unknown which stores could not be
// searched.
func (s *Store) explainGone(err error) error {
	for _, gone := range s.Gone() {
		err = fmt.Errorf("%w (not searched: %w)", err, gone)
	}
	return err
}

// Gone returns an error for each additional store that cannot be used now.
func (s *Store) Gone() []error {
	var list []error
	for _, a := range s.additional {
		if _, err := a.use(); err != nil {
			list = append(list, err)
		}
	}
	return list
}

// An AdditionalInfo says what one of the additional stores is.
type AdditionalInfo struct {
	Root   string `json:"root"`
	Images int    `json:"images"`
	Layers int    `json:"layers"`
	// Error says why the store cannot be used; empty when it can.
	Error string `json:"error,omitempty"`
	// Notes say what in it cannot be used.
	Notes []string `json:"notes,omitempty"`
}

// Additional tells about the additional stores, in the order of the search.
func (s *Store) Additional(ctx context.Context) []AdditionalInfo {
	out := make([]AdditionalInfo, len(s.additional))
	for i, a := range s.additional {
		out[i].Root = a.root
		st, err := a.use()
		if err == nil {
			var info *Info
			if info, err = st.OwnInfo(ctx); err == nil {
				out[i].Images, out[i].Layers, out[i].Notes = info.Images, info.Layers, st.notes()
			}
		}
		if err != nil {
			out[i].Error = err.Error()
		}
	}
	return out
}
