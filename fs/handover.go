package fs

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/shared"
	"github.com/layerfs/layerfs/layers"
)

// A mount outlives the process that serves it, when somebody keeps the descriptor of the connection and what the next
// process has to know. Node IDs mean the same there. What it cannot compute again:
//
//	image      the connection, the kernel's first message, what is mounted
//	catalogue  what was shown last: of what has changed since, the kernel must be told; what was removed lingers
//	counters   a table: how much the kernel knows of each layer and view
//
// and, of the connection for containers, see containerhandover.go.

// A Keeper keeps things that the next process needs. Put replaces what had the name; fd is -1 for none, and stays open
// until Drop. Both must be quick.
type Keeper interface {
	Put(name string, data []byte, fd int)
	Drop(name string)
}

// Kept is what was kept under a name: some bytes, and a descriptor or nil.
type Kept struct {
	Data []byte
	File *os.File
}

// ErrNoHandover is returned when a mount cannot go on in another process.
var ErrNoHandover = errors.New("the mount ends with its process")

// nobody keeps nothing.
type nobody struct{}

func (nobody) Put(string, []byte, int) {}
func (nobody) Drop(string)             {}

// Names of what is kept.
const (
	keptImage     = "image"
	keptCatalogue = "catalogue"
	keptCounters  = "counters"
)

// mountedImage is what is kept with the connection.
type mountedImage struct {
	Init    []byte // the kernel's first message
	Dir     string
	Image   string // as in Server
	Root    uint64 // node
	Minor   uint32
	Started time.Time
	Stack   []layers.DiffID // of a mount of layers
}

// keep gives away what another process needs to go on with the connection.
func (s *Server) keep(k Keeper) {
	m := mountedImage{
		Init: s.conn.InitMessage(), Dir: s.dir, Image: s.image, Root: s.fs.root, Minor: s.minor, Started: s.fs.started, Stack: s.stack,
	}
	text, err := json.Marshal(m)
	if err != nil {
		s.fs.report("handover: " + err.Error())
		return
	}
	k.Put(keptImage, text, s.conn.Fd())
	k.Put(keptCounters, nil, int(s.fs.counters.table.File().Fd()))
}

// Handover gives the Keeper of the options what another process needs to go on with the mount, and keeps it up to date.
// It returns ErrNoHandover where that is impossible: before Linux 6.9.
func (s *Server) Handover() error {
	if !s.conn.Resendable() {
		return fmt.Errorf("%w: the kernel is older than Linux 6.9", ErrNoHandover)
	}
	if s.fs.counters.table == nil {
		return fmt.Errorf("%w: there is no shared memory", ErrNoHandover)
	}
	s.keepLock.Lock()
	defer s.keepLock.Unlock()
	s.keeping = true
	s.keep(s.keeper)
	return s.keepCatalogue(s.fs.snap.Load())
}

// Stop lets the requests that are being answered come to their end and answers no others: for a process that ends
// because another one goes on.
func (s *Server) Stop(wait time.Duration) {
	var both sync.WaitGroup
	both.Go(func() { s.conn.Stop(wait) })
	if c := s.fs.beside.served(); c != nil {
		both.Go(func() { c.Stop(wait) })
	}
	both.Wait()
}

// keepCatalogue gives away what is shown. Preconditions: s.keepLock is held.
func (s *Server) keepCatalogue(snap *snapshot) error {
	if !s.keeping {
		return nil
	}
	fd, err := unix.MemfdCreate(keptCatalogue, unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("shared memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), keptCatalogue)
	if err := gob.NewEncoder(file).Encode(snap.catalogue()); err != nil {
		return errors.Join(err, file.Close())
	}
	s.keeper.Put(keptCatalogue, nil, fd)
	if s.kept != nil {
		s.kept.Close() // another one is kept now
	}
	s.kept = file
	return nil
}

// keepCatalogueOf gives away what is going to be shown.
func (s *Server) keepCatalogueOf(snap *snapshot) error {
	s.keepLock.Lock()
	defer s.keepLock.Unlock()
	return s.keepCatalogue(snap)
}

// dropKept takes back what was given away, for a mount that is over.
func (s *Server) dropKept() {
	s.keepLock.Lock()
	defer s.keepLock.Unlock()
	for _, name := range []string{keptImage, keptCatalogue, keptCounters} {
		s.keeper.Drop(name)
	}
	s.keeping = false
	if s.kept != nil {
		s.kept.Close() // nobody wants it any more
	}
}

// catalogue returns what a snapshot shows, and what lingers in it, as a catalogue.
func (s *snapshot) catalogue() *layers.Catalogue {
	c := &layers.Catalogue{Generation: s.generation}
	places := map[*layer]int{}
	for _, l := range s.layers {
		places[l] = len(c.Layers)
		about := *l.about.Load()
		about.Slot, about.DiffID = l.slot, l.diffID
		c.Layers = append(c.Layers, about)
	}
	images := map[*image]int{}
	for _, v := range s.views {
		if v.slot == maxSlot || v.name != "" {
			continue
		}
		images[v.image] = len(c.Images)
		img := layers.CatalogueImage{ID: v.image.id, Slot: v.slot, Loaded: v.created, Config: v.image.config, Manifest: v.manifest}
		for _, l := range v.image.layers {
			img.Layers = append(img.Layers, places[l])
		}
		c.Images = append(c.Images, img)
	}
	for _, v := range s.views {
		if i, ok := images[v.image]; ok && v.name != "" {
			c.Names = append(c.Names, layers.CatalogueName{Name: v.name, Slot: v.slot, Image: i, Manifest: v.manifest, Created: v.created})
		}
	}
	return c
}

// leftCatalogue reads what was kept by keepCatalogue.
func leftCatalogue(f *os.File) (*layers.Catalogue, error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		return nil, err
	}
	c := &layers.Catalogue{}
	if err := gob.NewDecoder(bytes.NewReader(text)).Decode(c); err != nil {
		return nil, fmt.Errorf("catalogue of the process before: %w", err)
	}
	return c, nil
}

// resume goes on with a mount that another process has served.
func resume(f *fileSystem, left map[string]Kept, set *settings) (*Server, error) {
	var m mountedImage
	if err := json.Unmarshal(left[keptImage].Data, &m); err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	if left[keptImage].File == nil || left[keptCatalogue].File == nil || left[keptCounters].File == nil {
		return nil, fmt.Errorf("handover: %w: not everything was kept", ErrNoHandover)
	}
	table, err := shared.Open(left[keptCounters].File, counterSize)
	if err != nil {
		return nil, err
	}
	f.counters.take(table)
	f.started, f.resumed = m.Started, true
	s := newServer(m.Dir, m.Image, f, set)
	s.minor, s.stack = m.Minor, m.Stack
	c, err := leftCatalogue(left[keptCatalogue].File)
	if err != nil {
		return nil, err
	}
	if err := s.prepareLeft(c, m.Root); err != nil {
		return nil, err
	}
	s.connect(left[keptImage].File, set)
	if err := s.conn.Resume(m.Init); err != nil {
		return nil, err
	}
	return s, nil
}

// prepareLeft shows what the process before has shown. What has changed since is shown by the first reload, or, where
// one image is shown alone, as long as it is shown.
func (s *Server) prepareLeft(c *layers.Catalogue, root uint64) error {
	f := s.fs
	snap := f.newSnapshot(f.snap.Load(), c, f.started)
	snap.generation = ^uint64(0) // so that the catalogue is read anew
	f.snap.Store(snap)
	f.root = root
	if s.stack != nil {
		if err := s.showStack(snap, s.stack); err != nil {
			return err
		}
	}
	if f.counters.at(figurePodman).Load() != 0 {
		f.podman(snap)
	}
	if f.counters.at(figureOCI).Load() != 0 {
		f.ociStore(snap)
	}
	return nil
}

// reopen opens the layers again that the process before had open, so that what it has kept of them can be let go. One
// that cannot be opened is no longer needed, or says so when it is.
func (s *Server) reopen(left map[string]Kept) {
	const prefix = "layer/"
	for _, l := range s.fs.snap.Load().layers {
		name := prefix + string(l.diffID)
		kept, ok := left[name]
		if !ok {
			continue
		}
		if _, err := s.fs.use(l); err != nil {
			s.fs.log.Debug("a layer that was open is not any more", "layer", l.diffID, "error", err)
			s.keeper.Drop(name)
		}
		if kept.File != nil {
			kept.File.Close() // OpenLayer has its own
		}
	}
}

// counters are the figures that the next process needs: in shared memory, where there is some.
type counters struct {
	table *shared.Table

	mu sync.Mutex
	m  map[uint64]sharedCounter
}

type sharedCounter struct {
	c *counter
	i uint32
}

// counterRecord is a record of the table.
type counterRecord struct {
	key uint64
	c   counter
}

const counterSize = int(unsafe.Sizeof(counterRecord{}))

// Keys of counters that are no nodes.
const (
	figurePodman = 1 + iota // podman/ was looked at
	figureOCI               // oci/ was
	figureStatus            // the number of the last rendering of status.json
)

// open makes the table. Without it the counters are those of this process alone.
func (c *counters) open() error {
	table, err := shared.New(keptCounters, counterSize)
	c.table = table
	return err
}

// take goes on with the table of another process.
func (c *counters) take(table *shared.Table) {
	c.table, c.m = table, map[uint64]sharedCounter{}
	table.Each(func(i uint32, rec []byte) {
		r := (*counterRecord)(unsafe.Pointer(&rec[0]))
		c.m[r.key] = sharedCounter{&r.c, i}
	})
}

// at returns the counter of a key.
func (c *counters) at(key uint64) *counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x, ok := c.m[key]; ok {
		return x.c
	}
	x := sharedCounter{new(counter), shared.None}
	if c.table != nil {
		i, rec := c.table.Alloc()
		r := (*counterRecord)(unsafe.Pointer(&rec[0]))
		r.key = key
		x = sharedCounter{&r.c, i}
	}
	if c.m == nil {
		c.m = map[uint64]sharedCounter{}
	}
	c.m[key] = x
	return x.c
}

// each calls fn for each counter.
func (c *counters) each(fn func(key uint64, n *counter)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, x := range c.m {
		fn(key, x.c)
	}
}

// drop gives the counter of a key up.
func (c *counters) drop(key uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x, ok := c.m[key]; ok {
		delete(c.m, key)
		if c.table != nil {
			c.table.Free(x.i)
		}
	}
}

// unknown is the count of what the kernel may know from the process before, where that has not been kept: it never
// becomes zero.
const unknown = 1 << 40
