package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// A request that was being answered when a process died comes again to the next one:
// it may have been carried out, in part or as a whole. The methods here are for those
// that cannot simply be carried out twice; who makes something new says so in Caller.
// While such a request is not answered the kernel lets nobody else change the names
// that it is about.

// hostState is what is at a place of the upper directory.
type hostState struct {
	st    unix.Stat_t
	there bool // other than a whiteout
	white bool
}

func stateAt(at upper.At) (hostState, error) {
	st, err := at.Stat()
	if err == unix.ENOENT {
		return hostState{}, nil
	}
	white := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
	return hostState{st: st, there: err == nil && !white, white: err == nil && white}, err
}

// placed returns the nodes that were last known at a place.
func (f *FS) placed(parent *node, name string) []*node {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*node
	for _, n := range f.nodes {
		if n.parent == parent && n.name == name && n != f.root {
			out = append(out, n)
		}
	}
	return out
}

// moved says that a node is at another place than was known; nil: at none.
func (f *FS) moved(n, parent *node, name string) {
	n.place.Lock()
	defer n.place.Unlock()
	if parent == nil {
		n.gone = &Attr{ID: n.id, Ino: n.ino, Mode: n.kind}
		n.stale.Store(false)
	}
	f.setPlace(n, parent, name)
}

// atName calls fn with a place, whose directory is up.
func (f *FS) atName(parent ID, name string, fn func(p *node, at upper.At) error) error {
	p, err := f.upDir(parent)
	if err != nil {
		return err
	}
	fd, err := f.pin(p)
	if err != nil {
		return err
	}
	defer f.fds.unpin(p)
	return fn(p, upper.At{Dir: fd, Name: name})
}

// RemoveAgain is Unlink, or Rmdir with dir, for a request that comes again.
func (f *FS) RemoveAgain(parent ID, name string, dir bool) error {
	removed := false
	err := f.atName(parent, name, func(p *node, at upper.At) error {
		s, err := stateAt(at)
		if err != nil || s.there {
			return err
		}
		d, err := f.dir(parent)
		if err != nil {
			return err
		}
		_, below, err := f.lookupLower(&d, name)
		if removed = s.white || !below; removed {
			for _, n := range f.placed(p, name) {
				f.moved(n, nil, "")
			}
		}
		return err
	})
	switch {
	case err != nil || removed:
		return err
	case dir:
		return f.Rmdir(parent, name)
	}
	return f.Unlink(parent, name)
}

// RenameAgain is Rename for a request that comes again.
func (f *FS) RenameAgain(oldParent ID, oldName string, newParent ID, newName string, flags uint32) error {
	done := false
	err := f.atName(oldParent, oldName, func(p *node, from upper.At) error {
		return f.atName(newParent, newName, func(q *node, to upper.At) error {
			a, err := stateAt(from)
			if err != nil {
				return err
			}
			b, err := stateAt(to)
			if err != nil {
				return err
			}
			olds, news := f.placed(p, oldName), f.placed(q, newName)
			switch {
			case flags == Exchange:
				done = swapped(olds, &b) || swapped(news, &a)
			default:
				done = !a.there && b.there
			}
			if done {
				f.renamed(olds, news, &a, &b, p, oldName, q, newName)
			}
			return nil
		})
	})
	if err != nil || done {
		return err
	}
	return f.Rename(oldParent, oldName, newParent, newName, flags)
}

// swapped reports whether a node that was last known elsewhere is what a state shows.
func swapped(known []*node, s *hostState) bool {
	for _, n := range known {
		if s.there && n.host == s.st.Ino {
			return true
		}
	}
	return false
}

// renamed writes down a rename that was done and not written down.
func (f *FS) renamed(olds, news []*node, a, b *hostState, p *node, oldName string, q *node, newName string) {
	for _, n := range news {
		switch {
		case b.there && n.host == b.st.Ino:
		case a.there && n.host == a.st.Ino:
			f.moved(n, p, oldName)
		default:
			f.moved(n, nil, "") // it was replaced
		}
	}
	for _, n := range olds {
		if b.there && n.host == b.st.Ino {
			f.moved(n, q, newName)
		}
	}
}

// LinkAgain is Link for a request that comes again.
func (f *FS) LinkAgain(id, parent ID, name string) (Attr, error) {
	n, err := f.copyUp(id, metaOnly)
	if err != nil {
		return Attr{}, err
	}
	done := false
	err = f.atName(parent, name, func(_ *node, at upper.At) error {
		s, err := stateAt(at)
		done = s.there && s.st.Ino == n.host
		return err
	})
	if err != nil {
		return Attr{}, err
	}
	if !done {
		return f.Link(id, parent, name)
	}
	p, err := f.node(parent)
	if err != nil {
		return Attr{}, err
	}
	f.adopt(n, p, name)
	f.mu.Lock()
	n.counted(1)
	f.mu.Unlock()
	return f.attr(n)
}

// existing returns what is at the place where something was to be made, when that was
// made by the process before. It may not have been given its owner and mode.
func (b *birth) existing(at upper.At, below bool) (*node, unix.Stat_t, int, error) {
	f := b.f
	s, err := stateAt(at)
	if err == nil && (!s.there || s.st.Mode&unix.S_IFMT != f.format.HostMode(&b.want)&unix.S_IFMT || s.st.Mode&unix.S_IFMT == unix.S_IFREG && s.st.Size > 0 && !f.format.NeedsPlaceholder(&b.want)) {
		err = unix.EEXIST
	}
	if err != nil {
		return nil, s.st, -1, err
	}
	fd := -1
	if s.st.Mode&unix.S_IFMT == unix.S_IFREG {
		if fd, err = at.Open(unix.O_RDWR); err != nil {
			return nil, s.st, -1, err
		}
	}
	f.mu.Lock()
	n := f.byHost[s.st.Ino]
	f.mu.Unlock()
	f.revive(n)
	if n != nil && n.parent == b.parent && n.name == at.Name {
		return n, s.st, fd, nil // it is counted as looked up, too
	}
	st := s.st
	if !below {
		if st, err = f.finish(at, fd, &b.want, b.target, b.hostACL); err == nil {
			err = b.lists(at)
		}
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, st, -1, err
	}
	return b.register(at, st), st, fd, nil
}
