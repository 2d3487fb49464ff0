package tree

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/layerfs/layerfs/internal/spool"
)

// placesChunk is the largest number of digests that places is called with.
const placesChunk = 4096

// Finish writes the table to w, front to back. It asks places where the bodies
// are, for at most 4096 digests at a time, in ascending order; nil means that all
// are objects. Finish can be called once, and nothing can be added afterwards. It
// does not close, sync or buffer beyond its return what it writes to w.
func (b *Builder) Finish(w io.Writer, places func([]Sum) ([]Place, error)) (Stats, error) {
	if err := b.seal(); err != nil {
		return Stats{}, err
	}
	f := b.fin
	if f.written {
		return Stats{}, errors.New("tree: finished twice")
	}
	f.written = true
	if err := b.sortBodies(); err != nil {
		return Stats{}, err
	}
	packs, err := b.placeBodies(places)
	if err != nil {
		return Stats{}, err
	}
	h := header{dirs: uint32(f.dirs.Len()), stats: f.stats}
	paths := 0
	for _, l := range f.links.Slice() {
		paths += int(b.inodes.At(int(l.inode)).aux)
	}
	for i, n := range [sections]int{
		inodeSize * (f.dirs.Len() + f.others.Len()), direntSize * f.dirents.Len(), f.names.Len(),
		b.targets.Len(), b.xattrs.Len(), 8 * b.sparse.Len(), bodySize * f.bodies.Len(),
		packSize * len(packs), linkSize * f.links.Len(), paths,
	} {
		h.sec[i].len = uint64(n)
	}
	h.layout()
	e := &encoder{w: w, header: &h, buf: make([]byte, 0, encoderBuffer)}
	b.encode(e, packs)
	return f.stats, e.err
}

// sortBodies numbers the distinct bodies of the layer in the order of digests:
// also those that no file of the tree shows, because the layer's tar needs them.
func (b *Builder) sortBodies() error {
	f, contents := b.fin, b.bodies.Slice()
	keys := spool.NewArray[sortKey](b.dir)
	defer keys.Close() // scratch
	for i := range contents {
		k := sortKey{prefix: prefix(contents[i].sum[:8]), index: uint32(i)}
		if _, err := keys.Append(k); err != nil {
			return err
		}
	}
	slices.SortFunc(keys.Slice(), func(x, y sortKey) int {
		if x.prefix != y.prefix {
			return cmp.Compare(x.prefix, y.prefix)
		}
		return bytes.Compare(contents[x.index].sum[:], contents[y.index].sum[:])
	})
	var last *content
	for _, k := range keys.Slice() {
		c := &contents[k.index]
		if last == nil || last.sum != c.sum {
			if _, err := f.bodies.Append(placed{content: k.index}); err != nil {
				return err
			}
			last = c
			f.stats.Bodies++
			f.stats.BodyBytes += c.size
		} else if last.size != c.size {
			return fmt.Errorf("body sha256:%x: of %d and of %d bytes: %w", c.sum, last.size, c.size, ErrInvalid)
		}
		c.num = uint32(f.bodies.Len())
	}
	return nil
}

// placeBodies asks where the bodies are and returns the packs that they are in.
func (b *Builder) placeBodies(places func([]Sum) ([]Place, error)) ([]uint64, error) {
	if places == nil {
		return nil, nil
	}
	var packs []uint64
	numbers := map[uint64]uint32{0: 0} // packs of one store: few
	sums := make([]Sum, 0, min(placesChunk, b.fin.bodies.Len()))
	for chunk := range slices.Chunk(b.fin.bodies.Slice(), placesChunk) {
		sums = sums[:0]
		for _, p := range chunk {
			sums = append(sums, b.bodies.At(int(p.content)).sum)
		}
		got, err := places(sums)
		if err != nil {
			return nil, err
		}
		if len(got) != len(sums) {
			return nil, fmt.Errorf("places of %d bodies for %d: %w", len(got), len(sums), ErrInvalid)
		}
		for i, p := range got {
			num, ok := numbers[p.Pack]
			if !ok {
				packs = append(packs, p.Pack)
				num = uint32(len(packs))
				numbers[p.Pack] = num
			}
			if p.Pack == 0 {
				p.Offset = 0
			}
			if p.Offset < 0 || p.Offset > low48 {
				return nil, fmt.Errorf("body sha256:%x: offset %d: %w", sums[i], p.Offset, ErrTooLarge)
			}
			chunk[i].pack, chunk[i].offset = num, p.Offset
		}
	}
	return packs, nil
}

// encode writes all of the table.
func (b *Builder) encode(e *encoder, packs []uint64) {
	e.put(e.header.encode())
	e.section(secInodes, func() { b.encodeInodes(e) })
	e.section(secDirents, func() { b.encodeDirents(e) })
	e.section(secNames, func() { e.text(b.fin.names) })
	e.section(secTargets, func() { e.text(b.targets) })
	e.section(secXattrs, func() { e.text(b.xattrs) })
	e.section(secSparse, func() {
		for _, v := range b.sparse.Slice() {
			e.buf = le.AppendUint64(e.room(8), v)
		}
	})
	e.section(secBodies, func() { b.encodeBodies(e) })
	e.section(secPacks, func() {
		for _, v := range packs {
			e.buf = le.AppendUint64(e.room(packSize), v)
		}
	})
	e.section(secLinks, func() { b.encodeLinks(e) })
	e.section(secPaths, func() {
		for _, l := range b.fin.links.Slice() {
			n := b.inodes.At(int(l.inode))
			e.put(b.paths.Get(int(n.ref), int(n.aux)))
		}
	})
	e.footer()
}

// encodeInodes writes the inode records.
func (b *Builder) encodeInodes(e *encoder) {
	inodes, contents := b.inodes.Slice(), b.bodies.Slice()
	for _, d := range b.fin.dirs.Slice() {
		n := &inodes[d.inode]
		r := n.record()
		r.size = uint64(d.end)<<32 | uint64(d.first)
		r.nlink = 2 + n.names
		r.ref, r.aux = inodes[n.aux].num, d.dirent
		e.buf = r.appendTo(e.room(inodeSize))
	}
	for _, i := range b.fin.others.Slice() {
		n := &inodes[i]
		r := n.record()
		if n.kind == KindRegular && n.ref != 0 {
			r.ref = contents[n.ref-1].num
		}
		e.buf = r.appendTo(e.room(inodeSize))
	}
}

// record returns the record of an inode, with the references of the builder.
func (n *node) record() record {
	return record{
		size: uint64(n.size), sec: n.sec, nsec: n.nsec, uid: n.uid, gid: n.gid, nlink: n.names,
		mode: n.mode, kind: n.kind, flags: n.flags & recordFlags, xattrs: n.xattrs,
		ref: n.ref, aux: n.aux,
	}
}

// encodeDirents writes the dirent records.
func (b *Builder) encodeDirents(e *encoder) {
	for _, d := range b.fin.dirents.Slice() {
		p := le.AppendUint32(e.room(direntSize), d.name)
		p = le.AppendUint32(p, d.ino)
		e.buf = append(p, d.len, byte(d.kind), d.flags, 0)
	}
}

// encodeBodies writes the body records.
func (b *Builder) encodeBodies(e *encoder) {
	contents := b.bodies.Slice()
	for _, p := range b.fin.bodies.Slice() {
		c := &contents[p.content]
		buf := append(e.room(bodySize), c.sum[:]...)
		buf = le.AppendUint64(buf, uint64(c.size)|uint64(p.pack)<<48)
		e.buf = le.AppendUint64(buf, uint64(p.offset)|uint64(p.pack>>16)<<48)
	}
}

// encodeLinks writes the records of the links to lower layers.
func (b *Builder) encodeLinks(e *encoder) {
	off := uint32(0)
	for _, l := range b.fin.links.Slice() {
		n := b.inodes.At(int(l.inode))
		p := le.AppendUint32(e.room(linkSize), off)
		p = le.AppendUint32(p, n.aux)
		p = le.AppendUint32(p, n.names)
		copied := uint32(0)
		if n.num != 0 {
			copied = b.inodes.At(int(n.num-1)).num + 1
		}
		e.buf = le.AppendUint32(p, copied)
		off += n.aux
	}
}

// encoderBuffer is how much is written at once.
const encoderBuffer = 256 << 10

// encoder writes a table and remembers the first error.
type encoder struct {
	w      io.Writer
	header *header
	buf    []byte
	sum    uint32 // of what was flushed of the section
	sums   [sections]uint32
	done   uint64 // bytes flushed
	err    error
}

// room returns the buffer with room for n more bytes.
func (e *encoder) room(n int) []byte {
	if len(e.buf)+n > cap(e.buf) {
		e.flush()
	}
	return e.buf
}

// flush writes the buffer out.
func (e *encoder) flush() {
	e.sum = crc32.Update(e.sum, castagnoli, e.buf)
	e.done += uint64(len(e.buf))
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

// put writes p.
func (e *encoder) put(p []byte) {
	for len(p) > 0 {
		buf := e.room(1)
		n := min(len(p), cap(buf)-len(buf))
		e.buf = append(buf, p[:n]...)
		p = p[n:]
	}
}

// text writes all of t.
func (e *encoder) text(t *spool.Bytes) { e.put(t.Get(0, t.Len())) }

// section writes a section by calling fn and pads it.
func (e *encoder) section(i int, fn func()) {
	e.flush()
	e.sum = 0
	fn()
	e.flush()
	e.sums[i] = e.sum
	if want := e.header.sec[i].off + e.header.sec[i].len; e.done != want && e.err == nil {
		e.err = errors.New("tree: section " + sectionNames[i] + " is not as long as planned")
	}
	e.put(make([]byte, -e.done&7))
}

// footer writes the footer.
func (e *encoder) footer() {
	e.flush()
	e.put(encodeFooter(e.sums))
	e.flush()
}
