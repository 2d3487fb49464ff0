package layers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A mount keeps the lock of a container after it was looked at, because the kernel
// remembers the tree. Who wants the lock meanwhile makes a file, wantedFile, in the meta
// directory of the container: a mount in which nobody uses the container lets go of it,
// another removes the file.
const wantedFile = "wanted"

// wantedTries, of wantedPause each, are how long an answer is waited for.
const (
	wantedTries = 40
	wantedPause = 50 * time.Millisecond
)

// askForLock asks the mount that has the lock of a container to let go of it, and
// returns the lock if it does.
func (s *Store) askForLock(id string) (*os.File, bool) {
	path := filepath.Join(s.MetaPath(id), wantedFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil || f.Close() != nil {
		return nil, false
	}
	defer os.Remove(path) // it may be gone already
	for range wantedTries {
		time.Sleep(wantedPause)
		if lock, ok := lockDir(s.containerDir(id)); ok {
			return lock, true
		}
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, false
		}
	}
	return nil, false
}

// mayYield reports whether who has a lock, as ContainerWriter says, is a mount of another
// process.
func mayYield(who string) bool {
	return strings.Contains(who, "(mount ") && !strings.HasPrefix(who, fmt.Sprintf("process %d ", os.Getpid()))
}

// ContainerWanted reports whether somebody waits for the lock of a container.
func (s *Store) ContainerWanted(id string) bool {
	_, err := os.Lstat(filepath.Join(s.MetaPath(id), wantedFile))
	return err == nil
}

// KeepContainer answers who waits for the lock of a container that it is not given up.
func (s *Store) KeepContainer(id string) {
	_ = os.Remove(filepath.Join(s.MetaPath(id), wantedFile)) // else he waits a little longer
}
