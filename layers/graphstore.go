package layers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/layerfs/layerfs/layers/graphroot"
)

// A graphStore is a graph root of containers/storage as an additional store. It is
// seen through a store directory in the cache of the own store, which has the
// records, the documents and, once a layer has been opened, its table and split
// metadata, but no bodies: those are read from the files of the graph root.
//
// The records follow the lists of the graph root. The table of a layer is made from
// its tar-split file when it is first opened; all of its files are read once for
// that, because nothing is believed whose digest is not right.
type graphStore struct {
	*Store // the directory in the cache
	root   *graphroot.Root

	mu       sync.Mutex // guards the rest
	mark     string     // of the lists that the records are of
	places   map[DiffID][]graphroot.Layer
	unusable []string // sentences about images that are left out

	building sync.Mutex // held while a table is made
}

// openGraph opens a graph root with a cache that belongs to the store own.
func openGraph(own *Store, dir string) (*graphStore, error) {
	if _, err := graphroot.Is(dir); err != nil {
		return nil, err
	}
	cache, err := own.cacheDir()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dir))
	cache = filepath.Join(cache, "graphroot-"+hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(filepath.Dir(cache), 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	g := &graphStore{root: graphroot.New(dir)}
	if g.Store, err = Open(cache, &Options{Timeout: own.timeout, Disk: own.disk}); err != nil {
		return nil, fmt.Errorf("cache: %w; it can be removed, it is made anew", err)
	}
	g.Store.graph = g
	if err := g.refresh(); err != nil {
		return nil, errors.Join(err, g.Store.Close())
	}
	return g, nil
}

// cacheDir is where a store keeps what can be made anew: in the store, or for one
// that is read-only in the user's cache directory.
func (s *Store) cacheDir() (string, error) {
	if !s.readOnly {
		return filepath.Join(s.root, "cache"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("the store is read-only, and there is no other place for a cache: %w", err)
	}
	return filepath.Join(dir, "layerfs"), nil
}

// Root implements lower.
func (g *graphStore) Root() string { return g.root.Dir() }

func (g *graphStore) notes() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.unusable
}

// OpenLayer implements lower. The first time it makes the layer's table.
func (g *graphStore) OpenLayer(d DiffID) (*Layer, error) {
	l, err := g.Store.OpenLayer(d)
	if !errors.Is(err, ErrLayerUnknown) {
		return l, err
	}
	if _, err := g.place(d); err != nil {
		return nil, err
	}
	if err := g.build(context.Background(), d); err != nil {
		return nil, fmt.Errorf("layer %s of %s: %w", d, g.Root(), err)
	}
	return g.Store.OpenLayer(d)
}

// place returns a layer of the graph root that has the DiffID and whose files are
// there.
func (g *graphStore) place(d DiffID) (graphroot.Layer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.places[d] {
		if g.root.Has(l.ID) {
			return l, nil
		}
	}
	if len(g.places[d]) > 0 {
		return graphroot.Layer{}, fmt.Errorf("%w: the files of layer %s are missing in %s", ErrDamaged, d, g.Root())
	}
	return graphroot.Layer{}, fmt.Errorf("%w: %s", ErrLayerUnknown, d)
}
