package tarsplit

import "io"

// A memberParser holds what is known of the next member while its headers are
// read; the buffers are kept from member to member.
type memberParser struct {
	blk    block
	fields fields
	pax    paxRecords
	hasPAX bool
	start  int64 // of the member's first header

	paxData, longName, longLink, name, link []byte
	front                                   frontMap
}

// keepBuffer is the size up to which a buffer is kept for the next member.
const keepBuffer = 64 << 10

func (p *memberParser) reset(offset int64) {
	for _, b := range [...]*[]byte{&p.paxData, &p.longName, &p.longLink, &p.name, &p.link, &p.front.text, &p.pax.pairs} {
		if cap(*b) > keepBuffer {
			*b = nil
		}
		*b = (*b)[:0]
	}
	if p.hasPAX {
		p.pax.reset()
	}
	p.hasPAX = false
	p.start = offset
}

// nextMember reads headers up to the next member's own and fills in s.hdr. As in
// archive/tar a global header counts as a member, and ends what extension
// headers before it said.
func (s *Splitter) nextMember() error {
	s.reset(s.src.off)
	for {
		if err := s.readHeader(); err != nil {
			return err
		}
		if s.fields.size < 0 && !headerOnly(s.fields.typ) {
			return s.wrong("the size is negative")
		}
		switch s.fields.typ {
		case 'x', TypeGlobal:
			if err := s.readPAX(); err != nil {
				return err
			}
			if s.fields.typ == TypeGlobal {
				s.global()
				return nil
			}
		case 'L', 'K':
			if err := s.readLong(); err != nil {
				return err
			}
		default:
			return s.member()
		}
		if err := s.skipMember(); err != nil { // the padding of the extension header
			return err
		}
	}
}

// wrong is the error for the header that was read last.
func (s *Splitter) wrong(reason string) error {
	return &FormatError{Offset: s.src.off - blockSize, Reason: reason}
}

// readHeader reads and records one header block. Nothing left, or one or two
// blocks of zeros and nothing or anything left, is the end: io.EOF.
func (s *Splitter) readHeader() error {
	if err := s.readBlock("a header"); err != nil {
		return err
	}
	if s.blk == zeroBlock {
		if err := s.readBlock("a header"); err != nil {
			return err
		}
		if s.blk == zeroBlock {
			return io.EOF
		}
		return s.wrong("data follows a single block of zeros")
	}
	if !s.blk.checksumOK() {
		return s.wrong("no tar header: the checksum is wrong")
	}
	if bad := s.blk.parse(&s.fields); bad != "" {
		return s.wrong("the header field \"" + bad + "\" is no number")
	}
	return nil
}

// readBlock reads and records the next block; io.EOF when there is nothing.
func (s *Splitter) readBlock(what string) error {
	p := s.src.peek(blockSize)
	switch {
	case len(p) == 0:
		return s.endOr(io.EOF)
	case len(p) < blockSize:
		return s.endOr(truncated(s.src.off, what))
	}
	copy(s.blk[:], p)
	if err := s.record(p); err != nil {
		return err
	}
	s.src.skip(blockSize)
	return nil
}

// mustReadBlock is readBlock inside of something.
func (s *Splitter) mustReadBlock(what string) error {
	err := s.readBlock(what)
	if err == io.EOF {
		return truncated(s.src.off, what)
	}
	return err
}

// readMeta reads and records the data of an extension header into buf[:0].
func (s *Splitter) readMeta(buf []byte) ([]byte, error) {
	if s.fields.size > maxMeta {
		return nil, s.wrong("an extension header is larger than 1 MiB")
	}
	start := s.src.off
	buf = buf[:0]
	s.body, s.pad = s.fields.size, padding(s.fields.size)
	for s.body > 0 {
		p := s.src.buffered()
		if len(p) == 0 {
			return nil, s.endOr(truncated(start, "an extension header"))
		}
		n := int(min(int64(len(p)), s.body))
		buf = append(buf, p[:n]...)
		if err := s.raw(n); err != nil {
			return nil, err
		}
		s.body -= int64(n)
	}
	return buf, nil
}

func (s *Splitter) readPAX() (err error) {
	start := s.src.off
	if s.paxData, err = s.readMeta(s.paxData); err != nil {
		return err
	}
	s.hasPAX = true
	if bad := s.pax.parse(s.paxData); bad != "" {
		return &FormatError{Offset: start, Reason: bad}
	}
	return nil
}

func (s *Splitter) readLong() (err error) {
	to := &s.longName
	if s.fields.typ == 'K' {
		to = &s.longLink
	}
	if *to, err = s.readMeta(*to); err == nil {
		*to = cString(*to)
	}
	return err
}

// global fills in the header of a PAX global header.
func (s *Splitter) global() {
	s.headerName()
	if len(s.pax.path) > 0 {
		s.name = append(s.name[:0], s.pax.path...)
	}
	s.hdr = Header{Type: TypeGlobal, Name: string(s.name), Xattrs: s.pax.decodeXattrs(), Offset: s.start}
}

// headerName sets name and link to what the header block says.
func (s *Splitter) headerName() {
	f := &s.fields
	s.name = s.name[:0]
	if len(f.prefix) > 0 {
		s.name = append(append(s.name, f.prefix...), '/')
	}
	s.name = append(s.name, f.name...)
	s.link = append(s.link[:0], f.link...)
}

// member fills in the header of a member from its block and the extension
// headers before it, and reads its sparse map.
func (s *Splitter) member() error {
	f, h := &s.fields, &s.hdr
	*h = Header{
		Type: f.typ, Mode: f.mode, UID: f.uid, GID: f.gid, Size: f.size, MtimeSec: f.mtime,
		Devmajor: f.devmajor, Devminor: f.devminor, Offset: s.start,
	}
	s.headerName()
	if s.hasPAX {
		if bad := s.pax.apply(h); bad != "" {
			return s.wrong(bad)
		}
		h.Xattrs = s.pax.decodeXattrs()
	}
	s.bestNames()
	if h.Type == 0 {
		h.Type = TypeRegular
		if n := len(s.name); n > 0 && s.name[n-1] == '/' {
			h.Type = TypeDirectory
		}
	}
	if !headerOnly(h.Type) {
		if h.Size < 0 {
			return s.wrong("the size is negative")
		}
		s.body, s.pad = h.Size, padding(h.Size)
	}
	if err := s.sparse(); err != nil {
		return err
	}
	h.BodySize = s.body
	h.Name, h.Linkname = string(s.name), string(s.link)
	return nil
}

// bestNames replaces name and link by the long ones: GNU before PAX.
func (s *Splitter) bestNames() {
	for _, long := range [...][]byte{s.pax.path, s.longName} {
		if len(long) > 0 {
			s.name = append(s.name[:0], long...)
		}
	}
	for _, long := range [...][]byte{s.pax.linkpath, s.longLink} {
		if len(long) > 0 {
			s.link = append(s.link[:0], long...)
		}
	}
}

// sparse reads the sparse map of the member, if it has one, and checks it.
func (s *Splitter) sparse() error {
	h := &s.hdr
	var extents []Extent
	var err error
	switch {
	case h.Type == TypeGNUSparse:
		extents, err = s.oldGNUMap()
	case s.hasPAX:
		extents, err = s.paxMap()
	}
	if err != nil || extents == nil {
		return err
	}
	if headerOnly(h.Type) || !checkExtents(extents, h.Size) {
		return s.wrong("the sparse map is invalid")
	}
	var data int64
	h.Sparse, data = tidyExtents(extents)
	if data != s.body {
		return s.wrong("the sparse map and the size of the data do not agree")
	}
	return nil
}

// paxMap reads the map of the three PAX forms; nil when the member has none.
func (s *Splitter) paxMap() ([]Extent, error) {
	version := s.pax.sparseVersion()
	if version == notSparse {
		return nil, nil
	}
	if len(s.pax.sparseName) > 0 {
		s.name = append(s.name[:0], s.pax.sparseName...)
	}
	if !s.pax.applySparse(&s.hdr) {
		return nil, s.wrong("the size of a sparse file is no number")
	}
	if version == sparseInFront {
		return s.frontMap()
	}
	extents, ok := s.pax.mapInPAX()
	if !ok {
		return nil, s.wrong("the sparse map is invalid")
	}
	return extents, nil
}

// frontMap reads the map that stands in front of the data and is part of it.
func (s *Splitter) frontMap() ([]Extent, error) {
	s.front.reset()
	for {
		if s.body < blockSize {
			return nil, s.wrong("the sparse map is longer than the data")
		}
		if err := s.mustReadBlock("a sparse map"); err != nil {
			return nil, err
		}
		s.body -= blockSize
		complete, ok := s.front.add(&s.blk)
		if complete && ok {
			var extents []Extent
			if extents, ok = s.front.extents(); ok {
				return extents, nil
			}
		}
		if !ok {
			return nil, s.wrong("the sparse map is invalid")
		}
	}
}

// oldGNUMap reads the map in the header block and in the blocks that extend it,
// which the size of the member does not count.
func (s *Splitter) oldGNUMap() ([]Extent, error) {
	if s.fields.dialect != dialectGNU {
		return nil, s.wrong("a sparse file whose header is not in the GNU format")
	}
	size, ok := numeric(s.blk[483:495])
	if !ok {
		return nil, s.wrong("the size of a sparse file is no number")
	}
	s.hdr.Size = size
	extents, ok := s.blk.oldGNU(make([]Extent, 0, 4), 386, 4)
	more := s.blk[482] != 0
	for total := 97; ok && more; {
		if total += blockSize; total >= maxMeta {
			return nil, s.wrong("the sparse map is larger than 1 MiB")
		}
		if err := s.mustReadBlock("a sparse map"); err != nil {
			return nil, err
		}
		extents, ok = s.blk.oldGNU(extents, 0, 21)
		more = s.blk[504] != 0
	}
	if !ok {
		return nil, s.wrong("the sparse map is invalid")
	}
	return extents, nil
}
