package archive

import (
	"archive/tar"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A filePart is written to a file of its own.
type filePart struct {
	*os.File
	adopt func(name string, size int64, f *os.File) error // closes f
	named bool                                            // the file has a name, that goes with drop
}

func (p *filePart) keep(name string, size int64) error { return p.adopt(name, size, p.File) }

func (p *filePart) drop() error {
	err := p.Close()
	if p.named && err == nil {
		err = os.Remove(p.Name())
	}
	return err
}

// A tarPart is written to its place in the archive; the header is filled in at the end.
type tarPart struct {
	s     *tarSink
	start int64 // of the header
	n     int64
	sent  int64 // on its way to the disk
}

func (s *tarSink) beginInPlace() (part, error) {
	start, err := s.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	return &tarPart{s: s, start: start}, s.pad(blockSize)
}

// Write implements io.Writer.
func (p *tarPart) Write(b []byte) (int, error) {
	n, err := p.s.file.Write(b)
	p.n += int64(n)
	if p.n-p.sent >= writebackStep {
		// It promises nothing: errors are left to the sync, which reports them.
		_ = unix.SyncFileRange(int(p.s.file.Fd()), p.start+blockSize+p.sent, p.n-p.sent, unix.SYNC_FILE_RANGE_WRITE)
		p.sent = p.n
	}
	return n, err
}

func (p *tarPart) keep(name string, size int64) error {
	if p.n != size {
		return fmt.Errorf("%s: %w: it has %d bytes instead of %d", name, ErrVerification, p.n, size)
	}
	w := &blockWriter{f: p.s.file, at: p.start}
	if err := tar.NewWriter(w).WriteHeader(fileHeader(name, size)); err != nil {
		return err
	}
	if w.at != p.start+blockSize {
		return fmt.Errorf("%s: its header has %d bytes instead of %d", name, w.at-p.start, blockSize)
	}
	if err := p.s.pad(-size & (blockSize - 1)); err != nil {
		return err
	}
	p.s.startWriteback()
	return nil
}

func (p *tarPart) drop() error {
	if err := p.s.file.Truncate(p.start); err != nil {
		return err
	}
	_, err := p.s.file.Seek(p.start, io.SeekStart)
	return err
}

// A blockWriter writes to a place in a file.
type blockWriter struct {
	f  *os.File
	at int64
}

func (w *blockWriter) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.at)
	w.at += int64(n)
	return n, err
}

// maxOctal is the largest size that a header has in octal digits.
const maxOctal = 8<<30 - 1

// fileHeader is the header of a file, of one block whatever its size.
func fileHeader(name string, size int64) *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}
	if size > maxOctal {
		h.Format = tar.FormatGNU
	}
	return h
}
