// Package compress reads streams that may be compressed and finds out by their
// first bytes how.
//
// It knows gzip, zstd, bzip2 and xz. What it decodes is hostile: memory is
// bounded whatever a header asks for, and a damaged or truncated stream ends in an
// error, never in a shorter result. How much may come out is not limited here;
// readers that care count.
//
// Only one wrapping is taken off: gzip within gzip comes out as gzip.
package compress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// A Kind is a way to compress a stream.
type Kind uint8

// The kinds of compression. KindNone stands for everything that has no known
// magic, the empty stream included.
const (
	KindNone  Kind = iota // as it is
	KindGzip              // RFC 1952, any number of members
	KindZstd              // RFC 8878, any number of frames
	KindBzip2             // any number of streams
	KindXZ                // any number of streams
)

// String returns the name of the program that writes this kind, or "none".
func (k Kind) String() string {
	switch k {
	case KindNone:
		return "none"
	case KindGzip:
		return "gzip"
	case KindZstd:
		return "zstd"
	case KindBzip2:
		return "bzip2"
	case KindXZ:
		return "xz"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// ErrCorrupt is returned when reading a stream that breaks the rules of its
// compression. A stream that only ends too early gives io.ErrUnexpectedEOF instead.
var ErrCorrupt = errors.New("compressed data is corrupt")

const (
	// bufferSize is how much is read from the source at once.
	bufferSize = 64 << 10
	// magicLen is how much of a stream Sniff wants to see.
	magicLen = 10
	// maxWindow limits the memory of one decoder: what zstd --long=27 and xz -9 need.
	maxWindow = 128 << 20
)

// Detect finds out how r is compressed and returns a reader of what is in it. The
// caller closes that reader, which does not close r. An error of r itself comes
// back as it is, and no error is returned only because r is short or empty.
func Detect(r io.Reader) (io.ReadCloser, Kind, error) {
	src := newSource(r)
	head, err := src.br.Peek(magicLen)
	if err != nil && err != io.EOF {
		return nil, KindNone, err
	}
	kind := Sniff(head)
	rc, err := src.open(kind)
	if err != nil {
		return nil, kind, err
	}
	return rc, kind, nil
}

// NewReader returns a reader of what is in r, which is compressed as kind says.
// The caller closes that reader, which does not close r.
func NewReader(r io.Reader, kind Kind) (io.ReadCloser, error) {
	return newSource(r).open(kind)
}

// Sniff says how a stream that starts with head is compressed. Ten bytes are
// enough; with fewer it may say KindNone.
func Sniff(head []byte) Kind {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return KindGzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return KindZstd
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return KindZstd // a skippable frame comes first
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return KindXZ
	case isBzip2(head):
		return KindBzip2
	}
	return KindNone
}

// isBzip2 looks beyond "BZh9", which could be the name of a tar's first member: a
// block or the end of the stream must follow.
func isBzip2(head []byte) bool {
	if len(head) < 10 || string(head[:3]) != "BZh" || head[3] < '1' || head[3] > '9' {
		return false
	}
	block := []byte{0x31, 0x41, 0x59, 0x26, 0x53, 0x59}
	end := []byte{0x17, 0x72, 0x45, 0x38, 0x50, 0x90}
	return bytes.Equal(head[4:10], block) || bytes.Equal(head[4:10], end)
}

// A source is the compressed stream below a decoder. It remembers its own
// error, so that it is not mistaken for corruption, and how far it was read.
type source struct {
	r   io.Reader
	br  *bufio.Reader // reads through the source itself
	n   int64         // bytes taken from r
	err error         // the first error of r that is not io.EOF
}

func newSource(r io.Reader) *source {
	s := &source{r: r}
	s.br = bufio.NewReaderSize(s, bufferSize)
	return s
}

// Read implements io.Reader for br.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err != nil && err != io.EOF && s.err == nil {
		s.err = err
	}
	return n, err
}

// offset is the number of compressed bytes that a decoder has consumed.
func (s *source) offset() int64 { return s.n - int64(s.br.Buffered()) }

func (s *source) open(kind Kind) (io.ReadCloser, error) {
	switch kind {
	case KindNone:
		return plain{s.br}, nil
	case KindGzip:
		return newGzipReader(s)
	case KindZstd:
		return newZstdReader(s)
	case KindBzip2:
		return &decoder{src: s, kind: kind, r: bzip2.NewReader(s.br)}, nil
	case KindXZ:
		return &decoder{src: s, kind: kind, r: &xzReader{br: s.br}}, nil
	}
	return nil, fmt.Errorf("compression %v is not known", kind)
}

// explain turns the error of a decoder into one that says what happened where.
func (s *source) explain(kind Kind, err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case s.err != nil:
		return s.err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%v data is truncated: it ends after %d bytes in the middle of a stream: %w", kind, s.n, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%w: %v near byte %d: %w", ErrCorrupt, kind, s.offset(), err)
}

// plain is a stream without compression; through the embedded reader it has WriteTo.
type plain struct{ *bufio.Reader }

// Close implements io.Closer.
func (plain) Close() error { return nil }

// A decoder gives the errors of a decompressor their explanation.
type decoder struct {
	src   *source
	kind  Kind
	r     io.Reader
	close func() // nil: nothing to release
	err   error
}

// Read implements io.Reader; an error stays.
func (d *decoder) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.r.Read(p)
	d.err = d.src.explain(d.kind, err)
	return n, d.err
}

// Close releases what the decompressor holds. A second call does nothing.
func (d *decoder) Close() error {
	if d.close != nil {
		d.close()
		d.close = nil
	}
	if d.err == nil {
		d.err = errClosed
	}
	return nil
}

var errClosed = errors.New("compressed stream is closed")

// newZstdReader decodes in the caller's goroutine: layers are read in parallel,
// and a second goroutine per layer costs a quarter more CPU.
func newZstdReader(s *source) (io.ReadCloser, error) {
	z, err := zstd.NewReader(s.br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(1<<63-1))
	if err != nil {
		return nil, s.explain(KindZstd, err)
	}
	return &decoder{src: s, kind: KindZstd, r: z, close: z.Close}, nil
}
