package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/fs/internal/mount"
	"github.com/layerfs/layerfs/fs/internal/wire"
	"github.com/layerfs/layerfs/layers"
)

// A Containers is a mount of containers that this process answers for: a connection of its own, which can be written.
type Containers struct {
	dir      string
	minor    uint32
	t        *trees
	stop     context.CancelFunc
	keepers  sync.WaitGroup
	finished chan struct{} // closed when nothing runs any more
	gaveUp   chan struct{}
	giveUp   sync.Once
}

// syncWait is how long the writing of what the kernel has in its cache is waited for before an unmount.
const syncWait = 30 * time.Second

// MountContainers mounts the directory of all containers at dir: DIR/NAME/rootfs and so on. The store must have been
// opened for writing, and must stay open until Serve has returned.
func MountContainers(store *layers.Store, dir string, o *Options) (*Containers, error) {
	return startContainers(store, dir, "", o)
}

// MountContainer mounts the tree of one container, named as layers.Store.Container understands it, at dir.
func MountContainer(store *layers.Store, nameOrID, dir string, o *Options) (*Containers, error) {
	c, err := store.Container(context.Background(), nameOrID)
	if err != nil {
		return nil, err
	}
	return startContainers(store, dir, c.ID, o)
}

func startContainers(store *layers.Store, dir, id string, o *Options) (*Containers, error) {
	set, err := o.settle(store.Root())
	if err != nil {
		return nil, err
	}
	if !o.resumes() {
		if dir, err = mount.Clean(dir); err != nil {
			return nil, err
		}
	}
	set.mount.Writable = true
	return serveContainers(newFileSystem(store, set), dir, id, dir, set)
}

// serveContainers mounts and serves. others are told that the mount at known writes.
func serveContainers(f *fileSystem, dir, id, known string, set *settings) (*Containers, error) {
	s := &Containers{
		dir: dir, finished: make(chan struct{}), gaveUp: make(chan struct{}),
		t: &trees{f: f, log: set.log, dir: known, slots: map[string]uint32{}, own: map[string]int{}},
	}
	s.t.list.Store(&treeList{time: time.Now()})
	s.t.memory.keeper, s.t.memory.left = set.keeper, set.left
	if _, ok := set.left[keptTrees]; ok {
		if err := s.resume(set); err != nil {
			return nil, err
		}
		s.serve()
		return s, nil
	}
	if err := s.t.memory.open(); err != nil {
		set.log.Debug("handover", "error", err)
	}
	s.t.dirs.table = s.t.memory.dirs
	if err := s.prepare(id); err != nil {
		return nil, err
	}
	if err := s.attach(set); err != nil {
		if s.t.single != nil {
			if o := s.t.single.open.Load(); o != nil {
				err = errors.Join(err, o.close())
			}
		}
		return nil, err
	}
	s.serve()
	return s, nil
}

// prepare reads which containers there are, and opens the one that is mounted alone.
func (s *Containers) prepare(id string) error {
	c, err := s.t.f.store.Catalogue(context.Background())
	if err != nil {
		return err
	}
	s.t.mu.Lock()
	list := s.t.newList(c)
	s.t.mu.Unlock()
	s.t.list.Store(list)
	if id == "" {
		return nil
	}
	for _, x := range list.bySlot {
		if x.id != id {
			continue
		}
		s.t.single = x
		_, err := s.t.use(x)
		return err
	}
	return fmt.Errorf("%w: %s was removed just now", layers.ErrContainerUnknown, id)
}

// attach mounts and begins to answer.
func (s *Containers) attach(set *settings) error {
	root := os.Geteuid() == 0
	options := *set
	// An ordinary user is root in his containers, and nobody else gets in: he may write into every file of them and give
	// it to anybody in them. With default_permissions the kernel would not even ask us about a chown.
	options.mount.Unchecked = !root && !set.mount.AllowOther
	s.t.unchecked = options.mount.Unchecked
	m := mountAt(s.dir, &options)
	if m.err != nil {
		return m.err
	}
	s.connect(m.device, set)
	if err := s.t.conn.Start(); err != nil {
		return errors.Join(err, mount.Unmount(s.dir, true), s.t.conn.Close())
	}
	if err := s.t.conn.Probe(s.dir); err != nil {
		set.log.Debug("the kernel may send POLL", "error", err)
	}
	var ok bool
	if s.minor, ok = mount.Device(s.dir); ok && root {
		if err := mount.ReadAhead(s.minor, readAheadKiB); err != nil {
			set.log.Debug("read-ahead stays as it is", "error", err)
		}
	}
	return nil
}

// connect makes the connection, on which nothing happens yet. As root the kernel reads and writes files by itself. Who
// cannot let it may have it keep what is written in its cache (-o writeback); that is not so unasked, because what a
// killed server has not been told yet would be lost.
func (s *Containers) connect(device *os.File, set *settings) {
	root := os.Geteuid() == 0
	s.t.conn = wire.New(device, s.t, newTreeRaw(s.t), wire.Options{
		Writable: true, Passthrough: root, Writeback: set.writeback && !root, Unchecked: s.t.unchecked,
		Panicked: func(op string, node uint64, reason any) {
			set.log.Error("a request was answered with EIO", "operation", op, "node", fmt.Sprintf("%#x", node), "reason", reason)
		},
	})
	if root {
		s.t.passed = newTreeBacking(s.t.conn, &s.t.memory.counters)
	}
}

// serve starts what runs beside the workers and ends with them.
func (s *Containers) serve() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.keepers.Go(func() { s.watch(ctx) })
	s.keepers.Go(func() { s.yield(ctx) })
	go func() {
		<-s.t.conn.Done()
		stop()
		s.keepers.Wait()
		for _, c := range s.t.list.Load().bySlot {
			s.t.closeTree(c)
		}
		s.dropKept()
		if err := s.t.conn.Close(); err != nil {
			s.t.log.Warn("close /dev/fuse", "error", err)
		}
		close(s.finished)
	}()
}

// watch follows the store until ctx ends.
func (s *Containers) watch(ctx context.Context) {
	changed := func() {
		if n, err := s.t.f.store.Generation(ctx); err == nil && n == s.t.list.Load().generation {
			return
		}
		if err := s.t.reload(ctx); err != nil && ctx.Err() == nil {
			s.t.f.report("a change of the containers is not shown yet: " + err.Error())
		}
	}
	if err := s.t.f.store.Watch(ctx, changed); err != nil && ctx.Err() == nil {
		s.t.log.Error("the mount does not follow changes of the store any more", "error", err)
	}
}

// yieldEvery is how often the mount looks whether somebody wants a container that nobody uses here.
const yieldEvery = 500 * time.Millisecond

// yield gives up containers that others want and nobody uses here, until ctx ends.
func (s *Containers) yield(ctx context.Context) {
	t := time.NewTicker(yieldEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, c := range s.t.list.Load().bySlot {
			if o := c.open.Load(); o != nil && o.lock != nil && s.t.f.store.ContainerWanted(c.id) && !s.t.giveUp(c) {
				s.t.f.store.KeepContainer(c.id)
			}
		}
	}
}

// Stop is as that of Server.
func (s *Containers) Stop(wait time.Duration) { s.t.conn.Stop(wait) }

// Mountpoint returns the directory of the mount, absolute and without symbolic links.
func (s *Containers) Mountpoint() string { return s.dir }

// Serve returns when the file system is unmounted, with the reason when it ended otherwise.
func (s *Containers) Serve() error {
	select {
	case <-s.finished:
		return s.t.conn.Err()
	case <-s.gaveUp:
		return nil
	}
}

// Unmount unmounts and waits until nothing runs any more. A mount in use stays and gives ErrMountBusy; see Detach.
func (s *Containers) Unmount() error {
	if err := mount.Unmount(s.dir, false); err != nil {
		return err
	}
	select {
	case <-s.finished:
		return s.t.conn.Err()
	case <-time.After(endWait):
		return fmt.Errorf("%s: unmounted here, but another mount namespace still holds the file system", s.dir)
	}
}

// Detach unmounts whether the mount is in use or not, and makes Serve return.
func (s *Containers) Detach() error {
	s.sync()
	err := mount.Unmount(s.dir, true)
	if errors.Is(err, ErrNotMounted) {
		err = nil
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

// sync has the kernel write what it keeps in its cache.
func (s *Containers) sync() {
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		select {
		case <-s.finished:
			return
		default:
		}
		fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		_ = unix.Syncfs(fd) // who wants to know uses fsync
	}()
	select {
	case <-synced:
	case <-time.After(syncWait):
	}
}

// ReadOnly says which containers can only be read, by name, and why: another process writes into them.
func (s *Containers) ReadOnly() map[string]string {
	out := map[string]string{}
	for _, c := range s.t.list.Load().bySlot {
		if why := c.readOnly.Load(); why != nil && !c.gone.Load() {
			out[*c.name.Load()] = *why
		}
	}
	return out
}
