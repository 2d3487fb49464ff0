package tree

import (
	"bytes"
	"fmt"
)

// Dirent is a name in a directory.
type Dirent struct {
	Name  []byte
	Kind  Kind
	Ino   Ino    // KindLink: number of the link, see LowerLink; KindWhiteout: 0
	Index uint32 // its number in the table
	// Opaque says of a directory what its Attr.Opaque says.
	Opaque bool
}

// Dir returns the dirents of a directory: count of them from number first, sorted
// by name. A caller that descends compares: a subdirectory's number is larger
// than its parent's, or the table is damaged.
func (t *Tree) Dir(dir Ino) (first, count uint32, err error) {
	if uint32(dir) >= t.dirs {
		return 0, 0, fmt.Errorf("inode %d is no directory: %w", dir, ErrNoInode)
	}
	p := t.bytes[secInodes][inodeSize*int(dir):]
	first = le.Uint32(p)
	next := t.Names()
	if uint32(dir)+1 < t.dirs {
		next = min(next, le.Uint32(p[inodeSize:]))
	}
	if first > next {
		return 0, 0, fmt.Errorf("directory %d: wrong dirents: %w", dir, ErrDamaged)
	}
	return first, next - first, nil
}

// Subtree returns where the directories below dir end: they are dir+1 to end-1.
func (t *Tree) Subtree(dir Ino) (end Ino, err error) {
	r, err := t.recordOf(dir, KindDirectory)
	if err != nil {
		return 0, err
	}
	end = Ino(r.size >> 32)
	if end <= dir || uint32(end) > t.dirs {
		return 0, fmt.Errorf("directory %d: wrong subtree: %w", dir, ErrDamaged)
	}
	return end, nil
}

// Dirent returns dirent number index. It does not allocate.
func (t *Tree) Dirent(index uint32) (Dirent, error) {
	if index >= t.Names() {
		return Dirent{}, fmt.Errorf("dirent %d: %w", index, ErrNoInode)
	}
	p := (*[direntSize]byte)(t.bytes[secDirents][direntSize*int(index):])
	name, err := t.name(p, index)
	if err != nil {
		return Dirent{}, err
	}
	d := Dirent{Name: name, Kind: Kind(p[9]), Ino: Ino(le.Uint32(p[4:])), Index: index, Opaque: p[10]&flagOpaque != 0}
	if !t.fits(d.Kind, d.Ino) {
		return Dirent{}, fmt.Errorf("dirent %d: wrong inode: %w", index, ErrDamaged)
	}
	return d, nil
}

// name returns the name of a dirent record.
func (t *Tree) name(p *[direntSize]byte, index uint32) ([]byte, error) {
	off, end := uint64(le.Uint32(p[0:])), uint64(le.Uint32(p[0:]))+uint64(p[8])
	if names := t.bytes[secNames]; end <= uint64(len(names)) {
		return names[off:end:end], nil
	}
	return nil, fmt.Errorf("dirent %d: wrong name: %w", index, ErrDamaged)
}

// fits says whether a dirent may be of kind k and have number i.
func (t *Tree) fits(k Kind, i Ino) bool {
	switch {
	case k == KindDirectory:
		return i != 0 && uint32(i) < t.dirs
	case k.isInode():
		return uint32(i) >= t.dirs && uint32(i) < t.Inodes()
	case k == KindLink:
		return uint32(i) < t.LowerLinks()
	}
	return k == KindWhiteout
}

// Lookup finds name in a directory. It does not allocate.
func (t *Tree) Lookup(dir Ino, name []byte) (Dirent, bool, error) {
	first, count, err := t.Dir(dir)
	if err != nil {
		return Dirent{}, false, err
	}
	lo, hi := first, first+count
	for lo < hi {
		mid := lo + (hi-lo)/2
		got, err := t.name((*[direntSize]byte)(t.bytes[secDirents][direntSize*int(mid):]), mid)
		if err != nil {
			return Dirent{}, false, err
		}
		switch c := bytes.Compare(got, name); {
		case c < 0:
			lo = mid + 1
		case c > 0:
			hi = mid
		default:
			return t.found(dir, mid)
		}
	}
	return Dirent{}, false, nil
}

// found returns the dirent that Lookup found in dir.
func (t *Tree) found(dir Ino, index uint32) (Dirent, bool, error) {
	d, err := t.Dirent(index)
	if err == nil && d.Kind == KindDirectory && d.Ino <= dir {
		err = fmt.Errorf("dirent %d: a directory inside itself: %w", index, ErrDamaged)
	}
	return d, err == nil, err
}

// Parent returns the directory that dir lies in and its name there. The root is
// its own parent and has no name.
func (t *Tree) Parent(dir Ino) (parent Ino, name []byte, err error) {
	r, err := t.recordOf(dir, KindDirectory)
	if err != nil || dir == 0 {
		return 0, nil, err
	}
	if Ino(r.ref) >= dir {
		return 0, nil, fmt.Errorf("directory %d: wrong parent: %w", dir, ErrDamaged)
	}
	d, err := t.Dirent(r.aux)
	if err == nil && (d.Kind != KindDirectory || d.Ino != dir) {
		err = fmt.Errorf("directory %d: wrong name: %w", dir, ErrDamaged)
	}
	return Ino(r.ref), d.Name, err
}
