package fs

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/union"
)

// counter counts what the kernel remembers of a layer or view: one for each node that a look-up or a listing gave it,
// less what it has forgotten.
type counter struct{ atomic.Int64 }

// A view is an image directory.
type view struct {
	slot     uint32
	image    *image
	dir      string // path of the directory that holds it, below images/; "" also for views by ID
	base     string // its name there
	name     string // of the image; "" for views by ID
	depth    int    // components of its path below images/
	parent   uint64 // node of the directory that holds it
	manifest ocispec.Descriptor
	created  time.Time
	lookups  *counter // shared by the views that had this slot
}

// An image is a stack of layers that several views may show.
type image struct {
	id     digest.Digest
	config ocispec.Descriptor
	layers []*layer // bottom first

	stack atomic.Pointer[stack]
	mu    sync.Mutex // guards the making of stack

	oci ociImages
}

// A stack is the merged tree of an image whose layers are open.
type stack struct {
	*union.Stack
	root   union.DirID
	linked bool // some layer has hard links to files of lower ones
}

// A layer is a layer of the store that is opened when it is first used.
type layer struct {
	slot    uint32
	diffID  layers.DiffID
	lookups *counter

	about atomic.Pointer[layers.CatalogueLayer]
	open  atomic.Pointer[layers.Layer]
	mu    sync.Mutex // guards the making of open

	created time.Time

	// Of a layer whose directories are shown in a second place, under a slot of their own: a directory can have only
	// one place in a mount. Everything else is the layer's.
	base  *layer
	above uint64 // the directory that holds diff/
}

// self returns the layer of which l shows the directories, which mostly is l.
func (l *layer) self() *layer {
	if l.base != nil {
		return l.base
	}
	return l
}

// layerAt returns the layer of a slot, also that of directories that are shown a second time.
func (s *snapshot) layerAt(slot uint32) *layer {
	if l := s.layers[slot]; l != nil {
		return l
	}
	if v := s.podman.made.Load(); v != nil {
		return v.again[slot]
	}
	return nil
}

// describe sets what the catalogue says about the layer.
func (l *layer) describe(c *layers.CatalogueLayer) {
	if l.about.Load() == nil {
		l.created = c.Created
	}
	l.about.Store(c)
}

// use returns the open layer. It stays open while the layer is in a snapshot.
func (f *fileSystem) use(l *layer) (*layers.Layer, error) {
	l = l.self()
	if o := l.open.Load(); o != nil {
		return o, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.open.Load(); o != nil {
		return o, nil
	}
	o, err := f.store.OpenLayer(l.diffID)
	if err != nil {
		return nil, err
	}
	l.open.Store(o)
	return o, nil
}

// tree returns the merged tree of an image, whose layers it opens. Preconditions: the image has layers.
func (f *fileSystem) tree(img *image) (*stack, error) {
	if st := img.stack.Load(); st != nil {
		return st, nil
	}
	img.mu.Lock()
	defer img.mu.Unlock()
	if st := img.stack.Load(); st != nil {
		return st, nil
	}
	trees := make([]*tree.Tree, len(img.layers))
	for i, l := range img.layers {
		o, err := f.use(l)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.id, err)
		}
		trees[i] = o.Tree()
	}
	st := f.newStack(trees)
	img.stack.Store(st)
	return st, nil
}

// symlinkName is the name of the link to layer i of n: 01-<12 digits>, with as many digits as n has but at least two.
func symlinkName(i, n int, d layers.DiffID) string {
	return fmt.Sprintf("%0*d-%.12s", max(2, len(fmt.Sprint(n))), i+1, d.Hex())
}

// symlinkTarget is the target of a link in the layers/ directory of a view: up to the root of the mount (images/, the
// components of the view, layers/) and down again.
func (v *view) symlinkTarget(d layers.DiffID) string {
	return strings.Repeat("../", v.depth+2) + "layers/sha256/" + d.Hex()
}
