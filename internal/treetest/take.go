package treetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Take records the tree below dir. Files the caller may not read are marked,
// every other error ends it.
func Take(dir string) (*Snapshot, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	w := &walker{snap: &Snapshot{Entries: map[string]*Entry{}}, groups: map[inode][]string{}, buf: make([]byte, 256<<10)}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "fstat", Path: dir, Err: err}
	}
	root := w.entry(".", &st)
	if err := w.xattrs(root, ".", fmt.Sprintf("/proc/self/fd/%d/.", fd)); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if err := w.dir(fd, ".", &st, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	w.group()
	return w.snap, nil
}

// inode is what hard links have in common.
type inode struct{ dev, ino uint64 }

// walker is the state of one Take.
type walker struct {
	snap   *Snapshot
	groups map[inode][]string
	buf    []byte
}

func (w *walker) problem(format string, args ...any) {
	w.snap.Problems = append(w.snap.Problems, fmt.Sprintf(format, args...))
}

// entry records what lstat says about path.
func (w *walker) entry(path string, st *unix.Stat_t) *Entry {
	e := &Entry{
		Kind: kindOf(st.Mode), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		Mtime: time.Unix(st.Mtim.Unix()), Nlink: uint64(st.Nlink), Ino: st.Ino, Group: path,
	}
	switch e.Kind {
	case Char, Block:
		e.Rdev = uint64(unix.Major(st.Rdev))<<32 | uint64(unix.Minor(st.Rdev))
	case Directory:
	default:
		e.Size = st.Size
	}
	w.snap.Entries[path] = e
	if e.Kind != Directory {
		id := inode{st.Dev, st.Ino}
		w.groups[id] = append(w.groups[id], path)
	}
	return e
}

// group names each set of hard links by its first path.
func (w *walker) group() {
	for _, paths := range w.groups {
		if len(paths) > 1 {
			first := slices.Min(paths)
			for _, p := range paths {
				w.snap.Entries[p].Group = first
			}
		}
	}
}

// dirent is a name as readdir gives it.
type dirent struct {
	name string
	ino  uint64
	typ  byte
}

// dir records everything below the open directory fd.
func (w *walker) dir(fd int, path string, self, parent *unix.Stat_t) error {
	list, err := w.readdir(fd)
	if err != nil {
		return fmt.Errorf("%s: readdir: %w", path, err)
	}
	w.checkDots(path, list, self, parent)
	seen := make(map[string]bool, len(list))
	for _, d := range list {
		if d.name == "." || d.name == ".." {
			continue
		}
		if seen[d.name] {
			w.problem("%s: %q is listed twice", path, d.name)
			continue
		}
		seen[d.name] = true
		if err := w.name(fd, path, self, d); err != nil {
			return err
		}
	}
	return nil
}

// checkDots holds "." and ".." of a listing against the inodes.
func (w *walker) checkDots(path string, list []dirent, self, parent *unix.Stat_t) {
	for name, st := range map[string]*unix.Stat_t{".": self, "..": parent} {
		i := slices.IndexFunc(list, func(d dirent) bool { return d.name == name })
		switch {
		case i < 0:
			w.problem("%s: %q is not listed", path, name)
		case list[i].typ != unix.DT_DIR:
			w.problem("%s: %q is listed with type %d", path, name, list[i].typ)
		case name == ".." && path == ".": // outside of the tree
		case st.Dev == self.Dev && list[i].ino != st.Ino:
			w.problem("%s: %q is listed with inode %d, want %d", path, name, list[i].ino, st.Ino)
		}
	}
}

// name records one name of the open directory fd, and what is below it.
func (w *walker) name(fd int, dir string, self *unix.Stat_t, d dirent) error {
	path := Join(dir, d.name)
	var st unix.Stat_t
	if err := unix.Fstatat(fd, d.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: lstat: %w", path, err)
	}
	if want := byte(st.Mode & unix.S_IFMT >> 12); d.typ != want && d.typ != unix.DT_UNKNOWN {
		w.problem("%s: listed with type %d, want %d", path, d.typ, want)
	}
	if st.Dev == self.Dev && d.ino != st.Ino {
		w.problem("%s: listed with inode %d, want %d", path, d.ino, st.Ino)
	}
	e := w.entry(path, &st)
	if err := w.xattrs(e, path, fmt.Sprintf("/proc/self/fd/%d/%s", fd, d.name)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var err error
	switch e.Kind {
	case Symlink:
		e.Target, err = readlinkat(fd, d.name)
	case Regular:
		err = w.content(fd, d.name, e)
	case Directory:
		err = w.sub(fd, path, d.name, self, e)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// sub opens a directory and records what is in it.
func (w *walker) sub(fd int, path, name string, parent *unix.Stat_t, e *Entry) error {
	sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		e.Unreadable = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(sub)
	var st unix.Stat_t
	if err := unix.Fstat(sub, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if e.Mode&0o100 == 0 && os.Geteuid() != 0 && unix.Faccessat(sub, ".", unix.X_OK, 0) != nil {
		e.Unreadable = true // names could be listed, but nothing below be reached
		return nil
	}
	return w.dir(sub, path, &st, parent)
}

// content hashes a regular file and checks that it ends where stat says.
func (w *walker) content(fd int, name string, e *Entry) error {
	in, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		e.Unreadable = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(in), name)
	defer f.Close()
	if e.Size > 8<<30 {
		return w.huge(f, e)
	}
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, w.buf)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if n != e.Size {
		w.problem("%s: has %d bytes, stat says %d", e.Group, n, e.Size)
	}
	h.Sum(e.Sum[:0])
	return nil
}

// huge digests a sparse file of many gigabytes by its data extents: reading the
// holes would take for ever. Zero blocks count as holes.
func (w *walker) huge(f *os.File, e *Entry) error {
	h := sha256.New()
	for off := int64(0); off < e.Size; {
		data, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return fmt.Errorf("seek: %w", err)
		}
		data = data / 4096 * 4096
		var block [4096]byte
		n, err := f.ReadAt(block[:], data)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read: %w", err)
		}
		if !bytes.Equal(block[:n], make([]byte, n)) {
			binary.Write(h, binary.LittleEndian, data)
			h.Write(block[:n])
		}
		off = data + 4096
	}
	h.Sum(e.Sum[:0])
	return nil
}

func kindOf(mode uint32) Kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return Regular
	case unix.S_IFDIR:
		return Directory
	case unix.S_IFLNK:
		return Symlink
	case unix.S_IFCHR:
		return Char
	case unix.S_IFBLK:
		return Block
	case unix.S_IFIFO:
		return FIFO
	case unix.S_IFSOCK:
		return Socket
	}
	return 0
}

func readlinkat(fd int, name string) (string, error) {
	buf := make([]byte, 4097)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", fmt.Errorf("readlink: %w", err)
	}
	return string(buf[:n]), nil
}

// readdir reads a listing raw, because the os package drops inode numbers.
func (w *walker) readdir(fd int) ([]dirent, error) {
	var list []dirent
	for {
		n, err := unix.ReadDirent(fd, w.buf)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return list, nil
		}
		for b := w.buf[:n]; len(b) > 19; {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			name, _, _ := strings.Cut(string(b[19:size]), "\x00")
			list = append(list, dirent{name, binary.NativeEndian.Uint64(b), b[18]})
			b = b[size:]
		}
	}
}
