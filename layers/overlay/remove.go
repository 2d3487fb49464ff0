package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// site is a directory in which a name is about to change, up and pinned.
type site struct {
	f    *FS
	dir  dir
	fd   int
	name string
	e    entry
}

// site makes a directory ready for a change of a name. Whoever gets one calls done.
func (f *FS) site(parent ID, name string) (*site, error) {
	p, err := f.upDir(parent)
	if err != nil {
		return nil, err
	}
	s := &site{f: f, name: name}
	if s.dir, err = f.dir(parent); err != nil {
		return nil, err
	}
	if s.fd, err = f.pin(p); err != nil {
		return nil, err
	}
	if s.e, err = f.entry(&s.dir, name, 0); err != nil {
		s.done()
		return nil, err
	}
	return s, nil
}

func (s *site) done() { s.f.fds.unpin(s.dir.up) }

func (s *site) at() upper.At { return upper.At{Dir: s.fd, Name: s.name} }

// isUp reports whether there is something up at the place, other than a whiteout:
// another name of a file that is up may still be below only.
func (s *site) isUp() (bool, error) {
	if s.e.n == nil {
		return false, nil
	}
	_, err := s.at().Stat()
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil, err
}

// victim finds what is to be removed, a directory or something else. The caller calls
// done.
func (f *FS) victim(parent ID, name string, dir bool) (*site, error) {
	if err := f.writable(); err != nil {
		return nil, err
	}
	s, err := f.site(parent, name)
	if err != nil {
		return nil, err
	}
	switch isDir := s.e.kind == unix.S_IFDIR; {
	case !s.e.exists():
		err = unix.ENOENT
	case isDir && !dir:
		err = unix.EISDIR
	case dir && !isDir:
		err = unix.ENOTDIR
	default:
		return s, nil
	}
	s.done()
	return nil, err
}

// Unlink removes a name of something that is no directory.
func (f *FS) Unlink(parent ID, name string) error {
	s, err := f.victim(parent, name, false)
	if err != nil {
		return err
	}
	defer s.done()
	up, err := s.isUp()
	if err != nil {
		return err
	}
	if !up {
		return s.hide()
	}
	return f.losing(s.e.n, &s.e.st, s, func() error {
		if s.e.below {
			return s.whiteoutOver()
		}
		return unix.Unlinkat(s.fd, s.name, 0)
	})
}

// hide hides what is below only.
func (s *site) hide() error {
	if err := upper.Whiteout(s.at()); err != nil {
		return err
	}
	if s.e.n == nil && s.e.kind != unix.S_IFDIR {
		s.f.lostName(&s.e)
	}
	return nil
}

// lostName counts a name that a file below has lost, if it has others.
func (f *FS) lostName(e *entry) {
	if a, err := f.below.Attr(e.lower); err == nil && a.Nlink > 1 {
		f.unlinked.add(e.id)
	}
}

// whiteoutOver puts a whiteout in the place of a file.
func (s *site) whiteoutOver() error {
	temp := upper.At{Dir: s.f.work, Name: s.f.tempName("")}
	if err := upper.Whiteout(temp); err != nil {
		return err
	}
	err := unix.Renameat(temp.Dir, temp.Name, s.fd, s.name)
	if err != nil {
		s.f.discard(temp)
	}
	return err
}

// losing calls fn, which takes the name of a site away from a node that is up.
func (f *FS) losing(n *node, st *unix.Stat_t, s *site, fn func() error) error {
	gone := f.fromHost(n, st) // before n.place: see the order of locks
	n.place.Lock()
	defer n.place.Unlock()
	own := s.isPlaceOf(n)
	if own && f.mustKeep(n, st) {
		fd, err := f.pinAt(n, s.at())
		if err != nil {
			return err
		}
		f.give(n, fd)
		defer f.fds.keep(n)
	}
	if err := fn(); err != nil {
		return err
	}
	f.lost(n, &gone, own)
	return nil
}

// mustKeep reports whether a node needs a descriptor when it has lost its place:
// because it is open, because nobody knows whether it is (directories, pipes and
// devices, and files that were below), or because it has other names, which are not
// known. Closed files, which are the many, need none.
func (f *FS) mustKeep(n *node, st *unix.Stat_t) bool {
	switch {
	case st.Nlink > 1 || n.hasLower:
		return true
	case n.kind == unix.S_IFREG:
		return f.fds.openCount(n) > 0
	}
	return n.kind != unix.S_IFLNK
}

// lost says that a node has lost a name, its place if own is set; gone is what it was
// before. Preconditions: n.place is held.
func (f *FS) lost(n *node, gone *Attr, own bool) {
	last := n.isDir() || gone.Nlink <= 1
	if own {
		gone.Nlink = 0
		n.gone = gone
		n.recordMode(gone.Mode)
		f.setPlace(n, nil, "")
	}
	if last {
		f.mu.Lock()
		if f.byHost[n.host] == n {
			delete(f.byHost, n.host)
		}
		f.mu.Unlock()
	}
}

// Rmdir removes an empty directory.
func (f *FS) Rmdir(parent ID, name string) error {
	s, err := f.victim(parent, name, true)
	if err != nil {
		return err
	}
	defer s.done()
	if s.e.n == nil {
		if err := f.checkEmpty(s.e.id, s.at()); err != nil {
			return err
		}
		return s.hide()
	}
	return f.losing(s.e.n, &s.e.st, s, func() error { return s.rmdir() })
}

// rmdir removes a directory that is up.
func (s *site) rmdir() error {
	if !s.e.below && !s.e.n.hasLower {
		if err := unix.Unlinkat(s.fd, s.name, unix.AT_REMOVEDIR); err != unix.ENOTEMPTY && err != unix.EEXIST {
			return err
		}
	}
	if err := s.f.checkEmpty(s.e.id, s.at()); err != nil {
		return err
	}
	temp := upper.At{Dir: s.f.work, Name: s.f.tempName("")}
	defer s.f.discard(temp)
	if !s.e.below {
		return unix.Renameat(s.fd, s.name, temp.Dir, temp.Name)
	}
	if err := upper.Whiteout(temp); err != nil {
		return err
	}
	return unix.Renameat2(temp.Dir, temp.Name, s.fd, s.name, unix.RENAME_EXCHANGE)
}

// checkEmpty returns ENOTEMPTY for a directory that shows names. at is where it is up,
// if it is.
func (f *FS) checkEmpty(id ID, at upper.At) error {
	d, err := f.dir(id)
	if err != nil {
		return err
	}
	white := map[string]struct{}{}
	if d.up != nil {
		names, fd, err := readNames(at)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, e := range names {
			if hidden, err := isWhiteout(fd, &e); err != nil || !hidden {
				return orNotEmpty(err)
			}
			white[e.name] = struct{}{}
		}
	}
	if !d.hasLower {
		return nil
	}
	l, err := f.below.Open(d.lower)
	if err != nil {
		return err
	}
	for i := range l.Len() {
		name, _, err := l.At(i)
		if err != nil {
			return err
		}
		if _, hidden := white[string(name)]; !hidden {
			return unix.ENOTEMPTY
		}
	}
	return nil
}

func orNotEmpty(err error) error {
	if err == nil {
		return unix.ENOTEMPTY
	}
	return err
}

// Link gives a file another name.
func (f *FS) Link(id, parent ID, name string) (Attr, error) {
	if len(name) > 255 {
		return Attr{}, unix.ENAMETOOLONG
	}
	n, err := f.copyUp(id, metaOnly)
	if err != nil {
		return Attr{}, err
	}
	if n.isDir() {
		return Attr{}, unix.EPERM
	}
	s, err := f.site(parent, name)
	if err != nil {
		return Attr{}, err
	}
	defer s.done()
	if s.e.exists() {
		return Attr{}, unix.EEXIST
	}
	if err := f.keepsContent(n); err != nil {
		return Attr{}, err
	}
	if err := f.link(n, s); err != nil {
		return Attr{}, err
	}
	f.adopt(n, s.dir.up, name)
	f.mu.Lock()
	n.counted(1)
	f.mu.Unlock()
	return f.attr(n)
}

// link makes the name of a site another name of a node.
func (f *FS) link(n *node, s *site) error {
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	defer done()
	to := s.at()
	if s.e.whiteout {
		to = upper.At{Dir: f.work, Name: f.tempName("")}
	}
	if err := linkAt(at, to); err != nil || !s.e.whiteout {
		return err
	}
	if err := unix.Renameat(to.Dir, to.Name, s.fd, s.name); err != nil {
		f.discard(to)
		return err
	}
	return nil
}

// linkAt is linkat(2), also for a file that has no name yet.
func linkAt(from, to upper.At) error {
	if from.Name == "" {
		return unix.Linkat(unix.AT_FDCWD, from.Path(), to.Dir, to.Name, unix.AT_SYMLINK_FOLLOW)
	}
	return unix.Linkat(from.Dir, from.Name, to.Dir, to.Name, 0)
}

// keepsContent makes a metacopy findable for the kernel's overlayfs, which looks for
// the content under the name of the copy, when it is about to get another name.
func (f *FS) keepsContent(n *node) error {
	if !n.metacopy.Load() {
		return nil
	}
	return f.fixRedirect(n)
}

// fixRedirect says of a node from below where that is, unless it is said already.
func (f *FS) fixRedirect(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.e.Redirect) > 0 && n.e.Redirect[0] == '/' {
		return nil
	}
	path, err := f.lowerPath(n)
	if err != nil || path == "" {
		return err
	}
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	defer done()
	if err := f.redirect(at, path); err != nil {
		return err
	}
	n.e.Redirect = path
	return nil
}
