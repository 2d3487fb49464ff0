package faultfs

import (
	"bytes"
	"maps"

	"golang.org/x/sys/unix"
)

// rootIno is the inode number of the root directory, which FUSE gives.
const rootIno = 1

// A State is all that a file system holds at one moment.
type State struct {
	inodes map[uint64]*inode
	next   uint64
}

// An inode is a file of any kind.
type inode struct {
	ino      uint64
	mode     uint32 // with the S_IFMT bits
	uid, gid uint32
	rdev     uint32
	nlink    uint32
	atime    int64 // nanoseconds since 1970
	mtime    int64
	ctime    int64
	data     []byte            // of a regular file
	target   string            // of a symbolic link
	entries  map[string]uint64 // of a directory
	parent   uint64            // of a directory
	xattrs   map[string][]byte
}

func (i *inode) isDir() bool { return i.mode&unix.S_IFMT == unix.S_IFDIR }

// NewState returns an empty file system whose root belongs to the user.
func NewState(uid, gid uint32) *State {
	root := &inode{ino: rootIno, mode: unix.S_IFDIR | 0o755, uid: uid, gid: gid, nlink: 2, entries: map[string]uint64{}, parent: rootIno}
	return &State{inodes: map[uint64]*inode{rootIno: root}, next: rootIno + 1}
}

// Clone returns a copy that shares nothing which is ever changed: contents are
// replaced, not written to, once they are shared.
func (s *State) Clone() *State {
	c := &State{inodes: make(map[uint64]*inode, len(s.inodes)), next: s.next}
	for n, i := range s.inodes {
		j := *i
		j.data = bytes.Clone(i.data)
		j.entries = maps.Clone(i.entries)
		j.xattrs = maps.Clone(i.xattrs)
		c.inodes[n] = &j
	}
	return c
}

// settle removes what no name leads to and counts the names of the rest.
func (s *State) settle() {
	for _, i := range s.inodes {
		i.nlink = 0
	}
	root := s.inodes[rootIno]
	root.nlink = 1
	todo := []*inode{root}
	for len(todo) > 0 {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		dir.nlink++ // "."
		for name, n := range dir.entries {
			i := s.inodes[n]
			if i == nil || i.isDir() && i.nlink > 0 {
				delete(dir.entries, name)
				continue
			}
			i.nlink++
			if i.isDir() {
				i.parent = dir.ino
				dir.nlink++ // its ".."
				todo = append(todo, i)
			}
		}
	}
	for n, i := range s.inodes {
		if i.nlink == 0 {
			delete(s.inodes, n)
		}
	}
}

// path returns one of the paths of an inode, for people.
func (s *State) path(ino uint64) string {
	if ino == rootIno {
		return "/"
	}
	for _, i := range s.inodes {
		for name, n := range i.entries {
			if n == ino {
				if i.ino == rootIno {
					return "/" + name
				}
				return s.path(i.ino) + "/" + name
			}
		}
	}
	return "(unlinked)"
}

// writeData returns content with p written at off.
func writeData(data, p []byte, off int64) []byte {
	if end := off + int64(len(p)); end > int64(len(data)) {
		data = resizeData(data, end)
	}
	copy(data[off:], p)
	return data
}

func resizeData(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		clear(data[size:]) // so that growing again shows zeros
		return data[:size]
	}
	if size <= int64(cap(data)) {
		return data[:size]
	}
	grown := make([]byte, size, size+size/4)
	copy(grown, data)
	return grown
}

// Files returns the paths of all that is no directory, in no order.
func (s *State) Files() []string {
	var list []string
	s.walk(s.inodes[rootIno], "", func(path string, i *inode) {
		if !i.isDir() {
			list = append(list, path)
		}
	})
	return list
}

func (s *State) walk(dir *inode, at string, fn func(path string, i *inode)) {
	for name, n := range dir.entries {
		i := s.inodes[n]
		fn(at+"/"+name, i)
		if i.isDir() {
			s.walk(i, at+"/"+name, fn)
		}
	}
}
