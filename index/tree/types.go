package tree

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
)

// Sum is the SHA-256 of a file's content.
type Sum = [sha256.Size]byte

// Ino is the number of an inode in one table. Directories come first: 0 is the
// root, the numbers below [Tree.Dirs] are directories, the rest is not.
type Ino uint32

// maxIno is the largest number of inodes and of names.
const maxIno = math.MaxUint32 - 1

// Kind says what a name is.
type Kind uint8

const (
	KindUnset     Kind = iota // no kind: nothing is there
	KindRegular               // a regular file
	KindDirectory             // a directory
	KindSymlink               // a symbolic link
	KindChar                  // a character device
	KindBlock                 // a block device
	KindFIFO                  // a named pipe
	KindSocket                // a socket; tar has none, other sources may
	KindWhiteout              // the name is deleted in the layers below
	KindLink                  // a hard link to a file of a lower layer
)

var kindNames = [...]string{
	"unset", "regular file", "directory", "symbolic link", "character device", "block device",
	"named pipe", "socket", "whiteout", "link to a lower layer",
}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// isInode says whether an inode may be of kind k.
func (k Kind) isInode() bool { return k >= KindRegular && k <= KindSocket }

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Extent is a part of a sparse file that holds data: where it is in the file.
// The body holds the extents back to back.
type Extent struct{ Offset, Length int64 }

// Meta is what every kind of file has.
type Meta struct {
	Mode      uint32 // permission, set-user-ID, set-group-ID and sticky bits: 07777
	UID, GID  uint32
	MtimeSec  int64
	MtimeNsec uint32
	Xattrs    []Xattr // a later one of the same name replaces an earlier one
}

// Place says where a body is stored.
type Place struct {
	Pack   uint64 // 0: not in a pack but an object named by its digest
	Offset int64
}

// Body is the content of a regular file. For a sparse file it holds the data
// extents only.
type Body struct {
	Sum   Sum
	Size  int64
	Place Place
}

// Stats counts what a layer holds.
type Stats struct {
	Entries    int64 // names other than the root, whiteouts and links included
	Dirs       int64 // directories, the root included
	Files      int64 // regular files; several names of one count once
	Links      int64 // names beyond the first of everything that has several
	Whiteouts  int64
	Opaques    int64 // opaque directories
	LowerLinks int64 // names that are hard links to files of lower layers
	Bytes      int64 // the logical sizes of the regular files
	Bodies     int64 // distinct contents
	BodyBytes  int64 // their sizes
}

// fields returns the counters in the order of the header.
func (s *Stats) fields() [10]*int64 {
	return [10]*int64{
		&s.Entries, &s.Dirs, &s.Files, &s.Links, &s.Whiteouts, &s.Opaques,
		&s.LowerLinks, &s.Bytes, &s.Bodies, &s.BodyBytes,
	}
}

// Errors of reading a table.
var (
	// ErrDamaged is returned when a table contradicts itself or its checksums.
	// It can be built again from the layer's tar.
	ErrDamaged = errors.New("the tree table is damaged; rebuild it with a repairing check")
	// ErrVersion is returned by Open for a table that a later release wrote.
	ErrVersion = errors.New("the tree table needs a newer release")
	// ErrNoInode is returned for a number that is no inode of the table, or not
	// one of the kind that was asked for.
	ErrNoInode = errors.New("no such inode")
)

// Errors of building a table.
var (
	// ErrNotDirectory is returned when something else than a directory is on the
	// way to a path.
	ErrNotDirectory = errors.New("not a directory")
	// ErrLinkToDirectory is returned for a hard link to a directory.
	ErrLinkToDirectory = errors.New("hard link to a directory")
	// ErrBadPath is returned for a path that is not clean or that nothing but a
	// directory can have.
	ErrBadPath = errors.New("not a usable path")
	// ErrTooDeep is returned for a directory more than 4096 levels down.
	ErrTooDeep = errors.New("more than 4096 directories deep")
	// ErrTooManyLinks is returned when following symbolic links does not end.
	ErrTooManyLinks = errors.New("too many levels of symbolic links")
	// ErrTooLarge is returned when a layer exceeds a limit of the format.
	ErrTooLarge = errors.New("more than a tree table can hold")
	// ErrInvalid is returned for attributes that no file can have.
	ErrInvalid = errors.New("invalid attributes")
)
