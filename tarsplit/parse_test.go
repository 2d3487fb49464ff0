package tarsplit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A rawHeader makes a header block of its own; fields are as in the stream.
type rawHeader struct {
	typ                            byte
	name, size, mode, mtime, magic string
	at                             map[int]string // anything else, by offset
}

func (h rawHeader) block() []byte {
	b := make([]byte, blockSize)
	for at, s := range map[int]string{
		0: h.name, 100: h.mode, 108: "0001750\x00", 116: "0000144\x00", 124: h.size, 136: h.mtime, 257: h.magic,
	} {
		copy(b[at:], s)
	}
	b[156] = h.typ
	for at, s := range h.at {
		copy(b[at:], s)
	}
	setChecksum(b)
	return b
}

const (
	ustar = "ustar\x0000"
	gnu   = "ustar  \x00"
)

func octalSize(n int) string { return fmt.Sprintf("%011o\x00", n) }

// withBody appends a body and its padding to a header.
func withBody(h rawHeader, body string) []byte {
	h.size = octalSize(len(body))
	return append(append(h.block(), body...), make([]byte, padding(int64(len(body))))...)
}

// binary12 is a base-256 field of 12 bytes.
func binary12(high uint32, low uint64) string {
	return string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, high), low))
}

// pax is a PAX header with the records "key=value", and an empty file after it.
func pax(typ byte, records ...string) []byte {
	var text string
	for _, r := range records {
		key, value, _ := strings.Cut(r, "=")
		text += paxRecord(key, value)
	}
	return append(withBody(rawHeader{typ: 'x', name: "x", magic: ustar}, text), rawHeader{typ: typ, name: "file", magic: ustar}.block()...)
}

func slots(extents ...int) string {
	s := ""
	for _, n := range extents {
		s += octalSize(n)
	}
	return s
}

// TestHeaders compares hand-made headers with what archive/tar makes of them.
func TestHeaders(t *testing.T) {
	odd := map[string][]byte{
		"unknown type": append(withBody(rawHeader{typ: 'V', name: "volume"}, "some data"), withBody(rawHeader{typ: '0', name: "b"}, "data")...),
		"empty name":   rawHeader{typ: '0'}.block(),
		"no checksum":  append(rawHeader{typ: '0', name: "a"}.block(), bytes.Repeat([]byte{1}, 600)...),
		"two PAX":      append(pax('0', "path=first", "uid=7")[:1024], pax('0', "mtime=5")...),
		"PAX, then no PAX": append(pax('0', "path=long", "uid=7", "SCHILY.xattr.a=b"),
			rawHeader{typ: '0', name: "plain", magic: ustar}.block()...),
		"long name, then no long name": append(append(withBody(rawHeader{typ: 'L', magic: gnu}, "long\x00garbage"),
			rawHeader{typ: '0', name: "short", magic: gnu}.block()...), rawHeader{typ: '0', name: "plain", magic: gnu}.block()...),
		"long before PAX":             append(withBody(rawHeader{typ: 'L', magic: gnu}, "long\x00"), pax('0', "path=pax", "linkpath=l")...),
		"long link":                   append(withBody(rawHeader{typ: 'K', magic: gnu}, "target\x00"), pax('2', "linkpath=l")...),
		"global drops PAX":            append(pax('0', "path=a")[:1024], append(withBody(rawHeader{typ: 'g', name: "g", magic: ustar}, "14 path=other\n"), rawHeader{typ: '0', name: "b"}.block()...)...),
		"global with bad uid":         append(withBody(rawHeader{typ: 'g', name: "g", magic: ustar}, "9 uid=xx\n"), rawHeader{typ: '0', name: "b"}.block()...),
		"negative size of link":       rawHeader{typ: '1', name: "a", size: binary12(0xffffffff, 1<<64-5)}.block(),
		"negative size of file":       rawHeader{typ: '0', name: "a", size: binary12(0xffffffff, 1<<64-5)}.block(),
		"NUL type, slash":             append(rawHeader{typ: 0, name: "a/", size: octalSize(512)}.block(), rawHeader{typ: '0', name: "b"}.block()...),
		"NUL type, slash by PAX":      pax(0, "path=a/"),
		"zero type, slash":            withBody(rawHeader{typ: '0', name: "a/"}, "data"),
		"GNU prefix of old Go":        rawHeader{typ: '0', name: "n", magic: gnu, at: map[int]string{345: "prefix/of/old/go/which/is/long"}}.block(),
		"GNU prefix, not ASCII":       rawHeader{typ: '0', name: "n", magic: gnu, at: map[int]string{345: "prefix\x80"}}.block(),
		"GNU ctime only":              rawHeader{typ: '0', name: "n", magic: gnu, at: map[int]string{346: "junk", 357: "00000000001\x00"}}.block(),
		"GNU junk after NUL":          rawHeader{typ: '0', name: "n", magic: gnu, at: map[int]string{345: "00000000001", 358: "junk"}}.block(),
		"star with bad ctime":         rawHeader{typ: '0', name: "n", magic: ustar, at: map[int]string{488: "junk", 508: "tar\x00"}}.block(),
		"star":                        rawHeader{typ: '0', name: "n", magic: ustar, at: map[int]string{345: strings.Repeat("p", 131), 508: "tar\x00"}}.block(),
		"large PAX size":              pax('0', "size=9223372036854775807"),
		"PAX size of directory":       pax('5', "size=-1"),
		"PAX header of 1 MiB":         append(withBody(rawHeader{typ: 'x', name: "x"}, paxRecord("path", strings.Repeat("n", maxMeta-len("1048576 path=\n")))), rawHeader{typ: '0'}.block()...),
		"PAX header of 1 MiB + 1":     append(withBody(rawHeader{typ: 'x', name: "x"}, paxRecord("path", strings.Repeat("n", maxMeta+1-len("1048577 path=\n")))), rawHeader{typ: '0'}.block()...),
		"long name of 1 MiB + 1":      append(withBody(rawHeader{typ: 'L', name: "x"}, strings.Repeat("n", maxMeta+1)), rawHeader{typ: '0'}.block()...),
		"PAX header with huge size":   rawHeader{typ: 'x', size: binary12(0x80000000, 1<<62)}.block(),
		"PAX header without padding":  withBody(rawHeader{typ: 'x'}, "9 uid=55\n")[:600],
		"PAX header with no data":     rawHeader{typ: 'x'}.block(),
		"body without padding":        withBody(rawHeader{typ: '0', name: "a"}, "data")[:516],
		"body with half a padding":    withBody(rawHeader{typ: '0', name: "a"}, "data")[:600],
		"one zero block":              make([]byte, 512),
		"one zero block and a header": append(make([]byte, 512), rawHeader{typ: '0', name: "a"}.block()...),
	}
	for name, x := range odd {
		t.Run(name, func(t *testing.T) {
			compareWithArchiveTar(t, x)
			checkLaw(t, x)
		})
	}
}

func TestNumbers(t *testing.T) {
	for _, field := range []string{
		"", "0", "  17 ", "\x00\x0017\x00", "17\x0099", "18", "1 7", "-1", "+1", "0x1", "777777777777", "00000000017 ",
		binary12(0x80000000, 0), binary12(0x80000000, 1<<63-1), binary12(0x80000000, 1<<63), binary12(0x80000001, 0),
		binary12(0xffffffff, 1<<63), binary12(0xffffffff, 1<<63-1), binary12(0xfffffffe, 1<<64-1), binary12(0xffffffff, 1<<64-1),
		binary12(0xbfffffff, 1<<64-1), binary12(0xc0000000, 0), binary12(0x80000000, 1<<56), binary12(0x80000000, 1<<55),
	} {
		compareWithArchiveTar(t, rawHeader{typ: '5', name: "d", mtime: field}.block())
		compareWithArchiveTar(t, rawHeader{typ: '5', name: "d", size: field}.block())
	}
	for _, field := range []string{"\x80\x00\x00\x00\x00\x00\x00\x01", "\xff\xff\xff\xff\xff\xff\xff\xfe", "\xbf\xff\xff\xff\xff\xff\xff\xff", "12345678", "7777777\x00"} {
		compareWithArchiveTar(t, rawHeader{typ: '5', name: "d", mode: field}.block())
	}
	for _, value := range []string{
		"", "0", "-0", "+5", "--5", "5-", "1_0", "0x5", " 5", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
		"92233720368547758070", "1.", "1.5", "-0.5", "-1.999999999", "1.0000000001", "1.x", ".5", "-", "+", "1.5.5", "-9223372036854775808.5",
	} {
		for _, key := range []string{"uid", "gid", "size", "mtime", "atime", "ctime"} {
			compareWithArchiveTar(t, pax('5', key+"="+value))
		}
	}
}

// TestChecksum: sums of signed bytes count, too.
func TestChecksum(t *testing.T) {
	b := rawHeader{typ: '0', name: "caf\xe9\xff"}.block()
	compareWithArchiveTar(t, b)
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(int8(c))
	}
	for _, text := range []string{fmt.Sprintf("%06o\x00 ", sum), fmt.Sprintf("%7o ", sum), fmt.Sprintf("%06o\x00\xff", sum), fmt.Sprintf("%06o\x00 ", sum+1)} {
		copy(b[148:], text)
		compareWithArchiveTar(t, b)
	}
}

func TestPAXRecords(t *testing.T) {
	for _, text := range []string{
		"5 =x\n", "6 =xy\n", "6 k=v\n", "5 k=\n", "4 k\n", "5 k=v\n", "7 k=v\n\n", "+6 k=v", "06 k=v\n", " 6 k=v\n", "6  k=v\n", "10 k=a=b\x00\n", "k=v\n", "99 k=v\n", "-6 k=v\n",
		"8 k\x00=v\n\n", "7 k\x00=v\n", "10 path=\x00\n", "11 uname=\x00\n", "6 k=v\n6 k=w", "6 k=v\nx", "9223372036854775808 k=v\n", "1 k=v\n",
	} {
		x := append(withBody(rawHeader{typ: 'x', name: "x"}, text), rawHeader{typ: '0', name: "file"}.block()...)
		compareWithArchiveTar(t, x)
	}
}

// sparseFront is a file of sparse format 1.0 with the map text.
func sparseFront(typ byte, text, data string, size int, records ...string) []byte {
	records = append([]string{"GNU.sparse.major=1", "GNU.sparse.minor=0", fmt.Sprintf("GNU.sparse.realsize=%d", size)}, records...)
	x := pax(typ, records...)
	x = x[:len(x)-blockSize]
	text += strings.Repeat("\x00", int(padding(int64(len(text)))))
	return append(append(x, withBody(rawHeader{typ: typ, name: "file", magic: ustar}, text+data)...), rawHeader{typ: '0', name: "next"}.block()...)
}

func TestSparse(t *testing.T) {
	full := strings.Repeat("0\n", 252) + "000\n" // with a count in front a block, a number short of a map of 127 extents
	for name, x := range map[string][]byte{
		"1.0":                   sparseFront('0', "2\n0\n3\n600\n4\n", "abcdefg", 1000, "GNU.sparse.name=real"),
		"1.0 empty":             sparseFront('0', "0\n", "", 1000),
		"1.0 negative":          sparseFront('0', "-1\n", "", 1000),
		"1.0 too many":          sparseFront('0', "4611686018427387904\n", "", 1000),
		"1.0 many":              sparseFront('0', "1000000\n", "", 1000),
		"1.0 no newline":        sparseFront('0', strings.Repeat("1", 600), "", 1000),
		"1.0 to the block":      sparseFront('0', "002\n"+strings.Repeat("0", 500)+"0\n3\n5\n1", "\n"+strings.Repeat("\x00", 511)+"abcd", 1000),
		"1.0 exactly a block":   sparseFront('0', "001\n"+strings.Repeat("0", 504)+"0\n3\n", "abc", 1000),
		"1.0 one short":         sparseFront('0', "127\n"+full+"0\n", "", 1000),
		"1.0 of 1 MiB":          sparseFront('0', strings.Repeat("0", maxMeta-6)+"1\n0\n0\n", "", 1000),
		"1.0 of more":           sparseFront('0', strings.Repeat("0", maxMeta-5)+"1\n0\n0\n", "", 1000),
		"1.0 garbage":           sparseFront('0', "1\nx\n3\n", "abc", 1000),
		"1.0 overlap":           sparseFront('0', "2\n0\n3\n2\n1\n", "abcd", 1000),
		"1.0 out of order":      sparseFront('0', "2\n10\n3\n2\n1\n", "abcd", 1000),
		"1.0 beyond the end":    sparseFront('0', "1\n998\n3\n", "abc", 1000),
		"1.0 overflow":          sparseFront('0', "1\n9223372036854775807\n3\n", "abc", 1000),
		"1.0 too little data":   sparseFront('0', "1\n0\n5\n", "abc", 1000),
		"1.0 too much data":     sparseFront('0', "1\n0\n2\n", "abc", 1000),
		"1.0 no size":           sparseFront('0', "1\n0\n2\n", "ab", 1000, "GNU.sparse.realsize="),
		"1.0 bad size":          sparseFront('0', "1\n0\n2\n", "ab", 1000, "GNU.sparse.realsize=x"),
		"1.0 two sizes":         sparseFront('0', "1\n0\n2\n", "ab", 1000, "GNU.sparse.size=55"),
		"1.0 unknown version":   sparseFront('0', "1\n0\n2\n", "ab", 1000, "GNU.sparse.minor=1"),
		"1.0 empty extents":     sparseFront('0', "4\n0\n0\n5\n1\n6\n1\n9\n0\n", "ab", 10),
		"1.0 link":              sparseFront('1', "1\n0\n2\n", "ab", 1000),
		"0.1":                   pax('0', "GNU.sparse.numblocks=0", "GNU.sparse.map=", "GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=99"),
		"0.1 directory":         pax('5', "GNU.sparse.numblocks=0", "GNU.sparse.map=", "GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=99"),
		"0.1 empty extents":     pax('0', "GNU.sparse.numblocks=2", "GNU.sparse.map=0,0,7,0", "GNU.sparse.size=99"),
		"0.1 wrong count":       pax('0', "GNU.sparse.numblocks=1", "GNU.sparse.map=0,0,7,0", "GNU.sparse.size=99"),
		"0.1 odd count":         pax('0', "GNU.sparse.numblocks=1", "GNU.sparse.map=0,0,", "GNU.sparse.size=99"),
		"0.1 no count":          pax('0', "GNU.sparse.map=0,0", "GNU.sparse.size=99"),
		"0.1 garbage":           pax('0', "GNU.sparse.numblocks=1", "GNU.sparse.map=0,x", "GNU.sparse.size=99"),
		"0.0":                   pax('0', "GNU.sparse.numblocks=1", "GNU.sparse.offset=5", "GNU.sparse.numbytes=0", "GNU.sparse.size=99"),
		"0.0 half":              pax('0', "GNU.sparse.numblocks=1", "GNU.sparse.offset=5", "GNU.sparse.size=99"),
		"0.0 wrong order":       pax('0', "GNU.sparse.numblocks=1", "GNU.sparse.numbytes=0", "GNU.sparse.offset=5", "GNU.sparse.size=99"),
		"0.0 comma":             pax('0', "GNU.sparse.numblocks=1", "GNU.sparse.offset=5,0", "GNU.sparse.size=99"),
		"0.0 over 0.1":          pax('0', "GNU.sparse.numblocks=1", "GNU.sparse.offset=5", "GNU.sparse.numbytes=0", "GNU.sparse.map=1,2,3", "GNU.sparse.size=99"),
		"old":                   withBody(rawHeader{typ: 'S', name: "s", magic: gnu, at: map[int]string{386: slots(0, 2, 600, 3), 483: octalSize(700)}}, "abcde"),
		"old, hole only":        rawHeader{typ: 'S', name: "s", magic: gnu, at: map[int]string{483: octalSize(700)}}.block(),
		"old, not GNU":          rawHeader{typ: 'S', name: "s", magic: ustar, at: map[int]string{483: octalSize(700)}}.block(),
		"old, bad size":         rawHeader{typ: 'S', name: "s", magic: gnu, at: map[int]string{483: "x"}}.block(),
		"old, bad slot":         rawHeader{typ: 'S', name: "s", magic: gnu, at: map[int]string{386: "x", 483: octalSize(700)}}.block(),
		"old, more":             oldMore(3),
		"old, more than a MiB":  oldMore(3000),
		"old, more, ends early": oldMore(3)[:1200],
	} {
		t.Run(name, func(t *testing.T) {
			compareWithArchiveTar(t, x)
			checkLaw(t, x)
		})
	}
}

// oldMore is a file of the old GNU format whose map goes on in n blocks, each
// with two extents of one byte.
func oldMore(n int) []byte {
	size := octalSize(2 * n)
	h := rawHeader{typ: 'S', name: "s", magic: gnu, size: size, at: map[int]string{482: "\x01", 483: octalSize(10*n + 10)}}
	x := h.block()
	for i := range n {
		b := make([]byte, blockSize)
		copy(b, slots(10*i, 1, 10*i+5, 1))
		if i < n-1 {
			b[504] = 1
		}
		x = append(x, b...)
	}
	x = append(x, bytes.Repeat([]byte("d"), 2*n)...)
	x = append(x, make([]byte, padding(int64(2*n)))...)
	return append(x, rawHeader{typ: '0', name: "next"}.block()...)
}

func TestXattrs(t *testing.T) {
	x := pax(
		'0', "SCHILY.xattr.user.a=\x00raw", "LIBARCHIVE.xattr.user.a=b3RoZXI", "LIBARCHIVE.xattr.user.%3d%25=YQ==", "LIBARCHIVE.xattr.user.c=b2xk",
		"SCHILY.xattr.user.c=new", "LIBARCHIVE.xattr.user.c=b2xk", "SCHILY.xattr.user.empty=", "SCHILY.xattr.user.twice=1", "SCHILY.xattr.user.twice=2",
		"LIBARCHIVE.xattr.bad%zz=YQ", "LIBARCHIVE.xattr.user.bad=?",
	)
	compareWithArchiveTar(t, x)
	h, err := NewSplitter(bytes.NewReader(x), NewWriter(io.Discard)).Next()
	if err != nil {
		t.Fatal(err)
	}
	want := []Xattr{
		{"user.a", []byte("\x00raw")},
		{"user.=%", []byte("a")},
		{"user.c", []byte("new")},
		{"user.empty", []byte{}},
		{"user.twice", []byte("2")},
	}
	if diff := cmp.Diff(want, h.Xattrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestManyXattrs: the result does not depend on how many there are.
func TestManyXattrs(t *testing.T) {
	var records []string
	for i := range 50 {
		records = append(records, fmt.Sprintf("LIBARCHIVE.xattr.n%d=YQ", i%30), fmt.Sprintf("SCHILY.xattr.n%d=%d", i%40, i), fmt.Sprintf("LIBARCHIVE.xattr.n%d=YQ", i%45))
	}
	x := pax('0', records...)
	compareWithArchiveTar(t, x)
	h, err := NewSplitter(bytes.NewReader(x), NewWriter(io.Discard)).Next()
	if err != nil || len(h.Xattrs) != 45 {
		t.Errorf("got %d xattrs, %v; want 45", len(h.Xattrs), err)
	}
}

func TestExtents(t *testing.T) {
	x := sparseFront('0', "4\n0\n0\n5\n1\n6\n1\n9\n0\n", "ab", 10)
	h, err := NewSplitter(bytes.NewReader(x), NewWriter(io.Discard)).Next()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Extent{{5, 2}}, h.Sparse); diff != "" || h.Size != 10 || h.BodySize != 2 {
		t.Errorf("size %d, body %d, map (-want +got):\n%s", h.Size, h.BodySize, diff)
	}
}

// TestOffset: a member starts with its first extension header.
func TestOffset(t *testing.T) {
	x := append(withBody(rawHeader{typ: '0', name: "a"}, "data"), pax('0', "path=b")...)
	s := NewSplitter(bytes.NewReader(x), NewWriter(io.Discard))
	for _, want := range []int64{0, 1024} {
		if h, err := s.Next(); err != nil || h.Offset != want {
			t.Errorf("got %v, %v; want offset %d", h, err, want)
		}
	}
	x[1024+148] ^= 1
	s = NewSplitter(bytes.NewReader(x), NewWriter(io.Discard))
	_, _ = s.Next()
	_, err := s.Next()
	if want := "tar stream, offset 1024: no tar header: the checksum is wrong"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %v", err, want)
	}
}
