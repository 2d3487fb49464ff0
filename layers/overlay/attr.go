package overlay

import (
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
)

// Attr are the attributes of a node. Owners are those of the container.
type Attr struct {
	ID           ID
	Ino          ID     // the inode number to show
	Mode         uint32 // with the S_IFMT bits
	Nlink        uint32
	UID, GID     uint32
	Major, Minor uint32
	Size, Blocks uint64
	Atime        unix.Timespec
	Mtime        unix.Timespec
	Ctime        unix.Timespec
}

var modes = [...]uint32{
	tree.KindRegular: unix.S_IFREG, tree.KindDirectory: unix.S_IFDIR, tree.KindSymlink: unix.S_IFLNK,
	tree.KindChar: unix.S_IFCHR, tree.KindBlock: unix.S_IFBLK, tree.KindFIFO: unix.S_IFIFO, tree.KindSocket: unix.S_IFSOCK,
}

// modeOf returns the S_IFMT bits of a kind.
func modeOf(k tree.Kind) uint32 {
	if int(k) < len(modes) {
		return modes[k]
	}
	return 0
}

// dirSize is the size shown for a directory below.
const dirSize = 4096

func blocks(size uint64) uint64 { return (size + 4095) / 4096 * 8 }

// lowerAttr returns the attributes of what is below.
func (f *FS) lowerAttr(id ID, n union.Node) (Attr, error) {
	a, err := f.below.Attr(n)
	if err != nil {
		return Attr{}, err
	}
	return f.fromLower(id, &a), nil
}

func (f *FS) fromLower(id ID, a *tree.Attr) Attr {
	mtime := unix.Timespec{Sec: a.MtimeSec, Nsec: int64(a.MtimeNsec)}
	out := Attr{
		ID: id, Ino: id, Mode: modeOf(a.Kind) | a.Mode, Nlink: a.Nlink, UID: a.UID, GID: a.GID, Major: a.Major, Minor: a.Minor,
		Size: uint64(a.Size), Atime: mtime, Mtime: mtime, Ctime: mtime,
	}
	switch a.Kind {
	case tree.KindDirectory:
		out.Size, out.Blocks = dirSize, blocks(dirSize)
	case tree.KindRegular:
		out.Blocks = blocks(out.Size)
	}
	if out.Nlink > 1 && a.Kind != tree.KindDirectory {
		out.Nlink -= min(f.unlinked.count(id), out.Nlink)
	}
	return out
}

// GetAttr returns the attributes of a node.
func (f *FS) GetAttr(id ID) (Attr, error) {
	n := f.get(id)
	if n == nil || !n.up.Load() {
		l, ok := f.lowerNode(id)
		if !ok {
			return Attr{}, unix.ESTALE
		}
		return f.lowerAttr(id, l)
	}
	return f.attr(n)
}

// attr returns the attributes of a node that is up.
func (f *FS) attr(n *node) (Attr, error) {
	st, gone, err := f.stat(n)
	if err != nil {
		return Attr{}, err
	}
	if gone != nil {
		return *gone, nil
	}
	if f.readOnly {
		if err := f.refresh(n); err != nil {
			return Attr{}, err
		}
	}
	return f.fromHost(n, &st), nil
}

// stat is fstat(2) of a node; of one that was removed and has no descriptor it
// returns what was last known.
func (f *FS) stat(n *node) (st unix.Stat_t, gone *Attr, err error) {
	if fd, ok := f.fds.pin(n); ok {
		defer f.fds.unpin(n)
		return st, nil, unix.Fstat(fd, &st)
	}
	n.place.RLock()
	gone = n.gone
	n.place.RUnlock()
	if gone != nil {
		return st, gone, nil
	}
	at, done, err := f.at(n)
	if err != nil {
		return st, nil, err
	}
	defer done()
	st, err = at.Stat()
	return st, nil, err
}

// refresh reads the marks of a node again, because another process may have changed
// them.
func (f *FS) refresh(n *node) error {
	at, done, err := f.at(n)
	if err != nil {
		return err
	}
	e, err := f.format.Read(at)
	done()
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.e = e
	n.mu.Unlock()
	n.metacopy.Store(e.Metacopy && n.hasLower)
	return nil
}

// fromHost returns the attributes of a node that is up, from what fstat says.
func (f *FS) fromHost(n *node, st *unix.Stat_t) Attr {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return f.fromHostLocked(n, st)
}

// fromHostLocked is fromHost for a caller that holds n.mu.
func (f *FS) fromHostLocked(n *node, st *unix.Stat_t) Attr {
	e := f.format.FromStat(st)
	if n.e.Overridden {
		e.Mode, e.UID, e.GID, e.Major, e.Minor = n.e.Mode, n.e.UID, n.e.GID, n.e.Major, n.e.Minor
	}
	a := Attr{
		ID: n.id, Ino: n.ino, Mode: e.Mode, Nlink: e.Nlink, UID: e.UID, GID: e.GID, Major: e.Major, Minor: e.Minor,
		Size: uint64(e.Size), Blocks: uint64(e.Blocks), Atime: e.Atime, Mtime: e.Mtime, Ctime: e.Ctime,
	}
	switch {
	case n.isDir() && n.hasLower:
		a.Nlink = 1 // as overlayfs shows merged directories
	case n.isDir():
		a.Nlink = max(a.Nlink, 1)
	case n.metacopy.Load():
		a.Blocks = blocks(a.Size)
	}
	return a
}
