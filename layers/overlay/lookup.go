package overlay

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

// dir is a directory of the union: what of it is up and what is below.
type dir struct {
	id       ID
	up       *node // nil: nothing
	lower    union.DirID
	hasLower bool
}

// dir returns the directory with an ID.
func (f *FS) dir(id ID) (dir, error) {
	d := dir{id: id}
	if n := f.get(id); n != nil {
		if !n.isDir() {
			return d, unix.ENOTDIR
		}
		if n.up.Load() {
			d.up = n
		}
		if n.hasLower {
			d.lower, d.hasLower = f.below.DirID(n.lower), true
		}
		return d, nil
	}
	l, ok := f.lowerNode(id)
	switch {
	case !ok:
		return d, unix.ESTALE
	case l.Kind != kindDirectory:
		return d, unix.ENOTDIR
	}
	d.lower, d.hasLower = f.below.DirID(l), true
	return d, nil
}

// lookupLower finds a name in what of a directory is below.
func (f *FS) lookupLower(d *dir, name string) (union.Node, bool, error) {
	if !d.hasLower {
		return union.Node{}, false, nil
	}
	return f.below.Lookup(d.lower, []byte(name))
}

// entry is what a name leads to.
type entry struct {
	id       ID
	kind     uint32
	n        *node       // what is up
	st       unix.Stat_t // of it
	whiteout bool        // there is one up; what is below is hidden
	below    bool        // there is something below with this name, hidden or not
	lower    union.Node  // it
}

// exists reports whether the union shows something under the name.
func (e *entry) exists() bool { return e.n != nil || e.below && !e.whiteout }

// entry finds a name in a directory. What is up is counted as looked up so often.
func (f *FS) entry(d *dir, name string, lookups int64) (e entry, err error) {
	if d.up != nil {
		fd, err := f.pin(d.up)
		if err != nil {
			return e, err
		}
		e, err = f.entryUp(d, upper.At{Dir: fd, Name: name}, lookups)
		f.fds.unpin(d.up)
		if err != nil {
			return e, err
		}
	}
	if e.lower, e.below, err = f.lookupLower(d, name); err != nil {
		return e, err
	}
	if e.n == nil && e.below && !e.whiteout {
		e.id, e.kind = f.lowerID(e.lower), modeOf(e.lower.Kind)
		// Another name of a file that was copied up.
		if n := f.get(e.id); n != nil && n.up.Load() && !n.isDir() {
			e.n = n
			st, gone, err := f.stat(n)
			if err != nil || gone != nil {
				e.n = nil
				return e, err
			}
			e.st = st
			f.mu.Lock()
			n.counted(lookups)
			f.mu.Unlock()
		}
	}
	return e, nil
}

// entryUp finds what is at a place of the upper directory.
func (f *FS) entryUp(d *dir, at upper.At, lookups int64) (e entry, err error) {
	e.st, err = at.Stat()
	switch {
	case err == unix.ENOENT:
		return entry{}, nil
	case err != nil:
		return e, err
	}
	if e.n, err = f.child(d, at, &e.st, lookups); err != nil {
		return e, err
	}
	e.whiteout = e.n == nil
	if e.n != nil {
		e.id, e.kind = e.n.id, e.n.kind
	}
	return e, nil
}

// child returns the node of what is at a place of the upper directory, nil for a
// whiteout.
func (f *FS) child(d *dir, at upper.At, st *unix.Stat_t, lookups int64) (*node, error) {
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		return nil, nil
	}
	if n := f.known(st.Ino, lookups); n != nil {
		f.adopt(n, d.up, at.Name)
		return n, nil
	}
	e, err := f.format.ReadStat(at, st)
	if err != nil || e.Whiteout {
		return nil, err
	}
	if e.Metacopy && e.Size == 0 && !f.readOnly {
		// It was being truncated when a process was killed: copies of empty files are complete.
		e.Metacopy = false
		if err := f.format.DropMetacopy(at); err != nil {
			return nil, err
		}
	}
	n := &node{kind: e.Mode & unix.S_IFMT, e: e, host: st.Ino}
	n.up.Store(true)
	if err := f.findLower(n, d, at.Name); err != nil {
		return nil, err
	}
	if got := f.register(n, d.up, at.Name, lookups); got != n {
		f.adopt(got, d.up, at.Name)
		return got, nil
	}
	return n, nil
}

// adopt gives a node that has lost its place the one where it was found.
func (f *FS) adopt(n, parent *node, name string) {
	f.mu.Lock()
	orphan := n.orphan
	f.mu.Unlock()
	if !orphan {
		return
	}
	n.place.Lock()
	if n.parent == nil && n != f.root {
		n.gone = nil
		f.setPlace(n, parent, name)
	}
	n.place.Unlock()
}

// findLower finds what is below a file that is up, by its marks, and with it the ID.
func (f *FS) findLower(n *node, d *dir, name string) error {
	if f.below == nil {
		return nil
	}
	if n.isDir() {
		l, ok, err := f.lowerDirOf(&n.e, d, name)
		if err != nil || !ok {
			return err
		}
		n.lower, n.hasLower = l, true
		n.id, n.ino = f.lowerID(l), f.lowerID(l)
		return nil
	}
	if n.e.HasOrigin {
		if l, ok := f.inode(int(n.e.Origin.Layer), n.e.Origin.Ino); ok {
			n.lower, n.hasLower = l, true
			n.id, n.ino = f.lowerID(l), f.lowerID(l)
		}
	}
	if n.e.Metacopy && !n.hasLower {
		l, ok, err := f.redirected(n.e.Redirect, d, name)
		if err != nil {
			return err
		}
		if !ok || modeOf(l.Kind) != unix.S_IFREG {
			return unix.EIO // its content is nowhere
		}
		n.lower, n.hasLower = l, true
	}
	n.metacopy.Store(n.e.Metacopy)
	return nil
}

// lowerDirOf finds the directory that one which is up is merged with.
func (f *FS) lowerDirOf(e *upper.Entry, d *dir, name string) (union.Node, bool, error) {
	if e.Opaque {
		return union.Node{}, false, nil
	}
	l, ok, err := f.redirected(e.Redirect, d, name)
	return l, ok && l.Kind == kindDirectory, err
}

// redirected finds what a redirect leads to; without one that is the same name.
func (f *FS) redirected(redirect string, d *dir, name string) (union.Node, bool, error) {
	if strings.HasPrefix(redirect, "/") {
		return f.below.Resolve(redirect)
	}
	if redirect != "" {
		name = redirect
	}
	return f.lookupLower(d, name)
}

// Lookup finds a name in a directory and counts what it leads to as looked up. It
// returns ENOENT when there is nothing.
func (f *FS) Lookup(parent ID, name string) (Attr, error) {
	if len(name) > 255 {
		return Attr{}, unix.ENAMETOOLONG
	}
	d, err := f.dir(parent)
	if err != nil {
		return Attr{}, err
	}
	e, err := f.entry(&d, name, 1)
	if err != nil {
		return Attr{}, err
	}
	return f.entryAttr(&e)
}

// entryAttr returns the attributes of what a name leads to.
func (f *FS) entryAttr(e *entry) (Attr, error) {
	switch {
	case !e.exists():
		return Attr{}, unix.ENOENT
	case e.n != nil:
		if f.readOnly {
			if err := f.refresh(e.n); err != nil {
				return Attr{}, err
			}
		}
		return f.fromHost(e.n, &e.st), nil
	}
	return f.lowerAttr(e.id, e.lower)
}
