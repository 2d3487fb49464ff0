package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// Flags of Rename.
const (
	NoReplace = unix.RENAME_NOREPLACE
	Exchange  = unix.RENAME_EXCHANGE
)

// Rename moves a name, as renameat2(2) does.
func (f *FS) Rename(oldParent ID, oldName string, newParent ID, newName string, flags uint32) error {
	if flags&^(NoReplace|Exchange) != 0 || flags == NoReplace|Exchange {
		return unix.EINVAL
	}
	if len(newName) > 255 {
		return unix.ENAMETOOLONG
	}
	if err := f.writable(); err != nil {
		return err
	}
	from, err := f.site(oldParent, oldName)
	if err != nil {
		return err
	}
	defer from.done()
	to, err := f.site(newParent, newName)
	if err != nil {
		return err
	}
	defer to.done()
	if err := f.mayRename(from, to, flags); err != nil || from.e.id == to.e.id {
		return err
	}
	if err := f.bringUp(from); err != nil {
		return err
	}
	if flags == Exchange {
		return f.exchange(from, to)
	}
	return f.move(from, to)
}

// mayRename checks what rename(2) says must be so.
func (f *FS) mayRename(from, to *site, flags uint32) error {
	fromDir, toDir := from.e.kind == unix.S_IFDIR, to.e.kind == unix.S_IFDIR
	switch {
	case !from.e.exists():
		return unix.ENOENT
	case flags == Exchange && !to.e.exists():
		return unix.ENOENT
	case flags == NoReplace && to.e.exists():
		return unix.EEXIST
	case flags == Exchange || !to.e.exists() || from.e.id == to.e.id:
		return nil
	case fromDir && !toDir:
		return unix.ENOTDIR
	case !fromDir && toDir:
		return unix.EISDIR
	case toDir:
		return f.checkEmpty(to.e.id, to.at())
	}
	return nil
}

// bringUp makes sure that what a site leads to is up, at that place.
func (f *FS) bringUp(s *site) error {
	if up, err := s.isUp(); err != nil || up {
		return err
	}
	n, err := f.copyUp(s.e.id, metaOnly)
	if err != nil {
		return err
	}
	s.e.n = n
	s.e.st, err = s.at().Stat()
	if err == unix.ENOENT {
		// A name of a file that was copied up without it.
		if err = f.link(n, s); err == nil {
			s.e.st, err = s.at().Stat()
		}
	}
	return err
}

// settle marks what is about to move to another place so that it stays what it is
// there: a directory from below is redirected to it, another one hides what is below
// its new place.
func (f *FS) settle(s, to *site) error {
	n := s.e.n
	switch {
	case n.isDir() && n.hasLower:
		return f.fixRedirect(n)
	case n.isDir() && to.e.below:
		return f.makeOpaque(n)
	case !n.isDir():
		return f.keepsContent(n)
	}
	return nil
}

// makeOpaque makes a directory hide what is below it.
func (f *FS) makeOpaque(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.e.Opaque {
		return nil
	}
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	defer done()
	if err := f.format.SetOpaque(at); err != nil {
		return err
	}
	n.e.Opaque = true
	return nil
}

// exchange swaps two names.
func (f *FS) exchange(from, to *site) error {
	if err := f.bringUp(to); err != nil {
		return err
	}
	if err := f.settle(from, to); err != nil {
		return err
	}
	if err := f.settle(to, from); err != nil {
		return err
	}
	a, b := from.e.n, to.e.n
	defer lockPlaces(a, b)()
	if err := unix.Renameat2(from.fd, from.name, to.fd, to.name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	ownA, ownB := from.isPlaceOf(a), to.isPlaceOf(b)
	if ownA {
		f.setPlace(a, to.dir.up, to.name)
	}
	if ownB {
		f.setPlace(b, from.dir.up, from.name)
	}
	return nil
}

// isPlaceOf reports whether a site is the place of a node. Preconditions: n.place is
// held.
func (s *site) isPlaceOf(n *node) bool { return n.parent == s.dir.up && n.name == s.name }

// lockPlaces locks the places of two nodes, of which the second may be nil.
func lockPlaces(a, b *node) (unlock func()) {
	if b == nil || a == b {
		a.place.Lock()
		return a.place.Unlock
	}
	first, second := a, b
	if b.id < a.id {
		first, second = b, a
	}
	first.place.Lock()
	second.place.Lock()
	return func() { second.place.Unlock(); first.place.Unlock() }
}

// move renames without exchange.
func (f *FS) move(from, to *site) error {
	if err := f.settle(from, to); err != nil {
		return err
	}
	over, err := to.isUp()
	if err != nil {
		return err
	}
	if over && to.e.kind == unix.S_IFDIR {
		if err := f.clear(to); err != nil {
			return err
		}
	}
	var victim *node
	if over {
		victim = to.e.n
	}
	n := from.e.n
	var gone Attr
	if victim != nil {
		gone = f.fromHost(victim, &to.e.st) // before the places: see the order of locks
	}
	defer lockPlaces(n, victim)()
	if victim != nil && victim != n {
		return f.moveOver(from, to, victim, &gone)
	}
	err = f.moveTo(from, to)
	if err == nil && !over && to.e.n == nil && to.e.exists() && to.e.kind != unix.S_IFDIR {
		f.lostName(&to.e)
	}
	return err
}

// moveOver moves onto something that is up, which loses its name; gone is what it was.
// Preconditions: the places of both are held.
func (f *FS) moveOver(from, to *site, victim *node, gone *Attr) error {
	own := to.isPlaceOf(victim)
	if own && f.mustKeep(victim, &to.e.st) {
		fd, err := f.pinAt(victim, to.at())
		if err != nil {
			return err
		}
		f.give(victim, fd)
		defer f.fds.keep(victim)
	}
	if err := f.moveTo(from, to); err != nil {
		return err
	}
	f.lost(victim, gone, own)
	return nil
}

// moveTo moves to a place where nothing is, or what may be replaced. Preconditions:
// the place of what is moved is held.
func (f *FS) moveTo(from, to *site) error {
	n := from.e.n
	flags := uint(0)
	swap := to.e.whiteout && n.isDir()
	switch {
	case swap:
		flags = unix.RENAME_EXCHANGE
	case from.e.below:
		flags = unix.RENAME_WHITEOUT
	}
	own := from.isPlaceOf(n)
	if err := unix.Renameat2(from.fd, from.name, to.fd, to.name, flags); err != nil {
		return err
	}
	if own {
		f.setPlace(n, to.dir.up, to.name)
	}
	if swap && !from.e.below {
		_ = unix.Unlinkat(from.fd, from.name, 0) // the whiteout, which hides nothing; it has been moved
	}
	return nil
}

// clear removes the whiteouts in a directory that is about to be replaced, having
// made sure that this shows nothing.
func (f *FS) clear(s *site) error {
	names, fd, err := readNames(s.at())
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(names) == 0 {
		return nil
	}
	if s.e.n.hasLower {
		if err := f.makeOpaque(s.e.n); err != nil {
			return err
		}
	}
	for _, e := range names {
		if hidden, err := isWhiteout(fd, &e); err != nil || !hidden {
			return orNotEmpty(err)
		}
		if err := unix.Unlinkat(fd, e.name, 0); err != nil {
			return err
		}
	}
	return nil
}

// isWhiteout reports whether a name that was read from a directory is a whiteout.
func isWhiteout(fd int, e *hostName) (bool, error) {
	if e.kind != unix.DT_CHR && e.kind != unix.DT_UNKNOWN {
		return false, nil
	}
	st, err := upper.At{Dir: fd, Name: e.name}.Stat()
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0, err
}
