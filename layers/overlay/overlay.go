package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

// Layer is what is read of a layer besides its tree.
type Layer interface {
	Tree() *tree.Tree
	// ReadAt reads the content of a regular file; holes are zeros.
	ReadAt(ino tree.Ino, p []byte, off int64) (int, error)
	// Bytes returns content without copying it, where that is possible.
	Bytes(ino tree.Ino, off, n int64) ([]byte, bool)
	// OpenBody opens the file of the store that is the content and nothing else, if there is one.
	OpenBody(ino tree.Ino) (f *os.File, ok bool, err error)
}

// Options say what a union is made of.
type Options struct {
	// Layers of the image, bottom first; there may be none.
	Layers []Layer
	// Cache is used for the merged tree; nil means one of its own.
	Cache *union.Cache
	// Upper, Work and Meta are directories, the first two on one file system.
	Upper, Work, Meta string
	// Format is the form of the upper directory.
	Format *upper.Format
	// ReadOnly refuses every change with EROFS: another process may be writing.
	ReadOnly bool
	// Slowly is called with what may take long, and calls it; nil calls it at once.
	Slowly func(fn func())
	// Memory is where nodes are kept, and where those are that another process has left,
	// under the number Tree, which has 16 bits; nil: they end with this process.
	Memory *Memory
	Tree   uint32
	// Keeper keeps files without a name, if set; Left are those of another process.
	Keeper Keeper
	Left   map[ID]*os.File
}

// An FS is an open union. Its methods may be called from any number of goroutines.
type FS struct {
	below     *union.Stack // nil: no layers
	belowRoot union.DirID
	layers    []Layer
	format    *upper.Format
	meta      string
	upperPath string
	readOnly  bool
	slowly    func(fn func())

	memory *Memory
	tree   uint32
	keeper Keeper

	root *node
	work int // descriptor
	fds  fds
	temp atomic.Uint64

	mu     sync.Mutex // guards what follows, and the counters of nodes
	nodes  map[ID]*node
	byHost map[uint64]*node
	born   ID

	movedOnce sync.Once
	marked    sync.Once
	markErr   error

	unlinked unlinked
}

// noDirID is the number of no directory.
const noDirID = union.DirID(1<<32 - 1)

// Open opens a union. The layers stay the caller's and must be open for as long as it
// is. Unless it is read-only, nobody else may write into the upper directory
// meanwhile; what a killed process left in the work directory is brought to an end.
func Open(o *Options) (*FS, error) {
	if len(o.Layers) >= MaxLayers {
		return nil, fmt.Errorf("%d layers are more than the %d that a container can have", len(o.Layers), MaxLayers-1)
	}
	f := &FS{
		layers: o.Layers, format: o.Format, meta: o.Meta, upperPath: o.Upper, readOnly: o.ReadOnly, slowly: o.Slowly, belowRoot: noDirID,
		nodes: map[ID]*node{}, byHost: map[uint64]*node{}, born: Root, work: -1, memory: o.Memory, tree: o.Tree, keeper: o.Keeper,
	}
	if f.format.User() {
		f.format.Guard = f.markFuseOnly
	}
	f.fds.init()
	if len(o.Layers) > 0 {
		trees := make([]*tree.Tree, len(o.Layers))
		for i, l := range o.Layers {
			trees[i] = l.Tree()
		}
		cache := o.Cache
		if cache == nil {
			cache = union.NewCache(0)
		}
		f.below = cache.New(trees)
		f.belowRoot = f.below.DirID(f.below.Root())
	}
	if err := f.openDirs(o); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *FS) openDirs(o *Options) error {
	fd, err := unix.Open(o.Upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: o.Upper, Err: err}
	}
	e, err := f.format.Read(upper.At{Dir: fd})
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("%s: %w", o.Upper, err)
	}
	f.root = &node{id: Root, ino: Root, kind: unix.S_IFDIR, e: e, sticky: true, host: e.HostIno}
	f.root.up.Store(true)
	if f.below != nil && !e.Opaque {
		f.root.lower, f.root.hasLower = f.below.Root(), true
	}
	f.fds.adopt(f.root, fd)
	f.nodes[Root], f.byHost[e.HostIno] = f.root, f.root
	f.restore(o.Left)
	if err := f.unlinked.load(filepath.Join(o.Meta, "unlinked"), o.ReadOnly); err != nil || o.ReadOnly {
		return err
	}
	if f.work, err = unix.Open(o.Work, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: o.Work, Err: err}
	}
	return f.recover()
}

// Close gives back what the union holds, and what its Memory has of it. No other
// method may be running.
func (f *FS) Close() error {
	for _, n := range f.nodes {
		f.forgetRecord(n)
		f.take(n)
	}
	f.fds.closeAll(f.nodes)
	err := f.unlinked.close()
	if f.work >= 0 {
		err = errors.Join(err, unix.Close(f.work))
	}
	return err
}

// slow calls fn, which may take long.
func (f *FS) slow(fn func() error) (err error) {
	if f.slowly == nil {
		return fn()
	}
	f.slowly(func() { err = fn() })
	return err
}

// writable returns EROFS for a union that is only read.
func (f *FS) writable() error {
	if f.readOnly {
		return unix.EROFS
	}
	return nil
}

// markFuseOnly writes down that the kernel must not read the upper directory, before
// the first thing in it that it would misread.
func (f *FS) markFuseOnly() error {
	f.marked.Do(func() { f.markErr = upper.MarkFuseOnly(f.meta) })
	return f.markErr
}

// markPlaceholder does so for a file that needs a placeholder.
func (f *FS) markPlaceholder(want *upper.Override) error {
	if f.format.NeedsPlaceholder(want) {
		return f.markFuseOnly()
	}
	return nil
}

// redirect marks the node at a place with where its content is below.
func (f *FS) redirect(at upper.At, path string) error {
	if f.format.User() {
		if err := f.markFuseOnly(); err != nil {
			return err
		}
	}
	return f.format.SetRedirect(at, path)
}

// tempName returns a name in the work directory that is free. It ends in letters that
// say what becomes of it should the process be killed.
func (f *FS) tempName(suffix string) string {
	return fmt.Sprintf("lfs-%d%s", f.temp.Add(1), suffix)
}

// Stats are figures about a union.
type Stats struct {
	Nodes int // in memory
	Files int // descriptors that are open
}

// Stats returns the present figures.
func (f *FS) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Stats{Nodes: len(f.nodes), Files: f.fds.len()}
}
