package upper

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Whiteout makes a whiteout at a place where nothing is.
func Whiteout(at At) error {
	return IgnoringEINTR(func() error { return unix.Mknodat(at.Dir, at.Name, unix.S_IFCHR, 0) })
}

// SetOpaque makes a directory hide what is below it.
func (f *Format) SetOpaque(at At) error { return at.set(f.prefix+nameOpaque, []byte("y"), 0) }

// SetRedirect says where below the content of a directory or metacopy is.
func (f *Format) SetRedirect(at At, path string) error {
	return at.set(f.prefix+nameRedirect, []byte(path), 0)
}

// DropRedirect undoes SetRedirect.
func (f *Format) DropRedirect(at At) error { return at.drop(f.prefix + nameRedirect) }

// SetMetacopy says that the content of a regular file is that of the file below.
func (f *Format) SetMetacopy(at At) error { return at.set(f.prefix+nameMetacopy, nil, 0) }

// DropMetacopy undoes SetMetacopy.
func (f *Format) DropMetacopy(at At) error { return at.drop(f.prefix + nameMetacopy) }

// SetOrigin says which file below a file was copied from. Where the host holds no
// attributes of the user's it does nothing.
func (f *Format) SetOrigin(at At, o Origin) error {
	err := at.set(f.prefix+nameOrigin, o.encode(), 0)
	if f.user && errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// NeedsPlaceholder reports whether a file cannot be on the host what it is to the
// container.
func (f *Format) NeedsPlaceholder(want *Override) bool {
	if !f.user {
		return false
	}
	switch want.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		return true
	case unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
		return want.UID != 0 || want.GID != 0 || want.Xattrs
	}
	return false
}

// plainMode reports whether a file can have its mode on the host, too: layerfs must
// be able to open it there, and the host takes set-user-ID bits away when an ordinary
// user writes.
func plainMode(mode uint32) bool {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return mode&0o700 == 0o700
	case unix.S_IFREG:
		return mode&0o6600 == 0o600
	}
	return true
}

// NeedsOverride reports whether the host cannot hold owner and mode of a file.
func (f *Format) NeedsOverride(want *Override) bool {
	return f.user && (want.UID != 0 || want.GID != 0 || !plainMode(want.Mode) || f.NeedsPlaceholder(want))
}

// HostMode returns the mode that a file has on the host, with the S_IFMT bits.
func (f *Format) HostMode(want *Override) uint32 {
	switch {
	case f.NeedsPlaceholder(want):
		return unix.S_IFREG | 0o600
	case !f.NeedsOverride(want):
		return want.Mode
	case want.Mode&unix.S_IFMT == unix.S_IFDIR:
		return want.Mode&^0o7000 | 0o700
	}
	return want.Mode&^0o7000 | 0o600
}

// SetMeta gives the file at a place the owner and the mode that want says, or writes
// down that it has them. have is what the file is at present: it tells what need not
// be done.
func (f *Format) SetMeta(at At, have *Entry, want *Override) error {
	if f.user {
		return f.setUserMeta(at, have, want)
	}
	chowned := have.UID != want.UID || have.GID != want.GID
	if chowned {
		if err := at.chown(int(want.UID), int(want.GID)); err != nil {
			return err
		}
	}
	// A chown takes the set-user-ID bits away.
	if (chowned && want.Mode&0o6000 != 0 || have.Mode&0o7777 != want.Mode&0o7777) && want.Mode&unix.S_IFMT != unix.S_IFLNK {
		return at.chmod(want.Mode & 0o7777)
	}
	return nil
}

func (f *Format) setUserMeta(at At, have *Entry, want *Override) error {
	need := f.NeedsOverride(want) || have.Placeholder
	if need {
		if err := f.guard(); err != nil {
			return err
		}
		if err := at.set(f.prefix+nameOverride, want.encode(), 0); err != nil {
			return fmt.Errorf("override: %w", err)
		}
	}
	if !have.Placeholder && want.Mode&unix.S_IFMT != unix.S_IFLNK {
		host := f.HostMode(want)
		st, err := at.Stat()
		if err != nil {
			return err
		}
		if st.Mode&0o7777 != host&0o7777 {
			if err := at.chmod(host & 0o7777); err != nil {
				return err
			}
		}
	}
	if !need && have.Overridden {
		return at.drop(f.prefix + nameOverride)
	}
	return nil
}

func (a At) chown(uid, gid int) error {
	return IgnoringEINTR(func() error {
		return unix.Fchownat(a.Dir, a.Name, uid, gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
	})
}

// chmod must not be called for a symbolic link, which it would follow.
func (a At) chmod(mode uint32) error {
	if a.Name != "" {
		return IgnoringEINTR(func() error { return unix.Fchmodat(a.Dir, a.Name, mode, 0) })
	}
	return IgnoringEINTR(func() error { return unix.Chmod(a.Path(), mode) })
}

// SetTimes is utimensat(2).
func (a At) SetTimes(atime, mtime unix.Timespec) error {
	ts := []unix.Timespec{atime, mtime}
	return IgnoringEINTR(func() error {
		if a.Name == "" {
			return unix.UtimesNanoAt(unix.AT_FDCWD, a.Path(), ts, 0)
		}
		return unix.UtimesNanoAt(a.Dir, a.Name, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}
