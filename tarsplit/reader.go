package tarsplit

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
)

// Bodies finds the bodies of a stream.
type Bodies interface {
	// Body returns the body with the name, of which size bytes are used. It is
	// called for each piece that is read, so it has to be cheap. What it returns
	// is closed after use when it is an io.Closer, and asked for its bytes when
	// it is a BytesBody. An error ends the read with an error that wraps it.
	Body(sum Sum, size int64) (io.ReaderAt, error)
}

// A BytesBody is a body in memory, mapped or not: nothing of it is copied on the
// way to a Writer, and a copy is all that ReadAt costs.
type BytesBody interface {
	io.ReaderAt
	// Bytes returns the whole body. It is valid until the body is closed, or as
	// long as the Reader is in use when the body is no io.Closer.
	Bytes() []byte
}

// A Reader gives random access to a stream that was split. It is safe for
// concurrent use, holds a few decoded groups of headers and no file.
type Reader struct {
	src    io.ReaderAt
	bodies Bodies
	size   int64
	groups []entry // and one more for the end
	cache  groupCache
}

// firstRead is read from the end of a stored form at once; it holds the index of
// a layer with about 30 MB of headers.
const firstRead = 4 << 10

// Open opens a stored form of size bytes. It reads the index only. src and b are
// used as long as the Reader is; closing them is for the caller. b may be nil
// when no body is read: for Size, EachBody and Verify.
func Open(src io.ReaderAt, size int64, b Bodies) (*Reader, error) {
	if size < int64(headerSize+8+footerSize) {
		return nil, damaged("it is too short")
	}
	head := make([]byte, headerSize)
	if err := readFullAt(src, head, 0); err != nil {
		return nil, err
	}
	if err := checkHeader(head); err != nil {
		return nil, err
	}
	r := &Reader{src: src, bodies: b}
	if err := r.readIndex(size); err != nil {
		return nil, err
	}
	return r, nil
}

// readIndex reads the index frame at the end of the file.
func (r *Reader) readIndex(fileSize int64) error {
	tail := make([]byte, min(fileSize, firstRead))
	if err := readFullAt(r.src, tail, fileSize-int64(len(tail))); err != nil {
		return err
	}
	footer := tail[len(tail)-footerSize:]
	at := int64(binary.LittleEndian.Uint64(footer[8:]))
	count := int64(binary.LittleEndian.Uint32(footer[16:]))
	length := count*entrySize + footerSize
	if count > maxGroups || at != fileSize-8-length || at < int64(headerSize) {
		return damaged("the index does not fit")
	}
	index := tail
	if 8+length > int64(len(tail)) {
		index = make([]byte, 8+length)
		if err := readFullAt(r.src, index, at); err != nil {
			return err
		}
	}
	index = index[int64(len(index))-8-length:]
	if string(index[:8]) != string(appendSkippable(nil, magicIndex, int(length))) {
		return damaged("the index does not start as one")
	}
	index = index[8:]
	sum := binary.LittleEndian.Uint32(index[length-4:])
	if crc32.Checksum(index[:length-4], castagnoli) != sum {
		return damaged("the checksum of the index does not match")
	}
	r.size = int64(binary.LittleEndian.Uint64(index[length-footerSize:]))
	return r.setGroups(index[:length-footerSize], entry{stream: r.size, file: at})
}

// setGroups takes the entries of the index and checks that they ascend.
func (r *Reader) setGroups(index []byte, end entry) error {
	r.groups = make([]entry, 0, len(index)/entrySize+1)
	last := entry{stream: 0, file: int64(headerSize)}
	for ; len(index) > 0; index = index[entrySize:] {
		e := entry{
			stream: int64(binary.LittleEndian.Uint64(index)),
			file:   int64(binary.LittleEndian.Uint64(index[8:])),
		}
		first := len(r.groups) == 0
		if (first && e != last) || (!first && (e.stream <= last.stream || e.file <= last.file)) {
			return damaged("the index does not ascend")
		}
		r.groups = append(r.groups, e)
		last = e
	}
	empty := len(r.groups) == 0
	if (empty && end != last) || (!empty && (end.stream <= last.stream || end.file <= last.file)) {
		return damaged("the index does not end with the stream")
	}
	if end.stream > maxLength {
		return damaged("a stream of %d bytes", end.stream)
	}
	r.groups = append(r.groups, end)
	return nil
}

// Size returns the length of the stream.
func (r *Reader) Size() int64 { return r.size }

// group returns a group from the cache.
func (r *Reader) group(i int) (*group, error) {
	return r.cache.get(i, func(g *group) error { return g.read(r.src, r.groups[i], r.groups[i+1]) })
}

// ReadAt reads from the stream as io.ReaderAt says.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("tar stream, offset %d: negative", off)
	}
	if off >= r.size {
		return 0, io.EOF
	}
	i := sort.Search(len(r.groups), func(i int) bool { return r.groups[i].stream > off }) - 1
	for ; n < len(p) && i < len(r.groups)-1; i++ {
		g, err := r.group(i)
		if err != nil {
			return n, err
		}
		got, err := r.readGroup(g, p[n:], off+int64(n))
		n += got
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readGroup reads from the offset on to the end of p or of the group.
func (r *Reader) readGroup(g *group, p []byte, off int64) (n int, err error) {
	for i := g.find(off); n < len(p) && i < len(g.spans); i++ {
		s, skip := g.spans[i], off+int64(n)-g.spans[i].start
		part := p[n:]
		if left := g.spanEnd(i) - s.start - skip; int64(len(part)) > left {
			part = part[:left]
		}
		switch s.kind {
		case recordRaw:
			copy(part, g.rawBytes(i, skip))
		case recordZeros:
			clear(part)
		default:
			if err := r.readBody(g.sum(s), g.spanEnd(i)-s.start, part, skip); err != nil {
				return n, err
			}
		}
		n += len(part)
	}
	return n, nil
}

// readBody fills p from a body.
func (r *Reader) readBody(sum Sum, size int64, p []byte, off int64) error {
	body, err := r.body(sum, size)
	if err != nil {
		return err
	}
	defer closeBody(body)
	if b, ok := body.(BytesBody); ok {
		data := b.Bytes()
		if int64(len(data)) < size {
			return shortBody(sum, size)
		}
		copy(p, data[off:])
		return nil
	}
	return fillFrom(body, sum, size, p, off)
}

func fillFrom(body io.ReaderAt, sum Sum, size int64, p []byte, off int64) error {
	n, err := body.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || err == io.EOF:
		return shortBody(sum, size)
	}
	return fmt.Errorf("body sha256:%x: %w", sum, err)
}

func (r *Reader) body(sum Sum, size int64) (io.ReaderAt, error) {
	if r.bodies == nil {
		return nil, fmt.Errorf("body sha256:%x: the reader was opened without bodies", sum)
	}
	body, err := r.bodies.Body(sum, size)
	if err != nil {
		return nil, fmt.Errorf("body sha256:%x: %w", sum, err)
	}
	return body, nil
}

func shortBody(sum Sum, size int64) error {
	return fmt.Errorf("body sha256:%x: %w: it has less than %d bytes", sum, ErrDamaged, size)
}

// closeBody closes a body that was only read, so its error says nothing new.
func closeBody(body io.ReaderAt) {
	if c, ok := body.(io.Closer); ok {
		_ = c.Close()
	}
}

// EachBody calls fn for each body in the order of the stream; a body that occurs
// again is named again. It stops at the first error and returns it.
func (r *Reader) EachBody(fn func(sum Sum, size int64) error) error {
	return r.eachGroup(func(g *group) error {
		for i, s := range g.spans {
			if s.kind != recordBody {
				continue
			}
			if err := fn(g.sum(s), g.spanEnd(i)-s.start); err != nil {
				return err
			}
		}
		return nil
	})
}

// Verify reads the whole stored form and checks all that it says about itself:
// lengths and checksums. It reads no body. The error wraps ErrDamaged.
func (r *Reader) Verify() error {
	return r.eachGroup(func(*group) error { return nil })
}

// eachGroup calls fn for each group in turn, in memory that it uses again.
func (r *Reader) eachGroup(fn func(g *group) error) error {
	var g group
	for i := range r.groups[:len(r.groups)-1] {
		if err := g.read(r.src, r.groups[i], r.groups[i+1]); err != nil {
			return err
		}
		if err := fn(&g); err != nil {
			return err
		}
	}
	return nil
}
