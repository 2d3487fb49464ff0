package tree

import (
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/layerfs/layerfs/internal/spool"
)

// slot is a slot of the hash table from (directory, name) to entries: open
// addressing, linear probing, at most half full. Nothing is ever deleted.
type slot struct {
	hash  uint32
	entry uint32 // 1 + entry; 0: free
}

// hash returns the hash of a name in a directory. It is seeded: an image cannot
// be made so that its names fall into one run of slots.
func (b *Builder) hash(parent uint32, name string) uint32 {
	h := maphash.String(b.seed, name) + uint64(parent)*0x9e3779b97f4a7c15
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return uint32(h >> 32)
}

// find returns the entry of a name in a directory.
func (b *Builder) find(parent uint32, name string) (uint32, bool) {
	table := b.slots.Slice()
	if len(table) == 0 {
		return 0, false
	}
	entries, mask := b.entries.Slice(), uint32(len(table)-1)
	h := b.hash(parent, name)
	for i := h & mask; table[i].entry != 0; i = (i + 1) & mask {
		if table[i].hash != h {
			continue
		}
		e := &entries[table[i].entry-1]
		if e.parent == parent && string(b.nameOf(e)) == name {
			return table[i].entry - 1, true
		}
	}
	return 0, false
}

// nameOf returns the name of an entry, valid until the next name is added.
func (b *Builder) nameOf(e *entry) []byte { return b.names.Get(int(e.name), int(e.len)) }

// newEntry adds a name to a directory.
// Preconditions: find does not find it; len(name) <= 255.
func (b *Builder) newEntry(parent uint32, name string, inode uint32) (uint32, error) {
	if uint64(b.entries.Len()) >= maxIno {
		return 0, fmt.Errorf("%d names: %w", b.entries.Len(), ErrTooLarge)
	}
	if 2*(b.entries.Len()+1) > b.slots.Len() {
		if err := b.growTable(); err != nil {
			return 0, err
		}
	}
	off, err := appendText(b.names, name, &b.scratch)
	if err != nil {
		return 0, err
	}
	i, err := b.entries.Append(entry{parent: parent, inode: inode, name: off, len: uint8(len(name))})
	if err != nil {
		return 0, err
	}
	insert(b.slots.Slice(), slot{hash: b.hash(parent, name), entry: uint32(i) + 1})
	return uint32(i), nil
}

// insert puts s into a table that does not hold it and has a free slot.
func insert(table []slot, s slot) {
	mask := uint32(len(table) - 1)
	i := s.hash & mask
	for table[i].entry != 0 {
		i = (i + 1) & mask
	}
	table[i] = s
}

// growTable doubles the hash table.
func (b *Builder) growTable() error {
	next := spool.NewArray[slot](b.dir)
	for range max(64, 2*b.slots.Len()) {
		if _, err := next.Append(slot{}); err != nil {
			_ = next.Close() // nothing was in it
			return err
		}
	}
	table := next.Slice()
	for _, s := range b.slots.Slice() {
		if s.entry != 0 {
			insert(table, s)
		}
	}
	err := b.slots.Close()
	b.slots = next
	return err
}

// bind makes a name lead to an inode, whatever it led to before.
func (b *Builder) bind(parent uint32, name string, inode uint32) (uint32, error) {
	i, ok := b.find(parent, name)
	if !ok {
		return b.newEntry(parent, name, inode)
	}
	e := b.entries.At(int(i))
	if e.inode != none {
		if k := b.inodes.At(int(e.inode)).kind; k == KindDirectory || k == KindSymlink {
			b.lastOK = false
		}
	}
	e.inode = inode
	return i, nil
}

// place returns the directory of a path, made if need be, and the last name.
func (b *Builder) place(path string) (parent uint32, name string, err error) {
	dir, name := splitPath(path)
	if err := checkName(name); err != nil {
		return 0, "", err
	}
	parent, err = b.directory(dir)
	return parent, name, err
}

// splitPath cuts the last name off a path.
func splitPath(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// checkName refuses what cannot be a name in a directory.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("name %q: %w", Clip(name), ErrBadPath)
	}
	if len(name) > 255 {
		return fmt.Errorf("name of %d bytes, of at most 255: %w", len(name), ErrBadPath)
	}
	return nil
}

// directory returns the inode of a directory, made if need be.
func (b *Builder) directory(path string) (uint32, error) {
	if b.lastOK && b.lastPath == path {
		return b.lastDir, nil
	}
	i, _, err := b.walk(path, true)
	if err != nil {
		return 0, err
	}
	b.lastPath, b.lastDir, b.lastOK = path, i, true
	return i, nil
}

// appendText appends s to t and returns where it begins.
func appendText(t *spool.Bytes, s string, scratch *[]byte) (uint32, error) {
	if uint64(t.Len())+uint64(len(s)) > maxIno {
		return 0, fmt.Errorf("%d bytes of text: %w", t.Len(), ErrTooLarge)
	}
	*scratch = append((*scratch)[:0], s...)
	off, err := t.Append(*scratch)
	return uint32(off), err
}
