package upper

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// An Entry is one file of an upper directory, as the container sees it.
type Entry struct {
	// Whiteout: the name is deleted below; nothing else of the entry means anything.
	Whiteout bool

	Mode         uint32 // with the S_IFMT bits
	UID, GID     uint32
	Major, Minor uint32 // of a device
	Nlink        uint32
	Size         int64 // a directory's is the host's; a metacopy has the size of the file below
	Blocks       int64 // of 512 bytes on the host
	Atime        unix.Timespec
	Mtime        unix.Timespec
	Ctime        unix.Timespec

	Opaque    bool   // nothing below is merged with this directory
	Redirect  string // see the package comment
	Metacopy  bool   // the content is that of the file below
	Origin    Origin // when HasOrigin
	HasOrigin bool

	// Placeholder: on the host it is a regular file, whatever Mode says.
	Placeholder bool
	// Overridden: owner and mode come from an override.
	Overridden bool
	// HasXattrs: the container sees extended attributes.
	HasXattrs bool

	HostIno uint64
	HostDev uint64
}

// Read returns the entry at a place.
func (f *Format) Read(at At) (Entry, error) {
	st, err := at.Stat()
	if err != nil {
		return Entry{}, err
	}
	return f.ReadStat(at, &st)
}

// ReadStat is like Read for a place whose lstat is known.
func (f *Format) ReadStat(at At, st *unix.Stat_t) (Entry, error) {
	e := f.FromStat(st)
	if e.Whiteout {
		return e, nil
	}
	names, err := at.list()
	if err != nil || len(names) == 0 {
		return e, err
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		if err := f.take(&e, at, string(name)); err != nil {
			return Entry{}, err
		}
	}
	return e, nil
}

// FromStat returns what lstat alone says of an entry.
func (f *Format) FromStat(st *unix.Stat_t) Entry {
	e := Entry{
		Mode: st.Mode, Nlink: uint32(st.Nlink), Size: st.Size, Blocks: st.Blocks,
		Atime: st.Atim, Mtime: st.Mtim, Ctime: st.Ctim, HostIno: st.Ino, HostDev: st.Dev,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
		e.Whiteout = st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
	}
	e.UID, e.GID = f.owners.inside(st.Uid, st.Gid)
	return e
}

// take puts what an attribute of the host says into e.
func (f *Format) take(e *Entry, at At, name string) error {
	own, ok := strings.CutPrefix(name, f.prefix)
	if !ok {
		e.HasXattrs = e.HasXattrs || !Private(name)
		return nil
	}
	switch {
	case own == nameMetacopy:
		e.Metacopy = e.Mode&unix.S_IFMT == unix.S_IFREG
		return nil
	case strings.HasPrefix(own, nameKept):
		e.HasXattrs = true
		return nil
	case own != nameOpaque && own != nameRedirect && own != nameOverride && own != nameOrigin:
		return nil
	}
	v, err := at.get(name)
	if err != nil || v == nil {
		return err
	}
	switch own {
	case nameOpaque:
		e.Opaque = string(v) == "y"
	case nameRedirect:
		e.Redirect = string(v)
	case nameOrigin:
		e.Origin, e.HasOrigin = decodeOrigin(v)
	case nameOverride:
		return f.override(e, v)
	}
	return nil
}

// override applies an override to e.
func (f *Format) override(e *Entry, text []byte) error {
	o, ok := decodeOverride(text)
	if !ok {
		return fmt.Errorf("override %q: %w", text, os.ErrInvalid)
	}
	e.Overridden = true
	e.UID, e.GID = o.UID, o.GID
	if o.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT {
		e.Placeholder = true
		e.Major, e.Minor = o.Major, o.Minor
	}
	e.Mode = o.Mode
	return nil
}

// Readlink returns the target of a symbolic link.
func (f *Format) Readlink(at At, e *Entry) ([]byte, error) {
	if e.Placeholder {
		return readPlaceholder(at)
	}
	buf := make([]byte, unix.PathMax)
	var n int
	err := IgnoringEINTR(func() (err error) {
		n, err = unix.Readlinkat(at.Dir, at.Name, buf)
		return err
	})
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

func readPlaceholder(at At) ([]byte, error) {
	fd, err := at.Open(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Pread(fd, buf, 0)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// Open opens what is at a place on the host.
func (a At) Open(flags int) (fd int, err error) {
	err = IgnoringEINTR(func() error {
		if a.Name == "" {
			fd, err = unix.Open(a.Path(), flags|unix.O_CLOEXEC, 0)
		} else {
			fd, err = unix.Openat(a.Dir, a.Name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		}
		return err
	})
	return fd, err
}
