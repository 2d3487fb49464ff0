package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// Caller is who asks for something new, with IDs of the container.
type Caller struct {
	UID, GID uint32
	Umask    uint32
	// Again: the request comes again, see RemoveAgain.
	Again bool
}

// make makes something new at a place where nothing is. fd is open for reading and
// writing when it is a regular file, else -1. inherits says that the host gives it a
// mode of its own because of an access list that its directory hands down.
func (f *FS) make(at upper.At, want *upper.Override, target string, inherits bool) (fd int, st unix.Stat_t, err error) {
	if err := f.markPlaceholder(want); err != nil {
		return -1, st, err
	}
	host := f.format.HostMode(want)
	fd = -1
	switch host & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err = unix.Openat(at.Dir, at.Name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, host&0o7777)
	case unix.S_IFDIR:
		err = unix.Mkdirat(at.Dir, at.Name, host&0o7777)
	case unix.S_IFLNK:
		err = unix.Symlinkat(target, at.Dir, at.Name)
	default:
		err = unix.Mknodat(at.Dir, at.Name, host, int(unix.Mkdev(want.Major, want.Minor)))
	}
	if err != nil {
		return -1, st, err
	}
	if st, err = f.finish(at, fd, want, target, inherits); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		f.discard(at)
		return -1, st, err
	}
	return fd, st, nil
}

// finish gives something new its owner and mode.
func (f *FS) finish(at upper.At, fd int, want *upper.Override, target string, inherits bool) (unix.Stat_t, error) {
	if fd >= 0 {
		at = upper.At{Dir: fd}
	}
	st, err := at.Stat()
	if err != nil {
		return st, err
	}
	have := f.format.FromStat(&st)
	have.Placeholder = f.format.NeedsPlaceholder(want)
	if inherits {
		want.Mode = have.Mode
	}
	if have.Placeholder && want.Mode&unix.S_IFMT == unix.S_IFLNK {
		if err := writeAll(fd, []byte(target), 0); err != nil {
			return st, err
		}
	}
	same := have.UID == want.UID && have.GID == want.GID && have.Mode == want.Mode
	if same && !f.format.NeedsOverride(want) {
		return st, nil
	}
	if err := f.format.SetMeta(at, &have, want); err != nil {
		return st, err
	}
	return at.Stat()
}

// birth is something new on its way into a directory.
type birth struct {
	f      *FS
	dir    dir
	parent *node
	name   string
	want   upper.Override
	target string // of a symbolic link
	again  bool   // it may have been made already

	access, inherit []byte // access lists that the directory hands down
	aclMode         uint32 // the permissions that follow from them
	hostACL         bool   // the host sees to them
}

// create makes something new under a name. The descriptor is that of a regular file.
func (f *FS) create(parent ID, name string, mode uint32, c Caller, b birth) (*node, unix.Stat_t, int, error) {
	b.f, b.name, b.again = f, name, c.Again
	var st unix.Stat_t
	if len(name) > 255 {
		return nil, st, -1, unix.ENAMETOOLONG
	}
	p, err := f.upDir(parent)
	if err != nil {
		return nil, st, -1, err
	}
	b.parent = p
	if b.dir, err = f.dir(parent); err != nil {
		return nil, st, -1, err
	}
	b.want.Mode, b.want.UID, b.want.GID = mode, c.UID, c.GID
	if err := b.inherits(c.Umask); err != nil {
		return nil, st, -1, err
	}
	pfd, err := f.pin(p)
	if err != nil {
		return nil, st, -1, err
	}
	defer f.fds.unpin(p)
	return b.place(upper.At{Dir: pfd, Name: name})
}

// inherits applies what a directory hands down: its group, and access lists instead
// of the umask.
func (b *birth) inherits(umask uint32) error {
	meta := b.f.metaOf(b.parent)
	if meta.Mode&unix.S_ISGID != 0 {
		b.want.GID = meta.GID
		if b.want.Mode&unix.S_IFMT == unix.S_IFDIR {
			b.want.Mode |= unix.S_ISGID
		}
	}
	if b.want.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	acl, err := b.f.defaultACL(b.parent)
	if err != nil {
		return err
	}
	if acl == nil {
		b.want.Mode &^= umask & 0o777
		return nil
	}
	b.inheritACL(acl)
	return nil
}

// place makes it at its place, or in the work directory when something is to be
// replaced.
func (b *birth) place(at upper.At) (*node, unix.Stat_t, int, error) {
	f := b.f
	if _, ok, err := f.lookupLower(&b.dir, b.name); err != nil || ok {
		return b.over(at, ok, err)
	}
	fd, st, err := f.make(at, &b.want, b.target, b.hostACL)
	if err == unix.EEXIST {
		return b.over(at, false, nil)
	}
	if err == nil {
		err = b.lists(at)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, st, -1, err
	}
	return b.register(at, st), st, fd, nil
}

// over makes it where there is a whiteout; without one there is something already.
func (b *birth) over(at upper.At, below bool, err error) (*node, unix.Stat_t, int, error) {
	f := b.f
	var st unix.Stat_t
	if err == nil {
		st, err = at.Stat()
	}
	if below && err == unix.ENOENT {
		err = unix.EEXIST
	}
	if err != nil {
		return nil, st, -1, err
	}
	if e := f.format.FromStat(&st); !e.Whiteout {
		if b.again {
			return b.existing(at, below)
		}
		return nil, st, -1, unix.EEXIST
	}
	temp := upper.At{Dir: f.work, Name: f.tempName("")}
	b.byHand() // the work directory hands nothing down
	fd, st, err := f.make(temp, &b.want, b.target, false)
	if err != nil {
		return nil, st, -1, err
	}
	if err = b.lists(temp); err == nil {
		err = b.replace(temp, at)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		f.discard(temp)
		return nil, st, -1, err
	}
	return b.register(at, st), st, fd, nil
}

// replace puts it where a whiteout is.
func (b *birth) replace(temp, at upper.At) error {
	if b.want.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.Renameat(temp.Dir, temp.Name, at.Dir, at.Name)
	}
	if err := b.f.format.SetOpaque(temp); err != nil {
		return err
	}
	if err := unix.Renameat2(temp.Dir, temp.Name, at.Dir, at.Name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	b.f.discard(temp) // the whiteout
	return nil
}

// lists sets the access lists that the directory hands down.
func (b *birth) lists(at upper.At) error {
	if b.hostACL {
		return nil
	}
	if b.access != nil {
		if err := b.f.format.SetXattr(at, aclAccess, b.access, 0); err != nil {
			return err
		}
	}
	if b.inherit != nil {
		return b.f.format.SetXattr(at, aclDefault, b.inherit, 0)
	}
	return nil
}

// register makes the node of what was made.
func (b *birth) register(at upper.At, st unix.Stat_t) *node {
	e := b.f.format.FromStat(&st)
	if b.f.format.NeedsOverride(&b.want) {
		e.Overridden, e.Placeholder = true, b.f.format.NeedsPlaceholder(&b.want)
		e.UID, e.GID, e.Mode, e.Major, e.Minor = b.want.UID, b.want.GID, b.want.Mode, b.want.Major, b.want.Minor
	}
	e.HasXattrs = b.access != nil || b.inherit != nil || b.hostACL
	n := &node{kind: b.want.Mode & unix.S_IFMT, e: e, host: st.Ino}
	n.up.Store(true)
	if n.isDir() && b.access == nil && b.inherit == nil && !b.hostACL {
		n.defaultACL = aclNone
	}
	return b.f.fresh(n, b.parent, at.Name)
}

// fresh registers the node of a file that was made just now: one that has its inode
// number on the host must be of a file that is gone.
func (f *FS) fresh(n, parent *node, name string) *node {
	f.mu.Lock()
	if was := f.byHost[n.host]; was != nil {
		delete(f.byHost, n.host)
	}
	f.mu.Unlock()
	return f.register(n, parent, name, 1)
}

// metaOf returns owner and mode of a node that is up.
func (f *FS) metaOf(n *node) upper.Override {
	n.mu.RLock()
	defer n.mu.RUnlock()
	e := &n.e
	return upper.Override{UID: e.UID, GID: e.GID, Mode: e.Mode, Major: e.Major, Minor: e.Minor}
}

// Mkdir makes a directory.
func (f *FS) Mkdir(parent ID, name string, mode uint32, c Caller) (Attr, error) {
	return f.mknod(parent, name, unix.S_IFDIR|mode&0o1777, c, birth{})
}

// Mknod makes a regular file, device, pipe or socket.
func (f *FS) Mknod(parent ID, name string, mode, major, minor uint32, c Caller) (Attr, error) {
	switch mode & unix.S_IFMT {
	case 0:
		mode |= unix.S_IFREG
	case unix.S_IFCHR:
		if major == 0 && minor == 0 {
			return Attr{}, unix.EPERM // as overlayfs does: it would be a whiteout
		}
	case unix.S_IFBLK:
	case unix.S_IFDIR, unix.S_IFLNK:
		return Attr{}, unix.EINVAL
	default:
		major, minor = 0, 0
	}
	return f.mknod(parent, name, mode, c, birth{want: upper.Override{Major: major, Minor: minor}})
}

// Symlink makes a symbolic link.
func (f *FS) Symlink(parent ID, name, target string, c Caller) (Attr, error) {
	if len(target) >= unix.PathMax {
		return Attr{}, unix.ENAMETOOLONG
	}
	return f.mknod(parent, name, unix.S_IFLNK|0o777, c, birth{target: target})
}

func (f *FS) mknod(parent ID, name string, mode uint32, c Caller, b birth) (Attr, error) {
	n, st, fd, err := f.create(parent, name, mode, c, b)
	if err != nil {
		return Attr{}, err
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	return f.fromHost(n, &st), nil
}

// Create makes a regular file and opens it. EEXIST is returned when there is
// something of the name, whether or not it was asked for something new. The
// descriptor is open until Release.
func (f *FS) Create(parent ID, name string, mode uint32, c Caller) (Attr, int, error) {
	n, st, fd, err := f.create(parent, name, unix.S_IFREG|mode&0o7777, c, birth{})
	if err != nil {
		return Attr{}, -1, err
	}
	fd = f.fds.put(n, fd)
	f.fds.open(n)
	return f.fromHost(n, &st), fd, nil
}

// Tmpfile makes a regular file without a name and opens it, as Create does.
func (f *FS) Tmpfile(parent ID, mode uint32, c Caller) (Attr, int, error) {
	p, err := f.upDir(parent)
	if err != nil {
		return Attr{}, -1, err
	}
	b := birth{f: f, parent: p, want: upper.Override{Mode: unix.S_IFREG | mode&0o7777, UID: c.UID, GID: c.GID}}
	if err := b.inherits(c.Umask); err != nil {
		return Attr{}, -1, err
	}
	b.byHand()
	fd, err := unix.Openat(f.work, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, f.format.HostMode(&b.want)&0o7777)
	if err != nil {
		return Attr{}, -1, err
	}
	st, err := f.finish(upper.At{}, fd, &b.want, "", false)
	if err == nil {
		err = b.lists(upper.At{Dir: fd})
	}
	if err != nil {
		unix.Close(fd)
		return Attr{}, -1, err
	}
	n := b.register(upper.At{}, st)
	n.place.Lock()
	f.setPlace(n, nil, "")
	n.place.Unlock()
	fd = f.fds.put(n, fd)
	f.fds.open(n)
	f.give(n, fd)
	f.fds.pin(n)
	f.fds.keep(n)
	return f.fromHost(n, &st), fd, nil
}
