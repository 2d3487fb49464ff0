package overlay

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// linksSuffix ends the names in the work directory of copies that get several names.
const linksSuffix = "-links"

// recover brings to an end what a killed process left in the work directory. Copies
// that were to get several names, and have got one, get the others; the rest is
// removed.
func (f *FS) recover() error {
	names, fd, err := readNames(upper.At{Dir: f.work, Name: "."})
	if err != nil {
		return fmt.Errorf("work directory: %w", err)
	}
	unix.Close(fd)
	for _, e := range names {
		temp := upper.At{Dir: f.work, Name: e.name}
		if !strings.HasPrefix(e.name, "lfs-") {
			continue // the kernel's
		}
		if strings.HasSuffix(e.name, linksSuffix) {
			if err := f.finishLinks(temp); err != nil {
				return fmt.Errorf("work directory: %s: %w", e.name, err)
			}
		}
		f.discard(temp)
	}
	return nil
}

// finishLinks gives a copy the names that it has not got.
func (f *FS) finishLinks(temp upper.At) error {
	e, err := f.format.Read(temp)
	if err != nil || e.Nlink < 2 || !e.HasOrigin || f.below == nil {
		return err
	}
	l, ok := f.inode(int(e.Origin.Layer), e.Origin.Ino)
	if !ok {
		return nil
	}
	names, err := f.lowerNames(l)
	if err != nil {
		return err
	}
	for _, name := range names {
		p, err := f.upDir(f.dirID(name.dir))
		if err == nil {
			err = f.putName(p, name.name, temp, false)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// loadMoved makes nodes for all directories from below that have been moved, so that
// names in them are found. It walks the upper directory, once.
func (f *FS) loadMoved() error {
	var failed error
	f.movedOnce.Do(func() {
		failed = f.format.Walk(f.upperPath, func(path string, _ upper.At, e *upper.Entry) error {
			if e.Mode&unix.S_IFMT != unix.S_IFDIR || e.Whiteout || e.Redirect == "" {
				return nil
			}
			return f.load(path)
		})
	})
	return failed
}

// load makes the nodes of a path, which stay.
func (f *FS) load(path string) error {
	at := Root
	for name := range strings.SplitSeq(path, "/") {
		d, err := f.dir(at)
		if err != nil {
			return err
		}
		e, err := f.entry(&d, name, 0)
		if err != nil || e.n == nil {
			return err
		}
		f.mu.Lock()
		e.n.sticky = true
		f.mu.Unlock()
		at = e.id
	}
	return nil
}
