package tarsplit

import (
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// The stored form, version 1. It is a sequence of zstd frames, so that zstd -t
// checks it and zstd -dc shows it. Numbers are little endian.
//
//	header    skippable frame 0x184D2A5A: "layerfs tarsplit", u32 version
//	group     any number of:
//	            skippable frame 0x184D2A5B: 32 bytes for each body, in order;
//	            left out when there is none. They do not compress.
//	            zstd frame with content size and checksum, which holds
//	              u32 CRC-32C of the sums
//	              u32 length of the records
//	              records
//	              raw bytes, all of them back to back
//	index     skippable frame 0x184D2A5C:
//	            for each group: u64 stream offset, u64 file offset
//	            footer: u64 size of the stream, u64 file offset of the index
//	              frame, u32 number of groups, u32 CRC-32C of everything in the
//	              frame before it
//
// A record is an unsigned varint (as encoding/binary): kind in the low two bits,
// length above. Records of a group follow each other in the stream:
//
//	0 raw    the next length raw bytes of the group
//	1 body   the bytes of the next sum's body; length is its size
//	2 zeros  that many zeros
//
// A group holds at most maxGroupRaw raw bytes and maxGroupRecords records, so
// decoding one costs little, whatever the stream was; a long body is one record.
// Lengths are not 0. Records of the same kind other than bodies do not follow
// each other, except when a group ends between them.
const (
	formatVersion = 1

	magicHeader = 0x184D2A5A
	magicSums   = 0x184D2A5B
	magicIndex  = 0x184D2A5C

	headerText  = "layerfs tarsplit"
	headerSize  = 8 + len(headerText) + 4
	entrySize   = 16
	footerSize  = 24
	sumSize     = len(Sum{})
	payloadHead = 8

	// When a Writer closes a group: small enough to decode one for a read of a
	// few bytes, and larger ones would save less than 3 %.
	groupRaw     = 128 << 10
	groupRecords = 8 << 10

	// What a group may hold; more is damage.
	maxGroupRaw     = 256 << 10
	maxGroupRecords = 16 << 10
	maxPayload      = payloadHead + maxGroupRecords*binary.MaxVarintLen64 + maxGroupRaw
	maxGroup        = 8 + maxGroupRecords*sumSize + maxPayload + maxPayload/128 + 1024 // zstd stores what it cannot compress

	// maxGroups bounds the index in memory: 16 MiB for at least 128 GiB of
	// headers.
	maxGroups = 1 << 20

	// maxLength bounds a record, a body and the whole stream.
	maxLength = 1<<61 - 1
)

type recordKind uint8

const (
	recordRaw recordKind = iota
	recordBody
	recordZeros
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encoder and decoder are shared: each call takes one of their workers, so that
// neither a thousand open layers nor a thousand tiny ones cost their tables.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedDefault),
			zstd.WithWindowSize(256<<10),
			zstd.WithEncoderCRC(true),
			zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
		if err != nil {
			panic("tarsplit: zstd options: " + err.Error())
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil,
			zstd.WithDecoderMaxMemory(maxPayload),
			zstd.WithDecoderMaxWindow(1<<20),
			zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)))
		if err != nil {
			panic("tarsplit: zstd options: " + err.Error())
		}
		return d
	})
)

// appendSkippable appends the head of a skippable frame of n bytes.
func appendSkippable(b []byte, magic uint32, n int) []byte {
	b = binary.LittleEndian.AppendUint32(b, magic)
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

func formatHeader() []byte {
	b := appendSkippable(nil, magicHeader, headerSize-8)
	b = append(b, headerText...)
	return binary.LittleEndian.AppendUint32(b, formatVersion)
}

// checkHeader looks at the first headerSize bytes of a stored form.
func checkHeader(b []byte) error {
	want := formatHeader()
	n := len(want) - 4
	if len(b) != len(want) || string(b[:n]) != string(want[:n]) {
		return damaged("it does not start as the stored form of a tar stream")
	}
	if version := binary.LittleEndian.Uint32(b[n:]); version != formatVersion {
		return ErrVersion
	}
	return nil
}

// An entry of the index says where a group starts.
type entry struct {
	stream, file int64
}

func appendIndex(b []byte, groups []entry, size, at int64) []byte {
	b = appendSkippable(b, magicIndex, len(groups)*entrySize+footerSize)
	start := len(b)
	for _, g := range groups {
		b = binary.LittleEndian.AppendUint64(b, uint64(g.stream))
		b = binary.LittleEndian.AppendUint64(b, uint64(g.file))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(groups)))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}
