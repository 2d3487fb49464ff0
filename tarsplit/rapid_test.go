package tarsplit

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// genTar draws a tar of a few members in any format, written by archive/tar or
// by hand where that cannot: sparse files, star, v7, odd numbers.
func genTar(t *rapid.T) []byte {
	var x []byte
	for range rapid.IntRange(0, 6).Draw(t, "members") {
		if rapid.IntRange(0, 2).Draw(t, "by") > 0 {
			x = append(x, genWritten(t)...)
		} else {
			x = append(x, genRaw(t)...)
		}
	}
	end := rapid.SampledFrom([]int{1024, 1024, 0, 512, 1, 10240}).Draw(t, "end")
	x = append(x, make([]byte, end)...)
	return append(x, rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "tail")...)
}

// genWritten draws a member that archive/tar writes.
func genWritten(t *rapid.T) []byte {
	body := rapid.SliceOfN(rapid.Byte(), 0, 1100).Draw(t, "body")
	name := rapid.StringMatching(`[a-z./]{0,20}`)
	h := &tar.Header{
		Typeflag: rapid.SampledFrom([]byte("00000123456g")).Draw(t, "type"),
		Name:     strings.Repeat(name.Draw(t, "name"), rapid.IntRange(1, 20).Draw(t, "times")),
		Linkname: strings.Repeat(name.Draw(t, "link"), rapid.IntRange(1, 20).Draw(t, "times")),
		Mode:     rapid.Int64Range(0, 0o7777).Draw(t, "mode"),
		Uid:      int(rapid.Int64Range(-5, 1<<33).Draw(t, "uid")),
		Gid:      rapid.IntRange(0, 1<<31).Draw(t, "gid"),
		ModTime:  time.Unix(rapid.Int64Range(-1<<35, 1<<35).Draw(t, "sec"), rapid.Int64Range(0, 999999999).Draw(t, "nsec")),
		Format:   rapid.SampledFrom([]tar.Format{0, tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU}).Draw(t, "format"),
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		h = &tar.Header{Typeflag: h.Typeflag, Name: h.Name, PAXRecords: map[string]string{"comment": "x", "path": "y"}}
	}
	if h.Typeflag == tar.TypeReg {
		h.Size = int64(len(body))
	}
	if rapid.Bool().Draw(t, "xattr") && h.Format != tar.FormatGNU && h.Typeflag != tar.TypeXGlobalHeader {
		h.PAXRecords = map[string]string{"SCHILY.xattr.user.a": string(body[:len(body)/2]), "LIBARCHIVE.xattr.user.%62": "YQ"}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if w.WriteHeader(h) != nil {
		return genRaw(t) // not every format has everything
	}
	if h.Size > 0 {
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// genNumber draws a numeric field: octal in several shapes, base-256, garbage.
func genNumber(t *rapid.T, n int64, width int) string {
	switch rapid.IntRange(0, 6).Draw(t, "shape") {
	case 0:
		return fmt.Sprintf("%*o ", width-1, n)
	case 1:
		return fmt.Sprintf(" %o", n)
	case 2:
		b := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(n))
		if n < 0 {
			copy(b, "\xff\xff\xff\xff\xff\xff\xff\xff")
		}
		b = b[len(b)-width:]
		b[0] |= 0x80
		return string(b)
	case 3:
		if rapid.IntRange(0, 9).Draw(t, "bad") == 0 {
			return string(rapid.SliceOfN(rapid.Byte(), width, width).Draw(t, "garbage"))
		}
	}
	return fmt.Sprintf("%0*o\x00", width-1, n)
}

// genRaw draws a member with a header block of its own.
func genRaw(t *rapid.T) []byte {
	var b block
	body := rapid.SliceOfN(rapid.Byte(), 0, 1100).Draw(t, "body")
	typ := rapid.SampledFrom([]byte("\x0001257xxxgLKSSSVD")).Draw(t, "type")
	switch typ {
	case 'x', 'g':
		body = genPAX(t)
	case 'L', 'K':
		body = []byte(rapid.StringMatching(`[a-z/]{0,700}`).Draw(t, "long") + "\x00")
	}
	put := func(at, n int, s string) { copy(b[at:at+n], s) }
	put(0, 100, rapid.SampledFrom([]string{"a", "dir/", "", "x\x00y", strings.Repeat("n", 100), "\xff"}).Draw(t, "name"))
	put(100, 8, genNumber(t, 0o644, 8))
	put(108, 8, genNumber(t, 5, 8))
	put(116, 8, genNumber(t, 6, 8))
	put(124, 12, genNumber(t, int64(len(body)), 12))
	put(136, 12, genNumber(t, rapid.Int64Range(-3, 1<<31).Draw(t, "mtime"), 12))
	b[156] = typ
	put(157, 100, "link")
	genMagic(t, &b, int64(len(body)))
	setChecksum(b[:])
	out := append(b[:], body...)
	if typ == 'S' && b[482] != 0 {
		out = append(b[:], genSparseSlots(t, 21, 504)...)
		out = append(out, body...)
	}
	return append(out, make([]byte, padding(int64(len(body))))...)
}

// genMagic draws the part of a header that depends on the format.
func genMagic(t *rapid.T, b *block, size int64) {
	switch rapid.IntRange(0, 4).Draw(t, "dialect") {
	case 0:
		copy(b[257:], "ustar\x0000")
		copy(b[345:], rapid.SampledFrom([]string{"", "prefix", strings.Repeat("p", 155)}).Draw(t, "prefix"))
	case 1:
		copy(b[257:], "ustar\x0000")
		copy(b[345:], "starprefix")
		copy(b[476:488], genNumber(t, 1, 12))
		copy(b[488:500], genNumber(t, 2, 12))
		copy(b[508:], "tar\x00")
	case 2, 3:
		copy(b[257:], "ustar  \x00")
		copy(b[345:], rapid.SampledFrom([]string{"", "00000000017\x00", "go17/prefix", "go17\xff"}).Draw(t, "atime"))
		if b[156] == 'S' {
			copy(b[386:], genSparseSlots(t, 4, 96))
			copy(b[483:495], genNumber(t, size+rapid.Int64Range(0, 2000).Draw(t, "hole"), 12))
		}
	}
}

// genSparseSlots draws n slots of an old GNU map and the flag that says whether
// more follow.
func genSparseSlots(t *rapid.T, n, flag int) []byte {
	b := make([]byte, max(flag+1, blockSize*(n/21)))
	at := int64(0)
	for i := range rapid.IntRange(0, n).Draw(t, "slots") {
		at += rapid.Int64Range(0, 50).Draw(t, "gap")
		length := rapid.Int64Range(0, 300).Draw(t, "length")
		copy(b[24*i:], fmt.Sprintf("%011o\x00%011o\x00", at, length))
		at += length
	}
	if n == 4 && rapid.IntRange(0, 3).Draw(t, "more") == 0 {
		b[flag] = 1
	}
	return b
}

// genPAX draws the records of a PAX header.
func genPAX(t *rapid.T) []byte {
	var out []byte
	number := rapid.SampledFrom([]string{"0", "1", "512", "-1", "+7", "", "x", "1.5", "-1.5", "1.1234567891", fmt.Sprint(math.MaxInt64), "9223372036854775808"})
	for range rapid.IntRange(0, 6).Draw(t, "records") {
		key := rapid.SampledFrom([]string{
			"path", "linkpath", "uid", "gid", "size", "mtime", "atime", "ctime", "uname", "comment", "SCHILY.xattr.a", "LIBARCHIVE.xattr.a%3d",
			"GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.size", "GNU.sparse.realsize",
			"GNU.sparse.numblocks", "GNU.sparse.map", "GNU.sparse.offset", "GNU.sparse.numbytes",
		}).Draw(t, "key")
		value := number.Draw(t, "value")
		switch {
		case key == "GNU.sparse.map":
			value = rapid.SampledFrom([]string{"0,1", "0,512,512,0", "", "1,2,3", "0,0,"}).Draw(t, "map")
		case strings.HasSuffix(key, "or"):
			value = rapid.SampledFrom([]string{"0", "1"}).Draw(t, "version")
		}
		out = append(out, paxRecord(key, value)...)
	}
	if rapid.IntRange(0, 20).Draw(t, "bad") == 0 {
		out = append(out, "9 x=y\n"...)
	}
	return out
}

// paxRecord writes "LENGTH KEY=VALUE\n".
func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for s := ""; ; {
		if s = fmt.Sprintf("%d %s=%s\n", n, key, value); len(s) == n {
			return s
		}
		n++
	}
}

// mutate changes some bytes of x, cuts it or repeats a part.
func mutate(t *rapid.T, x []byte) []byte {
	x = bytes.Clone(x)
	for range rapid.IntRange(0, 4).Draw(t, "changes") {
		if len(x) == 0 {
			return x
		}
		i := rapid.IntRange(0, len(x)-1).Draw(t, "at")
		switch rapid.IntRange(0, 4).Draw(t, "how") {
		case 0:
			x = x[:i]
		case 1:
			x = append(x[:i:i], x[min(len(x), i+rapid.IntRange(1, 600).Draw(t, "gone")):]...)
		case 2:
			n := min(i+rapid.IntRange(1, 1200).Draw(t, "more"), len(x))
			x = append(x[:n:n], x[i:]...)
		default:
			x[i] = rapid.Byte().Draw(t, "byte")
		}
	}
	return x
}

func TestRapidLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := genTar(t)
		checkLaw(t, x)
		checkLaw(t, mutate(t, x))
	})
}

func TestRapidAgainstArchiveTar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := genTar(t)
		compareWithArchiveTar(t, x)
		x = mutate(t, x)
		compareWithArchiveTar(t, x)
		compareWithArchiveTar(t, fixChecksums(x))
	})
}

// TestRapidRecords joins records drawn at random, also large ones, and reads
// pieces of the stream.
func TestRapidRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var form, want bytes.Buffer
		m := newMemory()
		m.plain = rapid.Bool().Draw(t, "plain")
		w := NewWriter(&form)
		for range rapid.IntRange(0, 30).Draw(t, "records") {
			n := rapid.SampledFrom([]int{0, 1, 500, 4096, 100000, groupRaw, groupRaw + 1, 1 << 20}).Draw(t, "size")
			p := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, n)
			var err error
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				err = w.Raw(p)
			case 1:
				clear(p)
				err = w.Zeros(int64(n))
			default:
				sum, _ := m.Put(bytes.NewReader(p), int64(n))
				err = w.Body(sum, int64(n))
			}
			if err != nil {
				t.Fatal(err)
			}
			want.Write(p)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := Open(bytes.NewReader(form.Bytes()), int64(form.Len()), m)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := Join(&got, r); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatalf("joined %d bytes, %v; want %d", got.Len(), err, want.Len())
		}
		for range 20 {
			off := rapid.IntRange(0, want.Len()).Draw(t, "off")
			p := make([]byte, rapid.IntRange(0, min(300000, want.Len()-off)).Draw(t, "length"))
			if _, err := r.ReadAt(p, int64(off)); (err != nil && off < want.Len()) || !bytes.Equal(p, want.Bytes()[off:off+len(p)]) {
				t.Fatalf("ReadAt(%d, %d): %v", len(p), off, err)
			}
		}
	})
}
