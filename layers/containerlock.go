package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/internal/overlayfs"
	"github.com/layerfs/layerfs/internal/process"
)

// A ContainerLock is the right to write into a container. It is gone with the
// process that has it, and those that keep its locks (see Options.KeepLock).
type ContainerLock struct {
	s   *Store
	id  string
	dir *os.File
}

// writerFile names, in the directory of a container, who has the lock. It is only
// believed while the lock is held.
const writerFile = "writer"

// A lock is tried for 40 ms before somebody is said to have it.
const (
	lockTries = 8
	lockPause = 5 * time.Millisecond
)

// LockContainer takes the right to write into a container, which one process at a
// time has, and tells others the purpose, such as "mount /mnt". A mount in which nobody
// uses the container gives it up. It does not wait for another writer: it returns ErrInUse, with the process that writes, or
// ErrContainerUnknown.
func (s *Store) LockContainer(id, purpose string) (*ContainerLock, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	if f := s.locks.inherit(id); f != nil {
		s.noteWriter(id, purpose)
		s.locks.took(containerLockName(id), f)
		return &ContainerLock{s: s, id: id, dir: f}, nil
	}
	dir := s.containerDir(id)
	f, ok := lockDir(dir)
	// Who only asks for the writer, or sweeps, has the lock for a moment.
	for try := 0; !ok && try < lockTries; try++ {
		time.Sleep(lockPause)
		f, ok = lockDir(dir)
	}
	if who, taken := s.ContainerWriter(id); !ok && taken && mayYield(who) {
		f, ok = s.askForLock(id)
	}
	if !ok { // a killed one has it until the last of its threads has ended
		process.Await(func() (pid int, held bool) {
			f, ok = lockDir(dir)
			return s.writerPID(id), !ok
		})
	}
	if !ok {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s has no directory in the store", ErrContainerUnknown, id)
		}
		who, _ := s.ContainerWriter(id)
		return nil, fmt.Errorf("container %.12s: %w: %s writes into it", id, ErrInUse, who)
	}
	if err := s.dropLeftovers(id); err != nil {
		return nil, errors.Join(fmt.Errorf("container %.12s: %w", id, err), f.Close())
	}
	s.noteWriter(id, purpose)
	s.locks.took(containerLockName(id), f)
	return &ContainerLock{s: s, id: id, dir: f}, nil
}

// noteWriter writes down who has the lock of a container. The text is for people; a
// torn one after a kill does no harm.
func (s *Store) noteWriter(id, purpose string) {
	text := fmt.Sprintf("%d %s", os.Getpid(), purpose)
	_ = os.WriteFile(filepath.Join(s.containerDir(id), writerFile), []byte(text), 0o600)
}

// dropLeftovers takes away the overlay mounts of a container that are left of a
// process which was killed: nobody writes through them any more, or should. The lock
// must be held.
func (s *Store) dropLeftovers(id string) error {
	if overlayfs.Possible() != nil {
		return nil // who may not unmount could not have mounted
	}
	dirs, err := overlayfs.Over(s.UpperPath(id))
	for _, dir := range dirs {
		err = errors.Join(err, overlayfs.Unmount(dir, true))
	}
	return err
}

// Close gives the lock back. When the record of the container has gone meanwhile
// its directory goes too: nobody else could have removed it.
func (l *ContainerLock) Close() error {
	err := l.s.index.View(context.Background(), func(tx *index.Tx) error {
		_, err := tx.Container(l.id)
		return err
	})
	if errors.Is(err, index.ErrNotFound) {
		err = l.s.removeContainerDir(l.id)
	} else {
		_ = os.Remove(filepath.Join(l.s.containerDir(l.id), writerFile))
	}
	return errors.Join(err, l.s.locks.release(containerLockName(l.id), l.dir))
}

// writerPID returns the process that has, or had, the lock of a container; 0 when that
// is not known.
func (s *Store) writerPID(id string) int {
	text, err := os.ReadFile(filepath.Join(s.containerDir(id), writerFile))
	if err != nil {
		return 0
	}
	number, _, _ := strings.Cut(string(text), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return pid
}

// ContainerWriter says who has the lock of a container, as "process 4711 (mount
// /mnt)"; ok is false when nobody has.
func (s *Store) ContainerWriter(id string) (who string, ok bool) {
	dir := s.containerDir(id)
	f, err := os.Open(dir)
	if err != nil {
		return "", false
	}
	defer f.Close()
	if isFree(f) {
		return "", false
	}
	text, err := os.ReadFile(filepath.Join(dir, writerFile))
	pid, purpose, cut := strings.Cut(string(text), " ")
	if err != nil || !cut {
		return "another process", true
	}
	return fmt.Sprintf("process %s (%s)", pid, purpose), true
}
