package treetest

import (
	"slices"
	"strings"
	"time"
)

// Kind is the type of a file as d_type and st_mode give it.
type Kind byte

// The kinds of files. The zero value is none.
const (
	Regular   Kind = 'f'
	Directory Kind = 'd'
	Symlink   Kind = 'l'
	Char      Kind = 'c'
	Block     Kind = 'b'
	FIFO      Kind = 'p'
	Socket    Kind = 's'
)

// String returns the word for k.
func (k Kind) String() string {
	switch k {
	case Regular:
		return "file"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	case Char:
		return "character device"
	case Block:
		return "block device"
	case FIFO:
		return "FIFO"
	case Socket:
		return "socket"
	}
	return "unset"
}

// Entry is what one path of a tree is.
type Entry struct {
	// Kind is the type of the file.
	Kind Kind
	// Mode holds the permission and suid, sgid and sticky bits.
	Mode uint32
	// UID and GID are the owners.
	UID, GID uint32
	// Size is st_size; 0 for directories, whose size means nothing.
	Size int64
	// Mtime is the time of the last change, to the nanosecond.
	Mtime time.Time
	// Rdev is the number of a device, as major<<32 | minor.
	Rdev uint64
	// Nlink is st_nlink.
	Nlink uint64
	// Ino is st_ino: not compared, because only its equality means something.
	Ino uint64
	// Sum is the SHA-256 of a regular file's content.
	Sum [32]byte
	// Unreadable is set when the caller was not permitted to read the content
	// of a file or the names of a directory.
	Unreadable bool
	// Target is a symlink's.
	Target string
	// Xattrs are the extended attributes that are listed, without those that
	// belong to overlay file systems.
	Xattrs map[string]string
	// Opaque says that the directory answers trusted.overlay.opaque (or, for
	// an ordinary user, user.overlay.opaque) with "y".
	Opaque bool
	// Group is the first path, in byte order, of those that share the inode.
	Group string
}

// Whiteout says whether e is the mark of a deleted name in a layer.
func (e *Entry) Whiteout() bool { return e.Kind == Char && e.Rdev == 0 }

// Snapshot is a whole tree at one time.
type Snapshot struct {
	// Entries are the files by path; the root is ".".
	Entries map[string]*Entry
	// Problems are contradictions inside the tree: a d_type that is not the
	// file's type, a name listed twice, a missing "..", a listed attribute that
	// cannot be read. A sound file system has none.
	Problems []string
}

// Paths returns the paths in byte order.
func (s *Snapshot) Paths() []string {
	paths := make([]string, 0, len(s.Entries))
	for p := range s.Entries {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// Subdirs counts the directories directly below each directory.
func (s *Snapshot) Subdirs() map[string]int {
	n := map[string]int{}
	for p, e := range s.Entries {
		if e.Kind == Directory && p != "." {
			n[Parent(p)]++
		}
	}
	return n
}

// Parent returns the path of the directory that holds p.
func Parent(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return "."
}

// Join puts a name below a directory of a tree.
func Join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// Private says whether an extended attribute belongs to an overlay file system
// and therefore is no part of an image.
func Private(name string) bool {
	for _, prefix := range []string{"trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
