package compress

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// An xzReader reads the container of the .xz format (xz-file-format.txt 1.2.0) and
// leaves LZMA2 to the library. The library reads the container too, but it makes
// the dictionary as large as a block header asks (4 GiB) and keeps a record of
// every block; here both are bounded.
type xzReader struct {
	br    *bufio.Reader
	state xzState
	err   error

	flags   [2]byte // of the stream
	block   xzBlock
	records xzRecords // of the stream's blocks
	dicts   int64     // bytes of all dictionaries so far
	in, out int64     // bytes of all blocks so far, packed and unpacked
}

type xzState uint8

const (
	xzStart   xzState = iota // a stream must begin
	xzBlocks                 // a block or the index follows
	xzInBlock                // inside a block's data
	xzBetween                // padding, another stream or the end
)

// An xzBlock is the block being read.
type xzBlock struct {
	r            *lzma.Reader2
	packed       *countReader
	check        hash.Hash // nil: the stream has none
	header       int64     // size of the block header
	size         int64     // unpacked so far
	wantPacked   int64     // from the header, or -1
	wantUnpacked int64     // from the header, or -1
}

// xzRecords sums up the (unpadded size, unpacked size) pairs of a stream, to
// compare the blocks with the index in constant memory.
type xzRecords struct {
	n   uint64
	sum hash.Hash
}

func (r *xzRecords) reset() { r.n, r.sum = 0, sha256.New() }

func (r *xzRecords) add(unpadded, unpacked uint64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], unpadded)
	binary.LittleEndian.PutUint64(b[8:], unpacked)
	r.sum.Write(b[:])
	r.n++
}

const (
	xzLZMA2 = 0x21
	// xzFreeDicts is how much dictionary memory a file may have made and thrown away
	// regardless of its length; see newBlock.
	xzFreeDicts = 4 << 30
)

var (
	xzMagic       = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	xzFooterMagic = []byte{'Y', 'Z'}
	xzCRC64       = crc64.MakeTable(crc64.ECMA)
)

// Read implements io.Reader.
func (x *xzReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, x.err
	}
	for x.err == nil {
		if x.state != xzInBlock {
			x.err = x.advance()
			continue
		}
		n, err := x.block.r.Read(p)
		x.block.note(p[:n])
		if err == io.EOF {
			err = x.endBlock()
		}
		x.err = err
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

func (b *xzBlock) note(p []byte) {
	b.size += int64(len(p))
	if b.check != nil {
		b.check.Write(p)
	}
}

// advance reads what stands between the data of two blocks.
func (x *xzReader) advance() error {
	switch x.state {
	case xzBlocks:
		size, err := x.br.ReadByte()
		if err != nil {
			return noEOF(err)
		}
		if size != 0 {
			return x.newBlock(size)
		}
		return x.endStream()
	case xzBetween:
		if head, err := x.br.Peek(4); len(head) == 0 {
			return err
		} else if bytes.Equal(head, []byte{0, 0, 0, 0}) {
			_, err := x.br.Discard(4)
			return err
		}
	}
	return x.newStream()
}

func (x *xzReader) newStream() error {
	var h [12]byte
	if err := x.full(h[:]); err != nil {
		return err
	}
	if !bytes.Equal(h[:6], xzMagic) {
		return errors.New("no stream header where one must be")
	}
	if crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return errors.New("the checksum of the stream header is wrong")
	}
	copy(x.flags[:], h[6:8])
	if _, err := x.newCheck(); err != nil {
		return err
	}
	x.records.reset()
	x.state = xzBlocks
	return nil
}

// newCheck returns the hash that the stream flags ask for.
func (x *xzReader) newCheck() (hash.Hash, error) {
	if x.flags[0] != 0 {
		return nil, fmt.Errorf("unknown stream flags %#x", x.flags)
	}
	switch x.flags[1] {
	case 0:
		return nil, nil
	case 1:
		return crc32.NewIEEE(), nil
	case 4:
		return crc64.New(xzCRC64), nil
	case 10:
		return sha256.New(), nil
	}
	return nil, fmt.Errorf("unknown integrity check %#x", x.flags[1])
}

// newBlock reads a block header whose first byte is size.
//
// A dictionary is made for each block, so small blocks that ask for large
// dictionaries would keep a CPU busy with clearing memory: the sum of all is limited
// in proportion to what the file holds.
func (x *xzReader) newBlock(size byte) error {
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if err := x.full(h[1:]); err != nil {
		return err
	}
	body, sum := h[:len(h)-4], h[len(h)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errors.New("the checksum of a block header is wrong")
	}
	b := xzBlock{header: int64(len(h)), packed: &countReader{r: x.br}}
	dict, err := b.parse(body[1:])
	if err != nil {
		return err
	}
	if x.dicts += dict; x.dicts > xzFreeDicts+64*x.in+4*x.out {
		return errors.New("too many small blocks with large dictionaries")
	}
	if b.check, err = x.newCheck(); err != nil {
		return err
	}
	if b.r, err = (lzma.Reader2Config{DictCap: int(dict)}).NewReader2(b.packed); err != nil {
		return noEOF(err)
	}
	x.block, x.state = b, xzInBlock
	return nil
}

// endBlock checks a block whose data has ended.
func (x *xzReader) endBlock() error {
	b := &x.block
	if !b.r.EOS() {
		return io.ErrUnexpectedEOF
	}
	if b.wantPacked >= 0 && b.wantPacked != b.packed.n || b.wantUnpacked >= 0 && b.wantUnpacked != b.size {
		return errors.New("a block has another size than its header says")
	}
	if err := x.zeros(int(-b.packed.n & 3)); err != nil {
		return err
	}
	unpadded := b.header + b.packed.n
	if b.check != nil {
		got := b.check.Sum(nil)
		if x.flags[1] != 10 { // the CRCs are stored with the low byte first
			for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
				got[i], got[j] = got[j], got[i]
			}
		}
		want := make([]byte, len(got))
		if err := x.full(want); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return errors.New("the checksum of a block is wrong")
		}
		unpadded += int64(len(got))
	}
	x.records.add(uint64(unpadded), uint64(b.size))
	x.in, x.out = x.in+unpadded, x.out+b.size
	x.block, x.state = xzBlock{}, xzBlocks
	return nil
}

// endStream reads the index behind its first byte, and the footer.
func (x *xzReader) endStream() error {
	crc := crc32.NewIEEE()
	c := &countReader{r: x.br, sum: crc}
	crc.Write([]byte{0})
	n, err := binary.ReadUvarint(c)
	if err != nil {
		return noEOF(err)
	}
	if n != x.records.n {
		return fmt.Errorf("the index has %d blocks, the stream %d", n, x.records.n)
	}
	var index xzRecords
	index.reset()
	for range n {
		unpadded, err := binary.ReadUvarint(c)
		if err != nil {
			return noEOF(err)
		}
		unpacked, err := binary.ReadUvarint(c)
		if err != nil {
			return noEOF(err)
		}
		index.add(unpadded, unpacked)
	}
	if !bytes.Equal(index.sum.Sum(nil), x.records.sum.Sum(nil)) {
		return errors.New("the index does not match the blocks")
	}
	pad := make([]byte, -(c.n+1)&3)
	if _, err := io.ReadFull(c, pad); err != nil {
		return noEOF(err)
	}
	return x.footer(c.n+1, crc.Sum32())
}

// footer reads the index's checksum and the stream footer; size is that of the
// index without its checksum.
func (x *xzReader) footer(size int64, crc uint32) error {
	var f [16]byte
	if err := x.full(f[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	switch {
	case le.Uint32(f[:]) != crc:
		return errors.New("the checksum of the index is wrong")
	case le.Uint32(f[4:]) != crc32.ChecksumIEEE(f[8:14]) || !bytes.Equal(f[14:], xzFooterMagic):
		return errors.New("the stream footer is damaged")
	case (int64(le.Uint32(f[8:]))+1)*4 != size+4 || !bytes.Equal(f[12:14], x.flags[:]):
		return errors.New("the stream footer does not match the stream")
	}
	x.state = xzBetween
	return nil
}

// full fills p; an end before that is io.ErrUnexpectedEOF.
func (x *xzReader) full(p []byte) error {
	_, err := io.ReadFull(x.br, p)
	return noEOF(err)
}

// zeros reads n bytes that must be zero.
func (x *xzReader) zeros(n int) error {
	for range n {
		c, err := x.br.ReadByte()
		if err != nil {
			return noEOF(err)
		}
		if c != 0 {
			return errors.New("the padding of a block is not zero")
		}
	}
	return nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A countReader counts, and sums up where sum is set, what is read through it.
type countReader struct {
	r   *bufio.Reader
	n   int64
	sum hash.Hash32
}

// Read implements io.Reader.
func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.sum != nil {
		c.sum.Write(p[:n])
	}
	return n, err
}

// ReadByte implements io.ByteReader.
func (c *countReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
		if c.sum != nil {
			c.sum.Write([]byte{b})
		}
	}
	return b, err
}
