package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// parse reads a block header behind its size byte and returns how large a dictionary
// the block needs.
func (b *xzBlock) parse(h []byte) (dict int64, err error) {
	r := bytes.NewReader(h)
	flags, _ := r.ReadByte() // a header has at least three bytes here
	b.wantPacked, b.wantUnpacked = -1, -1
	if flags&0x3c != 0 {
		return 0, fmt.Errorf("unknown block flags %#x", flags)
	}
	if flags&3 != 0 {
		return 0, errors.New("filters other than LZMA2 are not supported; unpack it with xz first")
	}
	if flags&0x40 != 0 {
		if b.wantPacked, err = xzSize(r); err != nil {
			return 0, err
		}
	}
	if flags&0x80 != 0 {
		if b.wantUnpacked, err = xzSize(r); err != nil {
			return 0, err
		}
	}
	if dict, err = xzDictionary(r); err != nil {
		return 0, err
	}
	for r.Len() > 0 {
		if c, _ := r.ReadByte(); c != 0 {
			return 0, errors.New("the padding of a block header is not zero")
		}
	}
	if b.wantUnpacked >= 0 {
		dict = min(dict, b.wantUnpacked)
	}
	return max(dict, lzma.MinDictCap), nil
}

// xzDictionary reads the filter flags of LZMA2: ID, size of properties, properties.
func xzDictionary(r io.ByteReader) (int64, error) {
	id, err := xzSize(r)
	if err != nil {
		return 0, err
	}
	n, err := xzSize(r)
	if err != nil {
		return 0, err
	}
	bits, err := r.ReadByte()
	if err != nil || n != 1 || bits > 40 {
		return 0, errors.New("the filter of a block is damaged")
	}
	if id != xzLZMA2 {
		return 0, fmt.Errorf("filter %#x is not supported; unpack it with xz first", id)
	}
	dict := int64(2|bits&1) << (bits/2 + 11)
	if dict > maxWindow {
		return 0, fmt.Errorf("a dictionary of %d MiB is more than the %d MiB supported; unpack it with xz first", dict>>20, maxWindow>>20)
	}
	return dict, nil
}

// xzSize reads a number of at most 63 bits from a block header.
func xzSize(r io.ByteReader) (int64, error) {
	v, err := binary.ReadUvarint(r)
	if err != nil || v > 1<<63-1 {
		return 0, errors.New("a number in a block header is damaged")
	}
	return int64(v), nil
}
