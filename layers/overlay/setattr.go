package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// Change says what SetAttr changes; nil leaves it as it is. A time with the Nsec
// unix.UTIME_NOW is now.
type Change struct {
	Mode         *uint32 // 07777
	UID, GID     *uint32
	Size         *int64
	Atime, Mtime *unix.Timespec
	// KillPriv says that a change of the size takes set-user-ID bits away.
	KillPriv bool
}

// SetAttr changes attributes of a node and returns the new ones.
func (f *FS) SetAttr(id ID, c *Change) (Attr, error) {
	how := metaOnly
	if c.Size != nil {
		how = all
		if *c.Size == 0 {
			how = noContent
		}
	}
	n, err := f.copyUp(id, how)
	if err != nil {
		return Attr{}, err
	}
	if c.Size != nil {
		if err := f.resize(n, c); err != nil {
			return Attr{}, err
		}
	}
	if c.Mode != nil || c.UID != nil || c.GID != nil {
		if err := f.chmodown(n, c); err != nil {
			return Attr{}, err
		}
	}
	if c.Atime != nil || c.Mtime != nil {
		if err := f.setTimes(n, c); err != nil {
			return Attr{}, err
		}
	}
	return f.attr(n)
}

func (f *FS) resize(n *node, c *Change) error {
	if n.kind != unix.S_IFREG {
		return unix.EINVAL
	}
	fd, err := f.pin(n)
	if err != nil {
		return err
	}
	defer f.fds.unpin(n)
	return f.truncate(n, fd, *c.Size, c.KillPriv)
}

func (f *FS) setTimes(n *node, c *Change) error {
	atime, mtime := unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	if c.Atime != nil {
		atime = *c.Atime
	}
	if c.Mtime != nil {
		mtime = *c.Mtime
	}
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	defer done()
	return at.SetTimes(atime, mtime)
}

// chmodown changes mode and owner.
func (f *FS) chmodown(n *node, c *Change) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	defer done()
	have, err := f.marks(n, at)
	if err != nil {
		return err
	}
	want := upper.Override{UID: have.UID, GID: have.GID, Mode: have.Mode, Major: have.Major, Minor: have.Minor}
	if c.UID != nil || c.GID != nil {
		if !n.isDir() {
			want = withoutPriv(&have)
		}
		if err := f.chown(at, &have, &want, c); err != nil {
			return err
		}
	}
	if c.Mode != nil && n.kind != unix.S_IFLNK {
		want.Mode = want.Mode&unix.S_IFMT | *c.Mode&0o7777
	}
	if err := f.setMeta(n, at, &have, want); err != nil {
		return err
	}
	if f.format.User() && c.Mode != nil && have.HasXattrs {
		return f.chmodACL(at, want.Mode)
	}
	return nil
}

// marks returns what a node is now: what is known of it, with what only the host
// knows. Preconditions: n.mu is held.
func (f *FS) marks(n *node, at upper.At) (upper.Entry, error) {
	st, err := at.Stat()
	if err != nil {
		return upper.Entry{}, err
	}
	now, e := f.format.FromStat(&st), n.e
	e.Nlink, e.Size, e.Atime, e.Mtime = now.Nlink, now.Size, now.Atime, now.Mtime
	if !e.Overridden {
		e.UID, e.GID, e.Mode = now.UID, now.GID, now.Mode
	}
	return e, nil
}

// chown puts the new owner into want. A file loses its capabilities, also if the owner
// stays the same; what the host does not do by itself is done here.
func (f *FS) chown(at upper.At, have *upper.Entry, want *upper.Override, c *Change) error {
	if c.UID != nil {
		want.UID = *c.UID
	}
	if c.GID != nil {
		want.GID = *c.GID
	}
	if !have.HasXattrs || have.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	if err := f.format.RemoveXattr(at, capability); err != nil && err != unix.ENODATA {
		return err
	}
	return nil
}

// setMeta gives a file owner and mode. Preconditions: n.mu is held.
func (f *FS) setMeta(n *node, at upper.At, have *upper.Entry, want upper.Override) error {
	if err := f.becomePlaceholder(n, at, have, &want); err != nil {
		return err
	}
	if err := f.format.SetMeta(at, have, &want); err != nil {
		return err
	}
	n.e = *have
	n.e.UID, n.e.GID, n.e.Mode = want.UID, want.GID, want.Mode
	n.e.Overridden = have.Placeholder || f.format.NeedsOverride(&want)
	return nil
}

// becomePlaceholder replaces a file that can no longer be on the host what it is to
// the container. A symbolic link of an ordinary user is given to somebody else so.
func (f *FS) becomePlaceholder(n *node, at upper.At, have *upper.Entry, want *upper.Override) error {
	if have.Placeholder || !f.format.NeedsPlaceholder(want) {
		return nil
	}
	if have.Nlink > 1 || at.Name == "" {
		return unix.EPERM // its other names would stay what they are
	}
	var target []byte
	if n.kind == unix.S_IFLNK {
		var err error
		if target, err = f.format.Readlink(at, have); err != nil {
			return err
		}
	}
	temp := upper.At{Dir: f.work, Name: f.tempName("")}
	fd, st, err := f.make(temp, want, string(target), false)
	if err != nil {
		return err
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	if have.HasOrigin || n.hasLower {
		err = f.format.SetOrigin(temp, originOf(n.lower))
	}
	if err == nil {
		err = temp.SetTimes(have.Atime, have.Mtime)
	}
	if err == nil {
		err = unix.Renameat(temp.Dir, temp.Name, at.Dir, at.Name)
	}
	if err != nil {
		f.discard(temp)
		return err
	}
	f.setHost(n, st.Ino)
	have.Placeholder, have.Overridden = true, true
	return nil
}
