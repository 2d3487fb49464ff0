package tree

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Version is the version of the table that this package writes and reads.
const Version = 1

const (
	magic       = "lfs-tree"
	footerMagic = "lfs-tend"

	headerSize = 512
	footerSize = 64
	inodeSize  = 48
	direntSize = 12
	bodySize   = 48
	packSize   = 8
	linkSize   = 16
	extentSize = 24

	low48 = 1<<48 - 1
)

// The sections, in the order of the file.
const (
	secInodes = iota
	secDirents
	secNames
	secTargets
	secXattrs
	secSparse
	secBodies
	secPacks
	secLinks
	secPaths
	sections
)

// sectionNames are for messages.
var sectionNames = [sections]string{
	"inodes", "dirents", "names", "targets", "xattrs", "sparse", "bodies", "packs", "links", "paths",
}

// recordSizes are the sizes of a section's records, 1 where it has none.
var recordSizes = [sections]uint64{inodeSize, direntSize, 1, 1, 1, 8, bodySize, packSize, linkSize, 1}

// Flags of an inode record.
const (
	flagImplied = 1 << iota
	flagOpaque
	flagSpecial
	flagSparse
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var le = binary.LittleEndian

// section is the place of a section in the file.
type section struct{ off, len uint64 }

// header is the decoded header.
type header struct {
	dirs  uint32
	stats Stats
	sec   [sections]section
}

// layout gives the sections their offsets and returns the size of the file.
func (h *header) layout() uint64 {
	off := uint64(headerSize)
	for i := range h.sec {
		h.sec[i].off = off
		off += (h.sec[i].len + 7) &^ 7
	}
	return off + footerSize
}

// encode returns the header's bytes:
//
//	  0 magic [8], version u32, features u32 (0), dirs u32, 0 u32
//	 24 section table: offset u64, length u64 each
//	184 stats: ten i64
//	508 CRC-32C of the bytes before it
func (h *header) encode() []byte {
	p := make([]byte, headerSize)
	copy(p, magic)
	le.PutUint32(p[8:], Version)
	le.PutUint32(p[16:], h.dirs)
	for i, s := range h.sec {
		le.PutUint64(p[24+16*i:], s.off)
		le.PutUint64(p[32+16*i:], s.len)
	}
	for i, v := range h.stats.fields() {
		le.PutUint64(p[184+8*i:], uint64(*v))
	}
	le.PutUint32(p[508:], crc32.Checksum(p[:508], castagnoli))
	return p
}

// decodeHeader reads the header of a file of the given size.
func decodeHeader(p []byte, size uint64) (*header, error) {
	if len(p) < headerSize+footerSize || string(p[:8]) != magic {
		return nil, fmt.Errorf("no tree table: %w", ErrDamaged)
	}
	if v, f := le.Uint32(p[8:]), le.Uint32(p[12:]); v != Version || f != 0 {
		return nil, fmt.Errorf("table of version %d, features %#x: %w", v, f, ErrVersion)
	}
	if le.Uint32(p[508:]) != crc32.Checksum(p[:508], castagnoli) {
		return nil, fmt.Errorf("header: wrong checksum: %w", ErrDamaged)
	}
	h := &header{dirs: le.Uint32(p[16:])}
	for i := range h.sec {
		h.sec[i].len = le.Uint64(p[32+16*i:])
		if h.sec[i].len > size || h.sec[i].len%recordSizes[i] != 0 {
			return nil, fmt.Errorf("section %s: wrong length: %w", sectionNames[i], ErrDamaged)
		}
	}
	for i, v := range h.stats.fields() {
		*v = int64(le.Uint64(p[184+8*i:]))
	}
	if h.layout() != size {
		return nil, fmt.Errorf("table of %d bytes, want %d: %w", size, h.layout(), ErrDamaged)
	}
	for i, s := range h.sec {
		if le.Uint64(p[24+16*i:]) != s.off {
			return nil, fmt.Errorf("section %s: wrong place: %w", sectionNames[i], ErrDamaged)
		}
	}
	inodes := h.sec[secInodes].len / inodeSize
	if h.dirs == 0 || uint64(h.dirs) > inodes || inodes > maxIno ||
		h.sec[secDirents].len/direntSize > maxIno {
		return nil, fmt.Errorf("header: wrong counts: %w", ErrDamaged)
	}
	return h, nil
}

// record is the decoded form of an inode record; doc.go says what its fields
// mean.
type record struct {
	size   uint64
	sec    int64
	nsec   uint32
	uid    uint32
	gid    uint32
	nlink  uint32
	mode   uint16
	kind   Kind
	flags  uint8
	xattrs uint32
	ref    uint32
	aux    uint32
}

// appendTo appends the record's bytes to p.
func (r *record) appendTo(p []byte) []byte {
	p = le.AppendUint64(p, r.size)
	p = le.AppendUint64(p, uint64(r.sec))
	p = le.AppendUint32(p, r.nsec)
	p = le.AppendUint32(p, r.uid)
	p = le.AppendUint32(p, r.gid)
	p = le.AppendUint32(p, r.nlink)
	p = le.AppendUint16(p, r.mode)
	p = append(p, byte(r.kind), r.flags)
	p = le.AppendUint32(p, r.xattrs)
	p = le.AppendUint32(p, r.ref)
	return le.AppendUint32(p, r.aux)
}

// decodeRecord decodes an inode record.
func decodeRecord(p *[inodeSize]byte) record {
	return record{
		size: le.Uint64(p[0:]), sec: int64(le.Uint64(p[8:])), nsec: le.Uint32(p[16:]),
		uid: le.Uint32(p[20:]), gid: le.Uint32(p[24:]), nlink: le.Uint32(p[28:]),
		mode: le.Uint16(p[32:]), kind: Kind(p[34]), flags: p[35],
		xattrs: le.Uint32(p[36:]), ref: le.Uint32(p[40:]), aux: le.Uint32(p[44:]),
	}
}
