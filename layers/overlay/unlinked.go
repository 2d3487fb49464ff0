package overlay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// unlinked counts the names that files below had and have lost, for those that have
// others and were not copied up. It is a file of numbers, one line for each name: the
// ID, and "!" behind it when the file was copied up and none of its lines count.
type unlinked struct {
	mu    sync.Mutex
	file  *os.File // nil: nothing is written
	names map[ID]uint32

	unsaved []byte // lines that the disk did not take
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

// add counts a name that was removed.
func (u *unlinked) add(id ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.names[id]++
	u.write(fmt.Appendf(nil, "%d\n", uint64(id)))
}

// forget says that a file was copied up: the host counts its names from now on.
func (u *unlinked) forget(id ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names[id] == 0 {
		return
	}
	delete(u.names, id)
	u.write(fmt.Appendf(nil, "%d!\n", uint64(id)))
}

// write adds a line. What the disk does not take now is tried again with the next one,
// and in the end: the name is gone, and a wrong count is not worth an error.
// Preconditions: u.mu is held.
func (u *unlinked) write(line []byte) {
	u.unsaved = append(u.unsaved, line...)
	u.save()
}

func (u *unlinked) save() {
	if len(u.unsaved) == 0 {
		return
	}
	n, err := u.file.Write(u.unsaved)
	if err == nil {
		u.unsaved = u.unsaved[:0]
		return
	}
	whole := bytes.LastIndexByte(u.unsaved[:n], '\n') + 1
	if u.unsaved = u.unsaved[whole:]; n > whole { // there is a part of a line, which means nothing
		u.unsaved = append([]byte{'\n'}, u.unsaved...)
	}
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
	u.save()
	return u.file.Close()
}
