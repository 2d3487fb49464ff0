package faultfs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Kind is what an operation does.
type Kind string

// The kinds of operations.
const (
	Create   Kind = "create"    // a new file, directory, link or device with a name
	Tmpfile  Kind = "tmpfile"   // a new file without a name
	Link     Kind = "link"      // another name
	Unlink   Kind = "unlink"    // a name of a file goes
	Rmdir    Kind = "rmdir"     // a directory goes
	Rename   Kind = "rename"    // another name instead
	Exchange Kind = "exchange"  // two names are exchanged
	Write    Kind = "write"     // content
	Truncate Kind = "truncate"  // the size
	Punch    Kind = "fallocate" // content is zeroed, or the size grows
	Setattr  Kind = "setattr"   // mode, owner, times
	Setxattr Kind = "setxattr"  // an extended attribute; a nil value removes it
	Fsync    Kind = "fsync"     // of a file or directory; changes nothing
	Datasync Kind = "fdatasync" // of a file; changes nothing
	Open     Kind = "open"      // of a file that is there; changes nothing
	Opendir  Kind = "opendir"   // changes nothing
	Close    Kind = "close"     // of a file; changes nothing
)

// An Op is one operation.
type Op struct {
	Kind Kind
	// Path is where it happens, for people; a file without a name has "(unlinked)".
	Path string

	ino    uint64 // what it is about
	dir    uint64 // the directory of the name
	name   string
	dir2   uint64 // of Rename and Exchange: the new one
	name2  string
	other  uint64 // of Exchange: what had the new name; of Rename: what is replaced
	attr   *attrChange
	made   *inode // of Create and Tmpfile
	left   *inode // of Rename: the whiteout that takes the old name
	data   []byte
	off    int64
	length int64
	xattr  string
}

// An attrChange has the values that are to change.
type attrChange struct {
	mode, uid, gid *uint32
	atime, mtime   *int64
}

func (o *Op) String() string {
	switch o.Kind {
	case Write, Punch, Truncate:
		return fmt.Sprintf("%s %s %d+%d", o.Kind, o.Path, o.off, max(int64(len(o.data)), o.length))
	case Rename, Exchange:
		return fmt.Sprintf("%s %s to %s", o.Kind, o.Path, o.name2)
	case Setxattr:
		return fmt.Sprintf("%s %s %s", o.Kind, o.Path, o.xattr)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Path)
}

// Changes reports whether the operation changes the state.
func (o *Op) Changes() bool {
	switch o.Kind {
	case Fsync, Datasync, Open, Opendir, Close:
		return false
	}
	return true
}

// names reports whether it changes names.
func (o *Op) names() bool {
	switch o.Kind {
	case Create, Link, Unlink, Rmdir, Rename, Exchange:
		return true
	}
	return false
}

// syncs reports whether it makes changes durable.
func (o *Op) syncs() bool { return o.Kind == Fsync || o.Kind == Datasync }

// apply changes a state. It takes no notice of what cannot be: when earlier changes
// were lost, later ones find other things than they found in life.
func (o *Op) apply(s *State) {
	if o.made != nil && s.inodes[o.ino] == nil {
		made := *o.made
		if made.isDir() {
			made.entries = map[string]uint64{}
		}
		s.inodes[o.ino] = &made
		s.next = max(s.next, o.ino+1)
	}
	if o.left != nil && s.inodes[o.left.ino] == nil {
		left := *o.left
		s.inodes[left.ino] = &left
		s.next = max(s.next, left.ino+1)
	}
	if o.names() {
		o.applyNames(s)
		return
	}
	i := s.inodes[o.ino]
	if i == nil {
		return
	}
	switch o.Kind {
	case Write:
		i.data = writeData(i.data, o.data, o.off)
	case Truncate:
		i.data = resizeData(i.data, o.length)
	case Punch:
		o.applyPunch(i)
	case Setattr:
		o.attr.apply(i)
	case Setxattr:
		if o.data == nil {
			delete(i.xattrs, o.xattr)
		} else {
			if i.xattrs == nil {
				i.xattrs = map[string][]byte{}
			}
			i.xattrs[o.xattr] = o.data
		}
	}
}

// applyPunch is fallocate(2); off is where, length how much, data is nil.
func (o *Op) applyPunch(i *inode) {
	end := o.off + o.length
	if o.attr != nil { // the mode of fallocate
		if *o.attr.mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
			clear(i.data[min(o.off, int64(len(i.data))):min(end, int64(len(i.data)))])
		}
		if *o.attr.mode&unix.FALLOC_FL_KEEP_SIZE != 0 {
			return
		}
	}
	if end > int64(len(i.data)) {
		i.data = resizeData(i.data, end)
	}
}

func (c *attrChange) apply(i *inode) {
	if c.mode != nil {
		i.mode = i.mode&unix.S_IFMT | *c.mode&0o7777
	}
	if c.uid != nil {
		i.uid = *c.uid
	}
	if c.gid != nil {
		i.gid = *c.gid
	}
	if c.atime != nil {
		i.atime = *c.atime
	}
	if c.mtime != nil {
		i.mtime = *c.mtime
	}
}

func (o *Op) applyNames(s *State) {
	dir := s.inodes[o.dir]
	if dir == nil || dir.entries == nil {
		dir = &inode{entries: map[string]uint64{}} // it is gone itself
	}
	drop := func(d *inode, name string, ino uint64) {
		if d.entries[name] == ino {
			delete(d.entries, name)
		}
	}
	switch o.Kind {
	case Create, Link:
		dir.entries[o.name] = o.ino
	case Unlink, Rmdir:
		drop(dir, o.name, o.ino)
	case Rename, Exchange:
		dir2 := s.inodes[o.dir2]
		if dir2 == nil || dir2.entries == nil {
			dir2 = &inode{entries: map[string]uint64{}}
		}
		drop(dir, o.name, o.ino)
		dir2.entries[o.name2] = o.ino
		if o.Kind == Exchange {
			dir.entries[o.name] = o.other
		}
		if o.left != nil {
			dir.entries[o.name] = o.left.ino
		}
	}
}
