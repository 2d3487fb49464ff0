package tarsplit

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"sort"
)

// A group is a decoded group of the stored form. Its buffers can be used again.
type group struct {
	start int64 // stream offset
	end   int64
	spans []span
	sums  []byte // aliases file
	raw   []byte // aliases payload

	file, payload []byte
}

// A span is a record with its place.
type span struct {
	start int64 // stream offset; it ends where the next one starts
	at    int32 // of the raw bytes in raw, or of the sum in sums / 32
	kind  recordKind
}

// read reads and decodes the group of which the index says that it is at file
// offsets at.file to next.file and holds the stream from at.stream to next.stream.
func (g *group) read(src io.ReaderAt, at, next entry) error {
	n := next.file - at.file
	if n <= 0 || n > int64(maxGroup) {
		return damaged("a group of %d bytes", n)
	}
	g.file = sized(g.file, int(n))
	if err := readFullAt(src, g.file, at.file); err != nil {
		return err
	}
	g.start, g.end = at.stream, next.stream
	return g.decode()
}

func (g *group) decode() error {
	packed := g.file
	g.sums = nil
	if len(packed) >= 8 && binary.LittleEndian.Uint32(packed) == magicSums {
		n := int64(binary.LittleEndian.Uint32(packed[4:]))
		packed = packed[8:]
		if n > int64(len(packed)) || n%int64(sumSize) != 0 || n > int64(maxGroupRecords*sumSize) {
			return damaged("sums of %d bytes", n)
		}
		g.sums, packed = packed[:n], packed[n:]
	}
	payload, err := decoder().DecodeAll(packed, g.payload[:0])
	if err != nil {
		return damaged("a group does not decompress: %v", err)
	}
	g.payload = payload
	if len(payload) < payloadHead {
		return damaged("a group without records")
	}
	if binary.LittleEndian.Uint32(payload) != crc32.Checksum(g.sums, castagnoli) {
		return damaged("the checksum of the sums does not match")
	}
	n := int64(binary.LittleEndian.Uint32(payload[4:]))
	if n > int64(len(payload)-payloadHead) {
		return damaged("records of %d bytes", n)
	}
	g.raw = payload[payloadHead+n:]
	return g.decodeRecords(payload[payloadHead : payloadHead+n])
}

// decodeRecords fills in spans and checks that they use up the raw bytes, the
// sums and the piece of the stream exactly.
func (g *group) decodeRecords(records []byte) error {
	g.spans = g.spans[:0]
	raw, sums, pos := int64(0), 0, g.start
	for len(records) > 0 {
		v, n := binary.Uvarint(records)
		length := int64(v >> 2)
		if n <= 0 || length == 0 || length > g.end-pos || len(g.spans) == maxGroupRecords {
			return damaged("an invalid record")
		}
		s := span{start: pos, kind: recordKind(v & 3)}
		switch s.kind {
		case recordRaw:
			s.at = int32(raw)
			if raw += length; raw > int64(len(g.raw)) {
				return damaged("a record of more raw bytes than there are")
			}
		case recordBody:
			s.at = int32(sums)
			sums++
		case recordZeros:
		default:
			return damaged("a record of an unknown kind")
		}
		g.spans = append(g.spans, s)
		pos += length
		records = records[n:]
	}
	if pos != g.end || raw != int64(len(g.raw)) || sums*sumSize != len(g.sums) {
		return damaged("a group whose records do not fill it")
	}
	return nil
}

// find returns the span that holds the stream offset, which is in the group.
func (g *group) find(offset int64) int {
	return sort.Search(len(g.spans), func(i int) bool { return g.spans[i].start > offset }) - 1
}

// spanEnd returns where the span ends in the stream.
func (g *group) spanEnd(i int) int64 {
	if i+1 < len(g.spans) {
		return g.spans[i+1].start
	}
	return g.end
}

func (g *group) sum(s span) Sum { return Sum(g.sums[int(s.at)*sumSize:]) }

// rawBytes returns the bytes of a raw span from skip on.
func (g *group) rawBytes(i int, skip int64) []byte {
	s := g.spans[i]
	return g.raw[int64(s.at)+skip : int64(s.at)+g.spanEnd(i)-s.start]
}

// sized returns b with the length n; its content is arbitrary.
func sized(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// readFullAt fills p; that the file is too short is damage.
func readFullAt(src io.ReaderAt, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || err == io.EOF:
		return damaged("it ends too early")
	}
	return err
}
