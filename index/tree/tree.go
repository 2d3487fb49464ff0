package tree

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Tree is an open table. Its methods may be called from any number of
// goroutines; what they return as a byte slice lies in the mapping, must not be
// changed and is valid until Close.
type Tree struct {
	data   []byte
	mapped bool
	header
	bytes [sections][]byte
}

// Open maps the table at path. It reads the header only; see [Tree.Verify]. The
// caller closes it.
func Open(path string) (*Tree, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	return OpenFile(f)
}

// OpenFile maps the table in f, which may be closed afterwards. The caller
// closes the tree.
func OpenFile(f *os.File) (*Tree, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := fi.Size()
	if size < headerSize+footerSize || size != int64(int(size)) {
		return nil, fmt.Errorf("%s: no tree table: %w", f.Name(), ErrDamaged)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: map %d bytes: %w", f.Name(), size, err)
	}
	t, err := parse(data)
	if err != nil {
		_ = unix.Munmap(data) // the damage is the news
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	t.mapped = true
	return t, nil
}

// parse makes a tree of a table in memory.
func parse(data []byte) (*Tree, error) {
	h, err := decodeHeader(data, uint64(len(data)))
	if err != nil {
		return nil, err
	}
	t := &Tree{data: data, header: *h}
	for i, s := range h.sec {
		t.bytes[i] = data[s.off : s.off+s.len : s.off+s.len]
	}
	return t, nil
}

// Close unmaps the table. No other method may be running or be called later,
// and nothing that they returned may be used. A second call does nothing.
func (t *Tree) Close() error {
	data := t.data
	t.data, t.header, t.bytes = nil, header{}, [sections][]byte{}
	if !t.mapped || data == nil {
		return nil
	}
	return unix.Munmap(data)
}

// Dirs returns the number of directories; their inodes are 0 to Dirs()-1.
func (t *Tree) Dirs() uint32 { return t.dirs }

// Inodes returns the number of inodes, directories included. Whiteouts and links
// to lower layers are names without an inode.
func (t *Tree) Inodes() uint32 { return uint32(len(t.bytes[secInodes]) / inodeSize) }

// Names returns the number of dirents.
func (t *Tree) Names() uint32 { return uint32(len(t.bytes[secDirents]) / direntSize) }

// Stats returns what the layer holds, as counted when the table was written.
func (t *Tree) Stats() Stats { return t.stats }

// Size returns the size of the table in bytes.
func (t *Tree) Size() int64 { return int64(len(t.data)) }

// HasLowerLinks says whether the layer has hard links to files of lower layers.
func (t *Tree) HasLowerLinks() bool { return len(t.bytes[secLinks]) != 0 }

// Packs returns the packs that bodies of the layer lie in, without 0.
func (t *Tree) Packs() []uint64 {
	p := t.bytes[secPacks]
	packs := make([]uint64, len(p)/packSize)
	for i := range packs {
		packs[i] = le.Uint64(p[packSize*i:])
	}
	return packs
}

// Attr are the attributes of an inode.
type Attr struct {
	Kind      Kind
	Mode      uint32 // 07777
	UID, GID  uint32
	Nlink     uint32 // directories: 2 + number of subdirectories
	Size      int64  // regular files: logical size; symlinks: length of the target; else 0
	MtimeSec  int64
	MtimeNsec uint32
	Major     uint32 // devices
	Minor     uint32
	Implied   bool // a directory that the layer only needs on the way to others
	Opaque    bool // a directory that hides what is below
	Special   bool // a directory that holds whiteouts or links to lower layers
	Sparse    bool // a regular file with a sparse map
	HasXattrs bool
}

// record returns the record of inode i.
func (t *Tree) record(i Ino) (record, error) {
	p := t.bytes[secInodes]
	if uint64(i) >= uint64(len(p)/inodeSize) {
		return record{}, fmt.Errorf("inode %d: %w", i, ErrNoInode)
	}
	r := decodeRecord((*[inodeSize]byte)(p[inodeSize*int(i):]))
	if !r.kind.isInode() || (r.kind == KindDirectory) != (uint32(i) < t.dirs) {
		return record{}, fmt.Errorf("inode %d: wrong kind: %w", i, ErrDamaged)
	}
	return r, nil
}

// recordOf returns the record of inode i, which is to be of kind k.
func (t *Tree) recordOf(i Ino, k Kind) (record, error) {
	r, err := t.record(i)
	if err == nil && r.kind != k {
		return r, fmt.Errorf("inode %d is a %v, not a %v: %w", i, r.kind, k, ErrNoInode)
	}
	return r, err
}

// Attr returns the attributes of inode i. It does not allocate.
func (t *Tree) Attr(i Ino) (Attr, error) {
	r, err := t.record(i)
	if err != nil {
		return Attr{}, err
	}
	a := Attr{
		Kind: r.kind, Mode: uint32(r.mode), UID: r.uid, GID: r.gid, Nlink: r.nlink,
		MtimeSec: r.sec, MtimeNsec: r.nsec,
		Implied: r.flags&flagImplied != 0, Opaque: r.flags&flagOpaque != 0,
		Special: r.flags&flagSpecial != 0, Sparse: r.flags&flagSparse != 0,
		HasXattrs: r.xattrs != 0,
	}
	switch r.kind {
	case KindRegular, KindSymlink:
		a.Size = int64(r.size)
	case KindChar, KindBlock:
		a.Major, a.Minor = uint32(r.size>>32), uint32(r.size)
	}
	return a, nil
}
