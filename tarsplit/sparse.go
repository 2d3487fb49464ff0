package tarsplit

import (
	"bytes"
	"math"
)

// maxExtents bounds a sparse map; the bound of 1 MiB for its text comes first.
const maxExtents = 1 << 20

// sparseVersion tells where the PAX records say the map of a sparse file is.
type sparseVersion uint8

const (
	notSparse     sparseVersion = iota
	sparseInPAX                 // 0.0 and 0.1: in the records
	sparseInFront               // 1.0: text in front of the data
)

func (p *paxRecords) sparseVersion() sparseVersion {
	major, minor := string(p.sparseMajor), string(p.sparseMinor)
	switch {
	case major == "0" && (minor == "0" || minor == "1"):
		return sparseInPAX
	case major == "1" && minor == "0":
		return sparseInFront
	case major != "" || minor != "":
		return notSparse // a version nobody knows
	case len(p.sparseMap) > 0:
		return sparseInPAX // 0.0 and 0.1 need not give a version
	}
	return notSparse
}

// applySparse replaces the logical size of h when a record has it.
func (p *paxRecords) applySparse(h *Header) bool {
	size := p.sparseSize
	if len(size) == 0 {
		size = p.sparseRealSize
	}
	if len(size) == 0 {
		return true
	}
	v, ok := decimal(size)
	if ok {
		h.Size = v
	}
	return ok
}

// mapInPAX reads the map of formats 0.0 and 0.1: a count in one record, numbers
// with commas in another. The result is not nil.
func (p *paxRecords) mapInPAX() ([]Extent, bool) {
	n, ok := decimal(p.sparseBlocks)
	if !ok || n < 0 || n > maxExtents {
		return nil, false
	}
	text, commas := p.sparseMap, int64(bytes.Count(p.sparseMap, []byte(",")))
	if len(text) == 0 {
		return []Extent{}, n == 0
	}
	if commas+1 != 2*n {
		return nil, false
	}
	return numberList(text, ',', int(n))
}

// numberList reads n pairs of decimal numbers that have sep between them. The
// caller has counted the separators.
func numberList(text []byte, sep byte, n int) ([]Extent, bool) {
	extents := make([]Extent, n)
	for i := range extents {
		for _, field := range [...]*int64{&extents[i].Offset, &extents[i].Length} {
			token := text
			if at := bytes.IndexByte(text, sep); at >= 0 {
				token, text = text[:at], text[at+1:]
			}
			v, ok := decimal(token)
			if !ok {
				return nil, false
			}
			*field = v
		}
	}
	return extents, true
}

// A frontMap collects the text of a map of format 1.0: numbers, each with a
// newline; first the count, then the pairs. It ends with the block that holds
// the last newline.
type frontMap struct {
	text  []byte
	lines int64
	count int64 // -1 until the first line is complete
}

func (m *frontMap) reset() { *m = frontMap{text: m.text[:0], count: -1} }

// add takes the next block; it reports whether the map is complete, and false
// for ok when it cannot become one.
func (m *frontMap) add(b *block) (complete, ok bool) {
	if len(m.text)+blockSize > maxMeta {
		return false, false
	}
	m.text = append(m.text, b[:]...)
	m.lines += int64(bytes.Count(b[:], []byte("\n")))
	if m.count < 0 && m.lines > 0 {
		line := m.text[:bytes.IndexByte(m.text, '\n')]
		m.count, ok = decimal(line)
		if !ok || m.count < 0 || m.count > maxExtents {
			return false, false
		}
	}
	return m.count >= 0 && m.lines > 2*m.count, true
}

func (m *frontMap) extents() ([]Extent, bool) {
	at := bytes.IndexByte(m.text, '\n')
	return numberList(m.text[at+1:], '\n', int(m.count))
}

// oldGNU reads the extents of one block of the old GNU format: n slots of two
// 12-byte numbers from the offset on, ended by a slot that starts with NUL.
func (b *block) oldGNU(extents []Extent, offset, n int) ([]Extent, bool) {
	for i := 0; i < n; i++ {
		slot := b[offset+24*i:][:24]
		if slot[0] == 0 {
			break
		}
		at, ok1 := numeric(slot[:12])
		length, ok2 := numeric(slot[12:])
		if !ok1 || !ok2 || len(extents) >= maxExtents {
			return nil, false
		}
		extents = append(extents, Extent{at, length})
	}
	return extents, true
}

// checkExtents reports whether the extents are in order, do not overlap and end
// within the size, as BSD tar and archive/tar ask for.
func checkExtents(extents []Extent, size int64) bool {
	end := int64(0)
	for _, e := range extents {
		if e.Offset < 0 || e.Length < 0 || e.Offset > math.MaxInt64-e.Length {
			return false
		}
		if e.Offset < end || e.Offset+e.Length > size {
			return false
		}
		end = e.Offset + e.Length
	}
	return size >= 0
}

// tidyExtents drops empty extents, joins neighbours, in place, and sums the
// lengths. The map has been checked.
func tidyExtents(extents []Extent) (out []Extent, data int64) {
	out = extents[:0]
	for _, e := range extents {
		if e.Length == 0 {
			continue
		}
		data += e.Length
		if n := len(out); n > 0 && out[n-1].Offset+out[n-1].Length == e.Offset {
			out[n-1].Length += e.Length
			continue
		}
		out = append(out, e)
	}
	return out, data
}
