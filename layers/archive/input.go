package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/layerfs/layerfs/internal/compress"
)

// headSize is how much of a stream is looked at to say what it is.
const headSize = 1024

// openTar opens the tar at path, or copies it to a temporary file when it cannot
// be read in place, and finds its members.
func openTar(path, name string, o *Options) (t *tarFile, err error) {
	f, err := openInput(path, name, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	t = &tarFile{f: f, size: fi.Size(), name: name}
	if err := t.scan(); err != nil {
		return nil, err
	}
	return t, nil
}

// openInput returns a regular file that starts like a tar.
func openInput(path, name string, o *Options) (*os.File, error) {
	if path == "-" {
		in := o.Stdin
		if in == nil {
			in = os.Stdin
		}
		return unpack(in, name, o)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if fi.Mode().IsRegular() {
		head := make([]byte, headSize)
		n, err := f.ReadAt(head, 0)
		if err != nil && err != io.EOF {
			f.Close()
			return nil, err
		}
		if compress.Sniff(head[:n]) == compress.KindNone {
			if err := wantTar(head[:n], name, compress.KindNone); err != nil {
				f.Close()
				return nil, err
			}
			return f, nil
		}
	}
	defer f.Close()
	return unpack(f, name, o)
}

// unpack copies the tar in r, whatever its compression, to a temporary file.
func unpack(r io.Reader, name string, o *Options) (*os.File, error) {
	rc, kind, err := compress.Detect(r)
	if err != nil {
		return nil, inputError(name, err)
	}
	defer rc.Close()
	in := bufio.NewReaderSize(rc, headSize)
	head, err := in.Peek(headSize)
	if err != nil && err != io.EOF {
		return nil, inputError(name, err)
	}
	if err := wantTar(head, name, kind); err != nil {
		return nil, err
	}
	f, err := tempFile(o.TempDir)
	if err != nil {
		return nil, fmt.Errorf("%s: temporary copy: %w", name, err)
	}
	if err := spool(f, in, name, o.MaxBytes); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// tempFile returns a new file without a name.
func tempFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "layerfs-archive-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// spool copies r to f and tells the errors of one from those of the other.
func spool(f *os.File, r io.Reader, name string, limit int64) error {
	buf := make([]byte, 256<<10)
	var total int64
	for {
		n, err := r.Read(buf)
		if total += int64(n); limit > 0 && total > limit {
			return fmt.Errorf("%s: %w: it unpacks to more than the %d bytes allowed", name, ErrTooLarge, limit)
		}
		if _, werr := f.Write(buf[:n]); werr != nil {
			return fmt.Errorf("%s: temporary copy: %w", name, werr)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return inputError(name, err)
		}
	}
}

// inputError marks errors that come from the data, not from reading it.
func inputError(name string, err error) error {
	if errors.Is(err, compress.ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w: %w; get the file again", name, ErrDamaged, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// wantTar returns an error when head is not how a tar starts. A tar is what has a
// header with a good checksum, or nothing but zeros.
func wantTar(head []byte, name string, kind compress.Kind) error {
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	if len(head) > 0 && (err == nil || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && len(head) >= 512) {
		return nil
	}
	looks := looksLike(head)
	if kind != compress.KindNone {
		if compress.Sniff(head) != compress.KindNone {
			return fmt.Errorf("%s: %w: it is %v of %s; unpack it once", name, ErrNotArchive, kind, looks)
		}
		looks = fmt.Sprintf("%v of something that is no tar: %s", kind, looks)
	}
	return fmt.Errorf("%s: %w: it is %s", name, ErrNotArchive, looks)
}

// signatures are the first bytes of files that somebody could give by mistake.
var signatures = []struct {
	offset int
	magic  string
	what   string
}{
	{0, "\x7fELF", "an ELF file (a program or library)"},
	{0, "PK\x03\x04", "a zip file"},
	{0, "PK\x05\x06", "an empty zip file"},
	{0, "hsqs", "a squashfs image"},
	{0, "QFI\xfb", "a qcow2 disk image"},
	{0, "070701", "a cpio archive"},
	{0, "!<arch>\n", "an ar archive or a Debian package"},
	{0, "\xed\xab\xee\xdb", "an RPM package"},
	{0, "\x04\x22\x4d\x18", "an lz4 file (not supported; unpack it first)"},
	{0, "\x1f\x9d", "a compress (.Z) file (not supported; unpack it first)"},
	{0, "LZIP", "an lzip file (not supported; unpack it first)"},
	{0, "7z\xbc\xaf\x27\x1c", "a 7-zip file"},
	{0, "-----BEGIN ", "a PEM file"},
	{0, "#!", "a script"},
	{0, "<", "an HTML or XML document (a failed download?)"},
	{0, "{", "a JSON document"},
	{0, "[", "a JSON document"},
	{32, "SIF_MAGIC", "a SIF image (Apptainer)"},
	{0, "version https://git-lfs", "a Git LFS pointer (run `git lfs pull`)"},
}

// looksLike says in words what starts with head.
func looksLike(head []byte) string {
	if len(head) == 0 {
		return "an empty file"
	}
	if k := compress.Sniff(head); k != compress.KindNone {
		return k.String() + " data"
	}
	trimmed := bytes.TrimLeft(head, " \t\r\n")
	for _, s := range signatures {
		for _, h := range [][]byte{head, trimmed} {
			if len(h) > s.offset && bytes.HasPrefix(h[s.offset:], []byte(s.magic)) {
				return s.what
			}
		}
	}
	for _, b := range head {
		if b < ' ' && b != '\n' && b != '\r' && b != '\t' {
			return "data of an unknown kind"
		}
	}
	return "a text file"
}
