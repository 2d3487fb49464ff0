package overlay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

// How much of a regular file is copied up.
type extent int

const (
	metaOnly  extent = iota // its metadata, if its content can stay below
	noContent               // its content is about to be truncated
	all
)

// userMetacopy is the size from which an ordinary user's metacopies are made: they
// make an upper directory unreadable for the kernel, which smaller files are not worth.
const userMetacopy = 1 << 20

// upDir returns the node of a directory, which it copies up when it is not up. It
// returns ENOENT when the directory has been removed.
func (f *FS) upDir(id ID) (*node, error) {
	if err := f.writable(); err != nil {
		return nil, err
	}
	n, err := f.node(id)
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		return nil, unix.ENOTDIR
	}
	if n.up.Load() {
		return n, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.up.Load() {
		return n, nil
	}
	return n, f.copyDir(n)
}

// copyDir makes a directory that is below up, too. Preconditions: n.mu is held.
func (f *FS) copyDir(n *node) error {
	t := f.below.Layer(n.lower.Layer)
	_, raw, err := t.Parent(n.lower.Ino)
	if err != nil {
		return err
	}
	name := string(raw)
	above, err := f.below.Parent(f.below.DirID(n.lower))
	if err != nil {
		return err
	}
	p, err := f.upDir(f.dirID(above))
	if err != nil {
		return err
	}
	pfd, err := f.pin(p)
	if err != nil {
		return err
	}
	defer f.fds.unpin(p)
	at := upper.At{Dir: pfd, Name: name}
	switch st, err := at.Stat(); {
	case err == nil:
		return f.adoptDir(n, p, at, &st)
	case err != unix.ENOENT:
		return err
	}
	temp := upper.At{Dir: f.work, Name: f.tempName("")}
	e, err := f.makeCopy(temp, n, nil)
	if err != nil {
		return err
	}
	err = f.keepingTimes(pfd, func() error {
		return unix.Renameat2(temp.Dir, temp.Name, at.Dir, at.Name, unix.RENAME_NOREPLACE)
	})
	if err != nil {
		f.discard(temp)
		return err
	}
	f.nowUp(n, e, p, name)
	return nil
}

// adoptDir takes a directory that is up already, but was not known to be: another
// name of a file leads there, not the kernel. Anything else in its place means that
// it was removed or moved.
func (f *FS) adoptDir(n, p *node, at upper.At, st *unix.Stat_t) error {
	e, err := f.format.ReadStat(at, st)
	if err != nil {
		return err
	}
	if e.Whiteout || e.Opaque || e.Redirect != "" || e.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOENT
	}
	f.nowUp(n, e, p, at.Name)
	return nil
}

// nowUp says that a node is up. Preconditions: n.mu is held.
func (f *FS) nowUp(n *node, e upper.Entry, parent *node, name string) {
	n.e = e
	n.place.Lock()
	f.setPlace(n, parent, name)
	n.place.Unlock()
	f.setHost(n, e.HostIno)
	n.metacopy.Store(e.Metacopy)
	n.unsynced.Store(true)
	n.up.Store(true)
	f.mu.Lock()
	f.remember(n)
	f.mu.Unlock()
}

// keepingTimes calls fn, which puts something into a directory that was not changed
// as far as its users can see. When fn has done it, it is done: a time that cannot be put
// back then is no error of it.
func (f *FS) keepingTimes(dir int, fn func() error) error {
	at := upper.At{Dir: dir}
	st, err := at.Stat()
	if err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	_ = at.SetTimes(st.Atim, st.Mtim)
	return nil
}

// copyUp returns the node of something that is no directory, up and with as much of
// its content as is asked for.
func (f *FS) copyUp(id ID, how extent) (*node, error) {
	if err := f.writable(); err != nil {
		return nil, err
	}
	n, err := f.node(id)
	if err != nil {
		return nil, err
	}
	if n.isDir() {
		return f.upDir(id)
	}
	if n.up.Load() && (how == metaOnly || !n.metacopy.Load()) {
		return n, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.up.Load():
		return n, f.slow(func() error { return f.copyFile(n, how) })
	case how != metaOnly && n.metacopy.Load():
		return n, f.slow(func() error { return f.completeCopy(n, how) })
	}
	return n, nil
}

// copyFile copies a file up. Preconditions: n.mu is held.
func (f *FS) copyFile(n *node, how extent) error {
	names, err := f.lowerNames(n.lower)
	if err != nil {
		return err
	}
	temp := upper.At{Dir: f.work, Name: f.tempName("")}
	if len(names) > 1 {
		if err := f.loadMoved(); err != nil {
			return err
		}
		// Should we be killed between two names, recover makes the others.
		temp.Name = f.tempName(linksSuffix)
	}
	e, err := f.makeCopy(temp, n, func(fd int) error { return f.fill(fd, n, how) })
	if err != nil {
		return err
	}
	return f.publish(n, temp, e, names)
}

// publish puts a copy into its places. A file that has no name any more gets none.
func (f *FS) publish(n *node, temp upper.At, e upper.Entry, names []lowerName) error {
	var parent *node
	var name string
	var given []place
	moved := false // the last name is the copy itself, so that no link is left over
	for i, l := range names {
		p, err := f.upDir(f.dirID(l.dir))
		if err == unix.ENOENT {
			continue
		}
		if err == nil {
			moved = i == len(names)-1
			err = f.putName(p, l.name, temp, moved)
		}
		if err != nil {
			moved = false
		}
		if err == unix.EEXIST {
			if len(given) == 0 && f.copied(n, p, l.name) {
				f.discard(temp)
				return nil
			}
			continue // it was removed, or is something else by now
		}
		if err != nil {
			if f.takeBack(temp, e.HostIno, given) != nil {
				// It is up where it has names; those that are below lead to it as well, and
				// the next Open makes them, because the copy stays where it is.
				f.nowUp(n, e, parent, name)
			}
			return err
		}
		parent, name = p, l.name
		given = append(given, place{p, name})
	}
	if parent == nil {
		return f.publishNameless(n, temp, e)
	}
	if !moved {
		f.discard(temp)
	}
	f.nowUp(n, e, parent, name)
	f.unlinked.forget(n.id)
	return nil
}

// A place is a name in a directory that is up.
type place struct {
	dir  *node
	name string
}

// takeBack removes a copy that has got some names, but not all, with those names.
func (f *FS) takeBack(temp upper.At, host uint64, given []place) error {
	for _, p := range given {
		if err := f.takeName(p, host); err != nil {
			return err
		}
	}
	f.discard(temp)
	return nil
}

// takeName removes a name if it is that of the file.
func (f *FS) takeName(p place, host uint64) error {
	fd, err := f.pin(p.dir)
	if err != nil {
		return err
	}
	defer f.fds.unpin(p.dir)
	at := upper.At{Dir: fd, Name: p.name}
	if st, err := at.Stat(); err == unix.ENOENT || err == nil && st.Ino != host {
		return nil // somebody has removed it meanwhile
	} else if err != nil {
		return err
	}
	return f.keepingTimes(fd, func() error { return unix.Unlinkat(at.Dir, at.Name, 0) })
}

// copied takes a copy of a node that is at a place already, but was not known to be:
// the process that made it died before it wrote that down. Preconditions: n.mu is held.
func (f *FS) copied(n, p *node, name string) bool {
	pfd, err := f.pin(p)
	if err != nil {
		return false
	}
	defer f.fds.unpin(p)
	e, err := f.format.Read(upper.At{Dir: pfd, Name: name})
	if err != nil || e.Whiteout || !e.HasOrigin || e.Origin != originOf(n.lower) || e.Mode&unix.S_IFMT != n.kind {
		return false
	}
	f.mu.Lock()
	known := f.byHost[e.HostIno]
	f.mu.Unlock()
	if known != nil && known != n {
		return false
	}
	f.nowUp(n, e, p, name)
	f.unlinked.forget(n.id)
	return true
}

// putName gives a copy a name: by moving it there if that is the last one.
func (f *FS) putName(p *node, name string, temp upper.At, last bool) error {
	pfd, err := f.pin(p)
	if err != nil {
		return err
	}
	defer f.fds.unpin(p)
	return f.keepingTimes(pfd, func() error {
		if last {
			return unix.Renameat2(temp.Dir, temp.Name, pfd, name, unix.RENAME_NOREPLACE)
		}
		return unix.Linkat(temp.Dir, temp.Name, pfd, name, 0)
	})
}

// publishNameless makes a file that was removed and is still open writable.
func (f *FS) publishNameless(n *node, temp upper.At, e upper.Entry) error {
	defer f.discard(temp)
	n.place.Lock()
	fd, err := f.pinAt(n, temp)
	if err == nil {
		f.give(n, fd)
		f.fds.keep(n)
	}
	n.place.Unlock()
	if err != nil {
		return err
	}
	f.nowUp(n, e, nil, "")
	return nil
}

// makeCopy makes a copy of what is below of a node at a place in the work directory.
// fill is called for a regular file before its metadata is set.
func (f *FS) makeCopy(temp upper.At, n *node, fill func(fd int) error) (upper.Entry, error) {
	a, err := f.below.Attr(n.lower)
	if err != nil {
		return upper.Entry{}, err
	}
	want := upper.Override{UID: a.UID, GID: a.GID, Mode: n.kind | a.Mode, Major: a.Major, Minor: a.Minor, Xattrs: a.HasXattrs}
	var target []byte
	if n.kind == unix.S_IFLNK {
		if target, err = f.below.Layer(n.lower.Layer).Symlink(n.lower.Ino); err != nil {
			return upper.Entry{}, err
		}
	}
	fd, _, err := f.make(temp, &want, string(target), false)
	if err == nil && n.kind == unix.S_IFREG && fill != nil {
		err = fill(fd)
	}
	if err == nil {
		err = f.copyMeta(temp, n.lower, &a)
	}
	if err == nil && n.kind == unix.S_IFREG && fill != nil && a.Size > 0 {
		err = f.syncCopy(fd, temp)
	}
	if fd >= 0 {
		err = errors.Join(err, unix.Close(fd))
	}
	var e upper.Entry
	if err == nil {
		e, err = f.format.Read(temp)
	}
	if err != nil {
		f.discard(temp)
		return e, plainErrno("copy up", err)
	}
	return e, nil
}

// syncCopy makes sure that a copied content is on the disk before it takes the place
// of the one below, which has been there for long.
func (f *FS) syncCopy(fd int, temp upper.At) error {
	e, err := f.format.Read(temp)
	if err != nil || e.Metacopy {
		return err
	}
	return unix.Fsync(fd)
}

// copyMeta copies extended attributes and times of a file below, and writes down
// which it was.
func (f *FS) copyMeta(at upper.At, n union.Node, a *tree.Attr) error {
	if a.HasXattrs || n.Kind == kindDirectory {
		var failed error
		err := f.below.EachXattr(n, func(name, value []byte) bool {
			if !upper.Private(string(name)) {
				failed = f.format.SetXattr(at, string(name), value, 0)
				if errors.Is(failed, unix.EOPNOTSUPP) {
					failed = nil // a file system without such attributes
				}
			}
			return failed == nil
		})
		if err = errors.Join(err, failed); err != nil {
			return err
		}
	}
	if err := f.format.SetOrigin(at, originOf(n)); err != nil {
		return err
	}
	t := unix.Timespec{Sec: a.MtimeSec, Nsec: int64(a.MtimeNsec)}
	return at.SetTimes(t, t)
}

// plainErrno keeps an errno as it is, and says of other errors what was being done.
func plainErrno(what string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return fmt.Errorf("%s: %w", what, err)
}

// discard removes what is at a place in the work directory, with everything in it.
func (f *FS) discard(temp upper.At) {
	if unix.Unlinkat(temp.Dir, temp.Name, 0) == nil {
		return
	}
	// Removing what nobody sees is not worth an error: the next Open tries again.
	_ = removeDir(temp)
}

// removeDir removes a directory and what is in it, of which normally only whiteouts
// are left.
func removeDir(at upper.At) error {
	err := unix.Unlinkat(at.Dir, at.Name, unix.AT_REMOVEDIR)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	names, fd, err := readNames(at)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, e := range names {
		if err := unix.Unlinkat(fd, e.name, 0); err == unix.EISDIR {
			err = removeDir(upper.At{Dir: fd, Name: e.name})
			if err != nil {
				return err
			}
		} else if err != nil && err != unix.ENOENT {
			return err
		}
	}
	return unix.Unlinkat(at.Dir, at.Name, unix.AT_REMOVEDIR)
}
