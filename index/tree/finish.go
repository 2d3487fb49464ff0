package tree

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"

	"github.com/layerfs/layerfs/internal/spool"
)

// finish is what Finish knows beyond the builder: the tree in the order and with
// the numbers of the table.
type finish struct {
	order   *spool.Array[sortKey]   // the names of each directory, sorted
	dirs    *spool.Array[directory] // by number
	others  *spool.Array[uint32]    // the inodes behind the directories, by number
	links   *spool.Array[lowerLink] // by number
	dirents *spool.Array[dirent]    // by number
	names   *spool.Bytes
	bodies  *spool.Array[placed] // by number
	seen    []uint32             // where recently used names are, by their hash
	stats   Stats
	written bool // by Finish
}

// sortKey is a name or digest that is being sorted: its first eight bytes, which
// mostly decide, and where the rest is.
type sortKey struct {
	prefix uint64
	index  uint32 // entry or content
	inode  uint32 // of the entry
}

// directory is a numbered directory.
type directory struct {
	inode, first, end, dirent uint32
}

// lowerLink is a numbered link to a file of a lower layer.
type lowerLink struct {
	inode, entry uint32
}

// dirent is a numbered name.
type dirent struct {
	name, ino uint32
	len       uint8
	kind      Kind
	flags     uint8
}

// placed is a numbered body.
type placed struct {
	content, pack uint32
	offset        int64
}

// seenNames is the number of names remembered to share their bytes.
const seenNames = 1 << 15

// close gives the spools back.
func (f *finish) close() error {
	return errors.Join(f.order.Close(), f.dirs.Close(), f.others.Close(), f.links.Close(),
		f.dirents.Close(), f.names.Close(), f.bodies.Close())
}

// seal ends the building and numbers the tree. A second call does nothing.
func (b *Builder) seal() error {
	if b.fin != nil {
		return nil
	}
	if err := b.start(); err != nil {
		return err
	}
	f := &finish{
		order:   spool.NewArray[sortKey](b.dir),
		dirs:    spool.NewArray[directory](b.dir),
		others:  spool.NewArray[uint32](b.dir),
		links:   spool.NewArray[lowerLink](b.dir),
		dirents: spool.NewArray[dirent](b.dir),
		names:   spool.NewBytes(b.dir),
		bodies:  spool.NewArray[placed](b.dir),
		seen:    make([]uint32, seenNames),
	}
	b.fin = f
	b.count()
	if err := b.group(); err != nil {
		return err
	}
	b.sortNames()
	if err := b.numberDirs(); err != nil {
		return err
	}
	for d := range f.dirs.Len() {
		if err := b.emit(uint32(d)); err != nil {
			return err
		}
	}
	f.seen = nil
	return nil
}

// count finds out which directories are part of the tree, and counts names.
func (b *Builder) count() {
	inodes, entries := b.inodes.Slice(), b.entries.Slice()
	for i := range inodes {
		n := &inodes[i]
		if n.kind != KindDirectory {
			continue
		}
		// A directory is made after its parent, so that one is decided.
		if i == 0 || entries[n.ref].inode == uint32(i) && inodes[n.aux].flags&flagLive != 0 {
			n.flags |= flagLive
		}
	}
	for i := range entries {
		e := &entries[i]
		p := &inodes[e.parent]
		if p.flags&flagLive == 0 {
			continue
		}
		p.size++
		if e.inode == none {
			continue
		}
		n := &inodes[e.inode]
		if n.kind != KindDirectory {
			n.names++
			continue
		}
		p.names++
		if e.white {
			// Not only hidden but gone: this is another directory.
			n.flags = n.flags&^flagImplied | flagOpaque
		}
	}
}

// group brings the names of each directory together.
func (b *Builder) group() error {
	inodes, entries := b.inodes.Slice(), b.entries.Slice()
	total := int64(0)
	for i := range inodes {
		if n := &inodes[i]; n.flags&flagLive != 0 {
			count := n.size
			n.size = total << 32
			total += count
		}
	}
	for range total {
		if _, err := b.fin.order.Append(sortKey{}); err != nil {
			return err
		}
	}
	order := b.fin.order.Slice()
	for i := range entries {
		e := &entries[i]
		if p := &inodes[e.parent]; p.flags&flagLive != 0 {
			order[uint64(p.size)>>32+uint64(uint32(p.size))] = sortKey{
				prefix: prefix(b.nameOf(e)), index: uint32(i), inode: e.inode,
			}
			p.size++
		}
	}
	return nil
}

// prefix returns the first eight bytes of p as a number that sorts like them.
func prefix(p []byte) uint64 {
	if len(p) >= 8 {
		return binary.BigEndian.Uint64(p)
	}
	var buf [8]byte
	copy(buf[:], p)
	return binary.BigEndian.Uint64(buf[:])
}

// namesOf returns the grouped names of a directory.
func (b *Builder) namesOf(n *node) []sortKey {
	first, count := uint64(n.size)>>32, uint64(uint32(n.size))
	return b.fin.order.Slice()[first : first+count]
}

// sortNames sorts the names of each directory.
func (b *Builder) sortNames() {
	inodes, entries := b.inodes.Slice(), b.entries.Slice()
	byName := func(x, y sortKey) int {
		if x.prefix != y.prefix {
			return cmp.Compare(x.prefix, y.prefix)
		}
		return bytes.Compare(b.nameOf(&entries[x.index]), b.nameOf(&entries[y.index]))
	}
	for i := range inodes {
		if n := &inodes[i]; n.flags&flagLive != 0 {
			slices.SortFunc(b.namesOf(n), byName)
		}
	}
}

// numberDirs numbers the directories as a walk in the order of names meets them.
func (b *Builder) numberDirs() error {
	type level struct {
		num  uint32
		rest []sortKey
	}
	f, inodes := b.fin, b.inodes.Slice()
	var stack []level
	enter := func(inode uint32) error {
		num, err := f.dirs.Append(directory{inode: inode})
		n := &inodes[inode]
		n.num = uint32(num)
		stack = append(stack, level{n.num, b.namesOf(n)})
		return err
	}
	if err := enter(0); err != nil {
		return err
	}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		i := slices.IndexFunc(top.rest, func(k sortKey) bool {
			return k.inode != none && inodes[k.inode].kind == KindDirectory
		})
		if i < 0 {
			f.dirs.At(int(top.num)).end = uint32(f.dirs.Len())
			stack = stack[:len(stack)-1]
			continue
		}
		next := top.rest[i].inode
		top.rest = top.rest[i+1:]
		if err := enter(next); err != nil {
			return err
		}
	}
	return nil
}

// emit numbers the names of directory d and the inodes that they lead to.
func (b *Builder) emit(d uint32) error {
	f := b.fin
	dir := f.dirs.At(int(d))
	dir.first = uint32(f.dirents.Len())
	n := b.inodes.At(int(dir.inode))
	f.stats.Dirs++
	if n.flags&flagOpaque != 0 {
		f.stats.Opaques++
	}
	for _, k := range b.namesOf(n) {
		entry, err := b.numbered(k)
		if err != nil {
			return err
		}
		if entry.kind == KindWhiteout || entry.kind == KindLink {
			n.flags |= flagSpecial
		}
		e := b.entries.At(int(k.index))
		entry.len = e.len
		if entry.name, err = f.share(b.nameOf(e)); err != nil {
			return err
		}
		at, err := f.dirents.Append(entry)
		if err != nil {
			return err
		}
		if entry.kind == KindDirectory {
			f.dirs.At(int(entry.ino)).dirent = uint32(at)
		}
		f.stats.Entries++
	}
	return nil
}

// numbered returns the dirent of a name, without the name.
func (b *Builder) numbered(k sortKey) (dirent, error) {
	f := b.fin
	if k.inode == none {
		f.stats.Whiteouts++
		return dirent{kind: KindWhiteout}, nil
	}
	n := b.inodes.At(int(k.inode))
	switch {
	case n.kind == KindDirectory:
		return dirent{kind: n.kind, ino: n.num, flags: n.flags & flagOpaque}, nil
	case n.kind == KindLink:
		f.stats.LowerLinks++
		if n.flags&flagNumbered == 0 {
			at, err := f.links.Append(lowerLink{inode: k.inode, entry: k.index})
			if err != nil {
				return dirent{}, err
			}
			n.flags |= flagNumbered
			n.size = int64(at)
		}
		return dirent{kind: n.kind, ino: uint32(n.size)}, nil
	case n.flags&flagNumbered == 0:
		if err := f.addOther(n, k.inode); err != nil {
			return dirent{}, err
		}
		f.countFile(n)
	default:
		f.stats.Links++
	}
	return dirent{kind: n.kind, ino: n.num}, nil
}

// addOther numbers an inode that is no directory.
func (f *finish) addOther(n *node, inode uint32) error {
	at, err := f.others.Append(inode)
	n.flags |= flagNumbered
	n.num = uint32(f.dirs.Len() + at)
	return err
}

// addCopy numbers the copy of a lower file.
func (f *finish) addCopy(b *Builder, inode uint32) error {
	return f.addOther(b.inodes.At(int(inode)), inode)
}

// countFile counts an inode that has its first name.
func (f *finish) countFile(n *node) {
	if n.kind != KindRegular {
		return
	}
	f.stats.Files++
	f.stats.Bytes += n.size
	if f.stats.Bytes < 0 { // sparse files may claim any size
		f.stats.Bytes = math.MaxInt64
	}
}

// share returns where a name is in the names section; a name that was used not
// long ago is not written again. The hash is a fixed one: equal layers are to
// give equal tables.
func (f *finish) share(name []byte) (uint32, error) {
	at := &f.seen[crc32.Checksum(name, castagnoli)%seenNames]
	if old := int(*at) - 1; old >= 0 && old+len(name) <= f.names.Len() &&
		bytes.Equal(f.names.Get(old, len(name)), name) {
		return uint32(old), nil
	}
	off, err := f.names.Append(name)
	*at = uint32(off) + 1
	return uint32(off), err
}
