package tarsplit

import (
	"bytes"
	"encoding/binary"
)

const blockSize = 512

// A block is one 512-byte header as it is in the stream. The layouts:
//
//	  0 name 100      257 magic 6      all but v7
//	100 mode 8        263 version 2
//	108 uid 8         265 uname 32
//	116 gid 8         297 gname 32
//	124 size 12       329 devmajor 8
//	136 mtime 12      337 devminor 8
//	148 checksum 8    345 prefix 155                        ustar
//	156 type 1        345 prefix 131, 476 atime, 488 ctime  star (508 "tar\0")
//	157 linkname 100  345 atime 12, 357 ctime 12            GNU
//	                  386 sparse 4 x 24, 482 more, 483 real size 12
type block [blockSize]byte

type dialect uint8

const (
	dialectV7 dialect = iota + 1
	dialectUSTAR
	dialectGNU
	dialectSTAR
)

var zeroBlock block

// dialect tells the layout of the block by its magic.
func (b *block) dialect() dialect {
	switch magic := b[257:265]; {
	case string(magic[:6]) == "ustar\x00" && string(b[508:]) == "tar\x00":
		return dialectSTAR
	case string(magic[:6]) == "ustar\x00":
		return dialectUSTAR
	case string(magic) == "ustar  \x00":
		return dialectGNU
	}
	return dialectV7
}

// checksumOK accepts the sum of the bytes taken as unsigned (POSIX) or as
// signed ones (old Sun tar), with the checksum field counted as spaces.
func (b *block) checksumOK() bool {
	want, ok := octal(b[148:156])
	if !ok {
		return false
	}
	var sum, high int64
	for i := 0; i < blockSize; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		// Add the eight bytes as four and four 16-bit lanes, then the lanes.
		lanes := x&0x00ff00ff00ff00ff + x>>8&0x00ff00ff00ff00ff
		sum += int64(lanes * 0x0001000100010001 >> 48)
		high += int64(x >> 7 & 0x0101010101010101 * 0x0101010101010101 >> 56)
	}
	for _, c := range b[148:156] {
		sum += ' ' - int64(c)
		high -= int64(c >> 7)
	}
	return want == sum || want == sum-256*high
}

// fields are the values of one header block; its slices alias the block.
type fields struct {
	dialect            dialect
	typ                byte
	name, link, prefix []byte
	size, mode         int64
	uid, gid, mtime    int64
	devmajor, devminor int64
}

// parse reads the fields of a block whose checksum was found right. It reports
// the name of the first field that holds no number.
func (b *block) parse(f *fields) (bad string) {
	num := numbers{block: b}
	*f = fields{
		dialect: b.dialect(),
		typ:     b[156],
		name:    cString(b[0:100]),
		link:    cString(b[157:257]),
		size:    num.at(124, 12, "size"),
		mode:    num.at(100, 8, "mode"),
		uid:     num.at(108, 8, "uid"),
		gid:     num.at(116, 8, "gid"),
		mtime:   num.at(136, 12, "mtime"),
	}
	if f.dialect == dialectV7 {
		return num.bad
	}
	f.devmajor = num.at(329, 8, "devmajor")
	f.devminor = num.at(337, 8, "devminor")
	switch f.dialect {
	case dialectUSTAR:
		f.prefix = cString(b[345:500])
	case dialectSTAR:
		f.prefix = cString(b[345:476])
		num.at(476, 12, "atime")
		num.at(488, 12, "ctime")
	case dialectGNU:
		f.prefix = b.mangledPrefix()
	}
	return num.bad
}

// mangledPrefix returns the prefix that archive/tar before Go 1.8 wrote into
// GNU headers, where the format has none: when the two times that belong there
// are no times and the bytes are an ASCII string, it must be a prefix
// (golang.org/issue/12594).
func (b *block) mangledPrefix() []byte {
	times := numbers{block: b}
	for _, at := range [...]int{345, 357} {
		if b[at] != 0 {
			times.at(at, 12, "time")
		}
	}
	if times.bad == "" {
		return nil
	}
	prefix := cString(b[345:500])
	for _, c := range prefix {
		if c >= 0x80 {
			return nil
		}
	}
	return prefix
}

// numbers reads numeric fields of a block and remembers the first bad one.
type numbers struct {
	block *block
	bad   string
}

func (n *numbers) at(offset, length int, name string) int64 {
	v, ok := numeric(n.block[offset : offset+length])
	if !ok && n.bad == "" {
		n.bad = name
	}
	return v
}

// numeric reads a number that is octal text, or base-256 when the top bit of
// the first byte is set: two's complement, big endian, without that bit.
func numeric(b []byte) (int64, bool) {
	if b[0]&0x80 == 0 {
		return octal(b)
	}
	var flip byte // negative numbers are read as their complement
	if b[0]&0x40 != 0 {
		flip = 0xff
	}
	x := uint64((b[0] ^ flip) & 0x7f)
	for _, c := range b[1:] {
		if x>>55 != 0 {
			return 0, false // the next byte would push it over 63 bits
		}
		x = x<<8 | uint64(c^flip)
	}
	if flip != 0 {
		return ^int64(x), true
	}
	return int64(x), true
}

// octal reads octal digits between any spaces and NULs. Nothing at all is 0. A
// NUL after the first digit ends the number, whatever follows.
func octal(b []byte) (int64, bool) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == 0) {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	var x int64 // 12 digits at most: 36 bits
	for _, c := range b {
		if c == 0 {
			break
		}
		if c < '0' || c > '7' {
			return 0, false
		}
		x = x<<3 | int64(c-'0')
	}
	return x, true
}

// cString returns the bytes before the first NUL.
func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// padding returns how many bytes follow a body of the size up to the next block.
func padding(size int64) int64 { return -size & (blockSize - 1) }
