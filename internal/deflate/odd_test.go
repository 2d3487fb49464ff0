package deflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
)

type oddStream struct {
	name string
	data []byte
}

// member frames a raw deflate stream.
func member(header, deflated, plain []byte) []byte {
	out := slices.Concat(header, deflated)
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(plain))
	return binary.LittleEndian.AppendUint32(out, uint32(len(plain)))
}

var plainHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

// oddStreams are gzip streams as one meets them, or as one may make them.
func oddStreams(t testing.TB) []oddStream {
	one, two := goGzip(t, text(2000, 1), 6), goGzip(t, text(900, 2), 1)
	var named bytes.Buffer
	w := gzip.NewWriter(&named)
	w.Name, w.Comment, w.Extra = "layer.tar", "a comment", []byte{1, 2, 3}
	if _, err := w.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Flush(), w.Flush(), w.Close()); err != nil {
		t.Fatal(err)
	}
	odd258 := oddLengthStream()
	zeros := make([]byte, 258+1)
	return []oddStream{
		{"two members", slices.Concat(one, two)},
		{"empty member", goGzip(t, nil, 6)},
		{"empty members", slices.Concat(goGzip(t, nil, 6), goGzip(t, nil, 6), one, goGzip(t, nil, 1))},
		{"header fields and flushes", named.Bytes()},
		{"zero padding", slices.Concat(one, make([]byte, 70_000))},
		{"short padding", slices.Concat(one, []byte{0})},
		{"trailing text", slices.Concat(one, []byte("this is no member"))},
		{"byte by byte", flushed(t, text(700, 3), 1)},
		{"flush each 1000", flushed(t, text(100_000, 4), 1000)},
		{"stored, odd padding", member(plainHeader, []byte{0xf9, 2, 0, 0xfd, 0xff, 'h', 'i'}, []byte("hi"))},
		{"reserved flag", member([]byte{0x1f, 0x8b, 8, 0xe0, 0, 0, 0, 0, 0, 255}, []byte{3, 0}, nil)},
		{"odd padding at the end", member(plainHeader, []byte{3, 0xfc}, nil)},
		{"length 258 the long way", member(plainHeader, odd258, zeros)},
	}
}

// oddLengthStream is a fixed block of a zero and a match of length 258 and distance 1
// that is written as 227 + 31.
func oddLengthStream() []byte {
	var b bytes.Buffer
	w := newStreamWriter(&b)
	w.block(&event{block: blockFixed, final: true, first: true, last: true, tokens: []token{0, matchToken(258, 1) | oddLength}}, nil)
	w.align(0)
	if err := w.flush(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// flushed compresses with a flush after every n bytes.
func flushed(t testing.TB, plain []byte, n int) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 6)
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(plain, n) {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return member(plainHeader, b.Bytes(), plain)
}

func TestLawOdd(t *testing.T) {
	for _, s := range oddStreams(t) {
		t.Run(s.name, func(t *testing.T) {
			plain, _ := readAll(s.data)
			checkLaw(t, s.data, plain)
		})
	}
}

func TestNotGzip(t *testing.T) {
	good := goGzip(t, text(5000, 1), 6)
	for i := range good {
		if _, err := Analyze(bytes.NewReader(good[:i]), &bytes.Buffer{}); !errors.Is(err, ErrNotGzip) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	for name, blob := range map[string][]byte{
		"text":            []byte("this is no gzip stream at all"),
		"wrong sum":       flip(good, len(good)-8),
		"wrong size":      flip(good, len(good)-1),
		"damaged member":  slices.Concat(good, good[:20]),
		"too far back":    member(plainHeader, []byte{0x03, 0x02, 0x00}, []byte("aaa")),
		"kind of block 3": member(plainHeader, []byte{7}, nil),
	} {
		if _, err := Analyze(bytes.NewReader(blob), &bytes.Buffer{}); !errors.Is(err, ErrNotGzip) {
			t.Errorf("%s: %v, want ErrNotGzip", name, err)
		}
	}
}

func flip(p []byte, at int) []byte {
	p = slices.Clone(p)
	p[at] ^= 0x10
	return p
}

func TestWrongPlaintext(t *testing.T) {
	plain := text(300_000, 1)
	var correction bytes.Buffer
	if _, err := Analyze(bytes.NewReader(goGzip(t, plain, 6)), &correction); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string][]byte{
		"shorter": plain[:len(plain)-1], "longer": append(slices.Clone(plain), 0), "changed": flip(plain, 1000), "empty": nil,
	} {
		err := Reconstruct(bytes.NewReader(other), bytes.NewReader(correction.Bytes()), &bytes.Buffer{})
		if !errors.Is(err, ErrCorrection) {
			t.Errorf("%s: %v, want ErrCorrection", name, err)
		}
	}
	newer := flip(correction.Bytes(), 3)
	if err := Reconstruct(bytes.NewReader(plain), bytes.NewReader(newer), &bytes.Buffer{}); !errors.Is(err, ErrVersion) {
		t.Errorf("newer version: %v, want ErrVersion", err)
	}
}
