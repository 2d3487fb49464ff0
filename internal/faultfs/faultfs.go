package faultfs

import (
	"errors"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ErrShort makes a write short: when the error that a hook returns for [Write] wraps
// it, half of the bytes are written and the call succeeds with that number, as on a
// disk that becomes full.
var ErrShort = errors.New("short write")

// An FS is a file system that can be mounted.
type FS struct {
	fuse.RawFileSystem // what is not here is not supported

	mu     sync.Mutex // guards what follows
	state  *State
	base   *State // nil: no log is kept
	ops    []*Op
	hook   func(*Op) error
	dirs   map[uint64][]fuse.DirEntry // open directories
	handle uint64
}

// New returns a file system with this content, which it takes over. Nothing is
// written down before Record.
func New(s *State) *FS {
	return &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), state: s, dirs: map[uint64][]fuse.DirEntry{}}
}

// SetHook has fn called before each operation; nil ends that. When fn returns an
// error, the operation is not done and the errno in the error is returned instead; an
// error without one becomes EIO. The hook is called for one operation at a time and
// must not use the file system.
func (f *FS) SetHook(fn func(*Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = fn
}

// Record begins a new log at the present state.
func (f *FS) Record() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.base, f.ops = f.state.Clone(), nil
	f.base.settle()
}

// Len returns the number of operations in the log.
func (f *FS) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ops)
}

// Log returns the log since Record; the log goes on.
func (f *FS) Log() *Log {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &Log{Base: f.base, Ops: f.ops[:len(f.ops):len(f.ops)]}
}

// State returns a copy of the present state.
func (f *FS) State() *State {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state.Clone()
	s.settle()
	return s
}

// do asks the hook, does an operation and writes it down. Preconditions: f.mu is held.
func (f *FS) do(o *Op) fuse.Status {
	if err := f.ask(o); err != nil {
		return toStatus(err)
	}
	f.done(o)
	return fuse.OK
}

func (f *FS) ask(o *Op) error {
	if o.Path == "" {
		o.Path = f.state.path(o.ino)
	}
	if f.hook == nil {
		return nil
	}
	return f.hook(o)
}

func (f *FS) done(o *Op) {
	if o.Changes() {
		o.apply(f.state)
	}
	if f.base != nil && (o.Changes() || o.syncs()) {
		f.ops = append(f.ops, o)
	}
}

func toStatus(err error) fuse.Status {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fuse.Status(errno)
	}
	return fuse.EIO
}

// A Mounted file system is served until Unmount.
type Mounted struct {
	server *fuse.Server
}

// Mount mounts the file system on a directory. One that was mounted can be mounted
// again, but not twice at once. For root it allows others.
func (f *FS) Mount(dir string) (*Mounted, error) {
	s, err := fuse.NewServer(f, dir, &fuse.MountOptions{
		AllowOther: unix.Geteuid() == 0, DirectMount: true, DirectMountFlags: unix.MS_NOSUID,
		Options: []string{"default_permissions"}, FsName: "faultfs", Name: "faultfs",
		DisableReadDirPlus: true, MaxWrite: 1 << 20,
	})
	if err != nil {
		return nil, err
	}
	go s.Serve()
	if err := s.WaitMount(); err != nil {
		return nil, err
	}
	return &Mounted{server: s}, nil
}

// Unmount ends a mount that nobody uses any more.
func (m *Mounted) Unmount() error {
	var err error
	for range 500 {
		if err = m.server.Unmount(); err == nil {
			m.server.Wait()
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
