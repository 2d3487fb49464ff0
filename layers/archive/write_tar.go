package archive

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A tarSink writes a tar. All that could differ from one run to the next is zero.
// The contents of files go straight to w, so that the kernel can copy from file to
// file.
type tarSink struct {
	w    io.Writer
	file *os.File // w, when it is a file that can be sent on its way to the disk
	back bool     // file can be read back
	sent int64    // how much of it was sent on its way
	temp string

	check *checker
}

func newTarSink(ctx context.Context, w io.Writer, temp string) *tarSink {
	s := &tarSink{w: w, temp: temp, check: newChecker(ctx)}
	if f, ok := w.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			s.file, s.back = f, canCheck(f)
		}
	}
	return s
}

// blockSize is what everything in a tar is padded to.
const blockSize = 512

// header writes the header of a member.
func (s *tarSink) header(h *tar.Header) error { return tar.NewWriter(s.w).WriteHeader(h) }

func (s *tarSink) put(name string, size int64, from io.WriterTo) error {
	if err := s.header(fileHeader(name, size)); err != nil {
		return err
	}
	n, err := s.content(size, from)
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s: %w: it has %d bytes instead of %d", name, ErrVerification, n, size)
	}
	if err := s.pad(-n & (blockSize - 1)); err != nil {
		return err
	}
	s.startWriteback()
	return nil
}

// content writes what a member holds.
func (s *tarSink) content(size int64, from io.WriterTo) (int64, error) {
	if c, ok := from.(checkable); ok && s.back {
		return s.check.write(s.file, c, size)
	}
	return from.WriteTo(s.w)
}

func (s *tarSink) pad(n int64) error {
	_, err := s.w.Write(make([]byte, n))
	return err
}

// end writes the end of the archive and waits until all of it is verified.
func (s *tarSink) end() error {
	if err := s.pad(2 * blockSize); err != nil {
		return err
	}
	return s.check.wait()
}

// startWriteback has the kernel write what was added to the disk, while more is
// added. It promises nothing.
func (s *tarSink) startWriteback() {
	if s.file == nil {
		return
	}
	end, err := s.file.Seek(0, io.SeekCurrent)
	if err == nil && end > s.sent {
		_ = unix.SyncFileRange(int(s.file.Fd()), s.sent, end-s.sent, unix.SYNC_FILE_RANGE_WRITE)
		s.sent = end
	}
}

func (s *tarSink) begin() (part, error) {
	if s.back {
		return s.beginInPlace()
	}
	f, err := tempFile(s.temp)
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	return &filePart{File: f, adopt: s.adopt}, nil
}

func (s *tarSink) adopt(name string, size int64, f *os.File) error {
	defer f.Close()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return s.put(name, size, fileContent{f})
}

// A fileContent is what a file holds from its position on.
type fileContent struct{ f *os.File }

// WriteTo implements io.WriterTo; between files the kernel copies.
func (c fileContent) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, c.f) }
