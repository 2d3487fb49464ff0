package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/layerfs/layerfs/fs/internal/mount"
	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/union"
)

// A Server is a mounted file system that this process answers for.
type Server struct {
	dir        string
	image      string // ID of the image of a single mount, else ""
	minor      uint32 // device number of the mount, 0 when not known
	allowOther bool
	fs         *fileSystem
	conn       *wire.Conn

	replace    sync.Mutex // held while the snapshot is replaced
	missed     bool       // a change could not be read; guarded by replace
	collecting atomic.Bool
	prune      pruner // guarded by replace
	stop       context.CancelFunc
	keepers    sync.WaitGroup
	finished   chan struct{} // closed when nothing of the server runs any more
	gaveUp     chan struct{} // closed when Detach does not wait for the users of the mount
	giveUp     sync.Once

	stack    []layers.DiffID // of a mount of layers
	keeper   Keeper
	left     map[string]Kept
	process  func() any
	keepLock sync.Mutex // held while something is given to the keeper; under replace
	keeping  bool       // guarded by keepLock
	kept     *os.File   // the catalogue that was kept last; guarded by keepLock
}

// readAheadKiB is how much the kernel reads ahead where it lets us say so.
const readAheadKiB = 1024

// Mount mounts the store at dir, an existing directory. The mount answers when Mount returns. What is left there of a
// mount whose server has died is cleaned away first. The store must stay open until Serve has returned.
func Mount(store *layers.Store, dir string, o *Options) (*Server, error) {
	return start(store, dir, "", o)
}

// MountImage mounts the root file system of one image, named as layers.Store.Image understands it, at dir. It shows
// that image for as long as it is mounted, whatever happens to the name.
func MountImage(store *layers.Store, name, dir string, o *Options) (*Server, error) {
	if o.resumes() {
		return start(store, dir, "", o)
	}
	img, err := store.Image(context.Background(), name)
	if err != nil {
		return nil, err
	}
	return start(store, dir, string(img.ID), o)
}

// MountLayer mounts what a layer, named by its DiffID or as a layer record, shows together with the layers below it.
func MountLayer(store *layers.Store, name, dir string, o *Options) (*Server, error) {
	if o.resumes() {
		return start(store, dir, "", o)
	}
	stack, err := store.LayerStack(context.Background(), name)
	if err != nil {
		return nil, err
	}
	return startOf(store, dir, "layer "+name, func(s *Server) error { return s.prepareStack(stack) }, o)
}

// CleanDead takes away what is left at dir of mounts whose server has died, and reports whether there was anything.
func CleanDead(dir string) (bool, error) {
	dir, err := mount.Clean(dir)
	if err != nil {
		return false, err
	}
	return mount.CleanDead(dir)
}

// start does the work of Mount and MountImage.
func start(store *layers.Store, dir, image string, o *Options) (*Server, error) {
	return startOf(store, dir, image, func(s *Server) error { return s.prepare(image) }, o)
}

// startOf mounts what prepare prepares; image is empty for the whole store.
func startOf(store *layers.Store, dir, image string, prepare func(*Server) error, o *Options) (*Server, error) {
	set, err := o.settle(store.Root())
	if err != nil {
		return nil, err
	}
	f := newFileSystem(store, set)
	if _, ok := set.left[keptImage]; ok {
		s, err := resume(f, set.left, set)
		if err != nil {
			return nil, err
		}
		s.serve()
		return s, nil
	}
	if dir, err = mount.Clean(dir); err != nil {
		return nil, err
	}
	if err := f.counters.open(); err != nil {
		set.log.Debug("handover", "error", err)
	}
	s := newServer(dir, image, f, set)
	// The kernel, or fusermount3, takes about as long as reading the catalogue.
	mounting := make(chan unserved, 1)
	go func() { mounting <- mountAt(dir, set) }()
	err = prepare(s)
	m := <-mounting
	if err != nil {
		if m.err == nil {
			err = errors.Join(err, mount.Unmount(dir, true), m.device.Close())
		}
		return nil, err
	}
	if m.err != nil {
		return nil, m.err
	}
	if err := s.attach(m.device, set); err != nil {
		return nil, err
	}
	s.serve()
	return s, nil
}

// newServer returns a server that has neither something to show nor a connection.
func newServer(dir, image string, f *fileSystem, set *settings) *Server {
	s := &Server{
		dir: dir, image: image, allowOther: set.mount.AllowOther, fs: f, keeper: set.keeper, left: set.left, process: set.process,
		finished: make(chan struct{}), gaveUp: make(chan struct{}),
	}
	f.status.info, f.status.last, f.status.resumed = s.status, f.counters.at(figureStatus), f.resumed
	if set.containers != "" && image == "" {
		f.beside = &containersBeside{dir: set.containers, below: dir, ready: make(chan struct{}), set: set}
	}
	return s
}

// unserved is a mount that nobody answers for yet.
type unserved struct {
	device *os.File
	err    error
}

// mountAt mounts at dir, from which it takes away what a dead server has left.
func mountAt(dir string, set *settings) unserved {
	if _, err := mount.CleanDead(dir); err != nil {
		return unserved{err: err}
	}
	device, err := mount.Mount(dir, set.mount)
	return unserved{device, err}
}

// newFileSystem returns a file system that shows nothing yet.
func newFileSystem(store *layers.Store, set *settings) *fileSystem {
	f := &fileSystem{
		store: store, log: set.log, owners: set.owners, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()),
		trusted: os.Geteuid() == 0, started: time.Now(), root: rootID, cache: union.NewCache(0),
	}
	f.snap.Store(emptySnapshot())
	return f
}

// prepare reads the catalogue, and for a single image opens its layers, so that collection leaves them alone from now
// on.
func (s *Server) prepare(image string) error {
	c, err := s.fs.store.Catalogue(context.Background())
	if err != nil {
		return err
	}
	snap := s.fs.newSnapshot(s.fs.snap.Load(), c, s.fs.started)
	s.fs.snap.Store(snap)
	if image == "" {
		return nil
	}
	for slot, img := range snap.images {
		if string(img.id) != image {
			continue
		}
		s.fs.root = nodeID(kindViewDir, slot, rootDir)
		if len(img.layers) == 0 {
			s.fs.root = nodeID(kindViewObject, slot, viewEmpty)
			return nil
		}
		_, err := s.fs.tree(img)
		return err
	}
	return fmt.Errorf("%w: %s was removed just now", layers.ErrImageUnknown, image)
}

// prepareStack shows the union of layers, bottom first, and opens them.
func (s *Server) prepareStack(stack []layers.DiffID) error {
	if err := s.prepare(""); err != nil {
		return err
	}
	s.stack = stack
	return s.showStack(s.fs.snap.Load(), stack)
}

// showStack does the work of prepareStack on a snapshot that nobody else has seen yet.
func (s *Server) showStack(snap *snapshot, stack []layers.DiffID) error {
	known := map[layers.DiffID]*layer{}
	for _, l := range snap.layers {
		known[l.diffID] = l
	}
	img := &image{}
	for _, d := range stack {
		if known[d] == nil {
			return fmt.Errorf("%w: %s was removed just now", layers.ErrLayerUnknown, d)
		}
		img.layers = append(img.layers, known[d])
	}
	// No image and no name has the last slot.
	snap.views[maxSlot] = &view{slot: maxSlot, image: img, parent: rootID, created: s.fs.started, lookups: new(counter)}
	s.fs.root = nodeID(kindViewDir, maxSlot, rootDir)
	if len(stack) == 0 {
		s.fs.root = nodeID(kindViewObject, maxSlot, viewEmpty)
		return nil
	}
	_, err := s.fs.tree(img)
	return err
}

// connect makes the connection, on which nothing happens yet.
func (s *Server) connect(device *os.File, set *settings) {
	s.conn = wire.New(device, s.fs, newRaw(s.fs), wire.Options{
		Workers: set.workers, Passthrough: set.passthrough, IDMapped: os.Geteuid() == 0,
		Panicked: func(op string, node uint64, reason any) {
			s.fs.log.Error("a request was answered with EIO", "operation", op, "node", fmt.Sprintf("%#x", node), "reason", reason)
		},
	})
	s.fs.conn = s.conn
	if set.passthrough {
		s.fs.backing = &passthrough{conn: s.conn, files: map[uint64]*backing{}}
	}
}

// attach begins to answer.
func (s *Server) attach(device *os.File, set *settings) error {
	s.connect(device, set)
	if err := s.conn.Start(); err != nil {
		return errors.Join(err, mount.Unmount(s.dir, true), s.conn.Close())
	}
	if err := s.conn.Probe(s.dir); err != nil {
		set.log.Debug("the kernel may send POLL", "error", err)
	}
	var ok bool
	if s.minor, ok = mount.Device(s.dir); ok && os.Geteuid() == 0 {
		if err := mount.ReadAhead(s.minor, readAheadKiB); err != nil {
			set.log.Debug("read-ahead stays as it is", "error", err)
		}
	}
	return nil
}

// serve starts what runs beside the workers and ends with them.
func (s *Server) serve() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if s.image == "" {
		s.keepers.Go(func() { s.watch(ctx) })
		s.keepers.Go(func() { s.tick(ctx) })
	}
	if s.fs.beside != nil {
		go s.fs.beside.start(s.fs)
	}
	if s.fs.resumed {
		s.keepers.Go(func() {
			if s.image == "" {
				s.reload(ctx)
			}
			s.reopen(s.left)
		})
	}
	go func() {
		<-s.conn.Done()
		stop()
		if s.fs.beside != nil {
			s.fs.beside.end(s.fs.log)
		}
		s.keepers.Wait()
		s.closeLayers()
		s.dropKept()
		if err := s.conn.Close(); err != nil {
			s.fs.log.Warn("close /dev/fuse", "error", err)
		}
		close(s.finished)
	}()
}

// Serve returns when the file system is unmounted, by Unmount or by anybody else, with the reason when it ended
// otherwise.
func (s *Server) Serve() error {
	select {
	case <-s.finished:
		return s.conn.Err()
	case <-s.gaveUp:
		return nil
	}
}

// endWait is how long the end of the workers is waited for after an unmount.
const endWait = 2 * time.Second

// Unmount unmounts and waits until the server has ended. A mount in use stays and gives ErrMountBusy; see Detach.
func (s *Server) Unmount() error {
	if err := s.unmount(false); err != nil {
		return err
	}
	select {
	case <-s.finished:
		return s.conn.Err()
	case <-time.After(endWait):
		return fmt.Errorf("%s: unmounted here, but another mount namespace still holds the file system", s.dir)
	}
}

// Detach unmounts whether the mount is in use or not, and makes Serve return: processes that still use it get errors
// when this one ends.
func (s *Server) Detach() error {
	err := s.unmount(true)
	if errors.Is(err, ErrNotMounted) {
		err = nil
	}
	if s.fs.beside != nil {
		s.fs.beside.end(s.fs.log)
	}
	select {
	case <-s.finished:
		return err
	case <-time.After(endWait / 4):
	}
	if s.minor != 0 && mount.Abort(s.minor) == nil {
		select {
		case <-s.finished:
			return err
		case <-time.After(endWait):
		}
	}
	s.giveUp.Do(func() { close(s.gaveUp) })
	return err
}

// unmount takes our mount away, and no other that may lie on top of it.
func (s *Server) unmount(lazy bool) error {
	select {
	case <-s.finished:
		return fmt.Errorf("%s: %w", s.dir, ErrNotMounted)
	default:
	}
	if minor, ok := mount.Device(s.dir); ok && s.minor != 0 && minor != s.minor {
		return fmt.Errorf("%s: something else is mounted over it: %w", s.dir, ErrMountBusy)
	}
	return mount.Unmount(s.dir, lazy)
}

// Mountpoint returns the directory of the mount, absolute and without symbolic links.
func (s *Server) Mountpoint() string { return s.dir }

// Fd returns the descriptor of the connection to the kernel. With it and InitMessage another process can take the
// mount over, since node IDs mean the same there.
func (s *Server) Fd() int { return s.conn.Fd() }

// InitMessage returns the first message of the kernel as it came.
func (s *Server) InitMessage() []byte { return s.conn.InitMessage() }

// Stats are figures about a Server.
type Stats struct {
	Generation            uint64 // of the catalogue that is shown
	Images, Names, Layers int
	OpenLayers            int
	Lingering             int               // layers that were removed and are still in use
	Known                 int64             // files of images that the kernel remembers
	Requests              map[string]uint64 // answered so far, by operation
}

// Stats returns the present figures.
func (s *Server) Stats() Stats {
	snap := s.fs.snap.Load()
	st := Stats{
		Generation: snap.generation, Images: len(snap.images), Names: len(snap.views) - len(snap.goneViews) - len(snap.images),
		Layers: len(snap.layers) - len(snap.goneLayers), Lingering: len(snap.goneLayers), Requests: s.conn.Counts(),
	}
	for _, l := range snap.layers {
		if l.open.Load() != nil {
			st.OpenLayers++
		}
		st.Known += l.lookups.Load()
	}
	for _, v := range snap.views {
		st.Known += v.lookups.Load()
	}
	return st
}
