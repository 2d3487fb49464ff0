package tree

import (
	"bytes"
	"fmt"
	"hash/crc32"
)

// encodeFooter returns the footer's bytes:
//
//	 0 CRC-32C of each section, u32 each
//	40 zeros
//	52 CRC-32C of the footer before it
//	56 magic [8]
func encodeFooter(sums [sections]uint32) []byte {
	p := make([]byte, footerSize)
	for i, sum := range sums {
		le.PutUint32(p[4*i:], sum)
	}
	le.PutUint32(p[52:], crc32.Checksum(p[:52], castagnoli))
	copy(p[56:], footerMagic)
	return p
}

// Verify reads the whole table and compares its checksums, then checks that its
// parts agree: every record, name and reference. It returns the first
// contradiction, wrapping [ErrDamaged].
func (t *Tree) Verify() error {
	if err := t.verifySums(); err != nil {
		return err
	}
	if err := t.verifyDirs(); err != nil {
		return err
	}
	for i := range t.Inodes() {
		if err := t.verifyInode(Ino(i)); err != nil {
			return damaged(err)
		}
	}
	var last Sum
	for i := range t.bodies() {
		b, err := t.body(i)
		if err != nil {
			return err
		}
		if i > 0 && bytes.Compare(last[:], b.Sum[:]) >= 0 {
			return fmt.Errorf("body %d: not in order: %w", i, ErrDamaged)
		}
		last = b.Sum
	}
	for i := range t.LowerLinks() {
		_, err := t.LowerLink(i)
		if err == nil {
			_, _, err = t.LowerCopy(i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// damaged returns err as one that wraps ErrDamaged: inside a table, an inode that
// is missing is damage.
func damaged(err error) error { return fmt.Errorf("%w: %w", err, ErrDamaged) }

// verifySums compares the checksums.
func (t *Tree) verifySums() error {
	foot := t.data[len(t.data)-footerSize:]
	if string(foot[56:]) != footerMagic || le.Uint32(foot[52:]) != crc32.Checksum(foot[:52], castagnoli) {
		return fmt.Errorf("footer: wrong checksum: %w", ErrDamaged)
	}
	for i, p := range t.bytes {
		if le.Uint32(foot[4*i:]) != crc32.Checksum(p, castagnoli) {
			return fmt.Errorf("section %s: wrong checksum: %w", sectionNames[i], ErrDamaged)
		}
	}
	return nil
}

// verifyDirs checks the directories and their names.
func (t *Tree) verifyDirs() error {
	at := uint32(0)
	for d := range Ino(t.dirs) {
		first, count, err := t.Dir(d)
		if err != nil {
			return err
		}
		if first != at {
			return fmt.Errorf("directory %d: wrong dirents: %w", d, ErrDamaged)
		}
		at += count
		if err := t.verifyNames(d, first, count); err != nil {
			return err
		}
	}
	if at != t.Names() {
		return fmt.Errorf("dirents of no directory: %w", ErrDamaged)
	}
	return nil
}

// verifyNames checks the names of one directory.
func (t *Tree) verifyNames(dir Ino, first, count uint32) error {
	var last []byte
	for i := first; i < first+count; i++ {
		d, err := t.Dirent(i)
		if err != nil {
			return err
		}
		if bytes.Compare(last, d.Name) >= 0 {
			return fmt.Errorf("directory %d: name %q: not in order: %w", dir, d.Name, ErrDamaged)
		}
		last = d.Name
		if d.Kind != KindDirectory {
			continue
		}
		if p, _, err := t.Parent(d.Ino); err != nil || p != dir || d.Ino <= dir {
			return fmt.Errorf("directory %d: name %q: wrong parent: %w", dir, d.Name, ErrDamaged)
		}
		if a, err := t.Attr(d.Ino); err != nil || a.Opaque != d.Opaque {
			return fmt.Errorf("directory %d: name %q: opaque or not: %w", dir, d.Name, ErrDamaged)
		}
	}
	return nil
}

// verifyInode checks what an inode refers to.
func (t *Tree) verifyInode(i Ino) error {
	a, err := t.Attr(i)
	if err != nil {
		return err
	}
	switch a.Kind {
	case KindDirectory:
		if _, err = t.Subtree(i); err == nil {
			_, _, err = t.Parent(i)
		}
	case KindSymlink:
		_, err = t.Symlink(i)
	case KindRegular:
		if _, _, err = t.Body(i); err == nil {
			_, err = t.extents(i)
		}
	}
	if err != nil {
		return err
	}
	return t.EachXattr(i, func(_, _ []byte) bool { return true })
}
