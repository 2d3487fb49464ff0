package overlay

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// unlinked counts the names that files below had and have lost, for those that have
// others and were not copied up. It is a file of numbers, one line for each name: the
// ID, and "!" behind it when the file was copied up and none of its lines count.
type unlinked struct {
	mu    sync.Mutex
	file  *os.File // nil: nothing is written
	names map[ID]uint32
}

func (u *unlinked) load(path string, readOnly bool) error {
	u.names = map[ID]uint32{}
	flags := os.O_RDWR | os.O_CREATE | os.O_APPEND
	if readOnly {
		flags = os.O_RDONLY
	}
	file, err := os.OpenFile(path, flags, 0o600)
	if readOnly && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var id ID
		var mark string
		n, _ := fmt.Sscanf(lines.Text(), "%d%s", &id, &mark)
		switch {
		case n == 2:
			delete(u.names, id)
		case n == 1:
			u.names[id]++
		}
	}
	if readOnly {
		return errors.Join(lines.Err(), file.Close())
	}
	u.file = file
	return lines.Err()
}

// add counts a name that is about to be removed.
func (u *unlinked) add(id ID) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, err := fmt.Fprintln(u.file, uint64(id)); err != nil {
		return unix.EIO
	}
	u.names[id]++
	return nil
}

// forget says that a file was copied up: the host counts its names from now on.
func (u *unlinked) forget(id ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names[id] == 0 {
		return
	}
	delete(u.names, id)
	// A count that is not forgotten is not asked for: the file is up.
	_, _ = fmt.Fprintf(u.file, "%d!\n", uint64(id))
}

func (u *unlinked) count(id ID) uint32 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.names[id]
}

func (u *unlinked) close() error {
	if u.file == nil {
		return nil
	}
	return u.file.Close()
}
