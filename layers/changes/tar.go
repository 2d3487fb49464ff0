package changes

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
)

// Names that mean something else in a layer (image-spec layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// A tarWriter writes files of a view as a tar in the form of an image layer
// (image-spec layer.md): PAX headers, true owners, times in nanoseconds, extended
// attributes. The same files always give the same bytes.
type tarWriter struct {
	v     *View
	w     io.Writer
	tw    *tar.Writer
	names map[fileKey]string // the first name of files that have several

	rootfs   bool  // a whole tree: names that are marks in a layer are names
	sizeOnly bool  // contents are counted, not read
	size     int64 // with sizeOnly

	Written
}

func newTarWriter(v *View, w io.Writer) *tarWriter {
	return &tarWriter{v: v, w: w, tw: tar.NewWriter(w), names: map[fileKey]string{}}
}

// newTarSizer counts what a tarWriter would write.
func newTarSizer(v *View) *tarWriter {
	t := &tarWriter{v: v, names: map[fileKey]string{}, sizeOnly: true}
	t.w = counting{&t.size}
	return t
}

// A counting counts what is written to it.
type counting struct{ n *int64 }

func (c counting) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return len(p), nil
}

// write writes all that leads from y to the view.
func (t *tarWriter) write(ctx context.Context, y *View) (*Written, error) {
	if err := walk(ctx, t.v, y, t.step); err != nil {
		return nil, err
	}
	return &t.Written, t.close()
}

// step writes a difference.
func (t *tarWriter) step(c *step) error {
	t.Changes++
	if c.kind == Deleted {
		if c.hidden {
			return nil
		}
		return t.mark(c.path[:baseOf(c.path)] + whiteoutPrefix + c.path[baseOf(c.path):])
	}
	if err := t.file(c.path, c.file); err != nil {
		return fmt.Errorf("%q: %w", c.path, err)
	}
	if c.opaque {
		return t.mark(joinPath(c.path, whiteoutOpaque))
	}
	return nil
}

// baseOf returns where the last name of a path begins.
func baseOf(path string) int { return strings.LastIndexByte(path, '/') + 1 }

// mark writes an empty file that means something else.
func (t *tarWriter) mark(name string) error {
	return t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0, ModTime: time.Unix(0, 0)})
}

// file writes a file.
func (t *tarWriter) file(path string, f *viewFile) error {
	if !t.rootfs && strings.HasPrefix(path[baseOf(path):], whiteoutPrefix) {
		return fmt.Errorf("%w that begins with %s; rename or remove the file", ErrReservedName, whiteoutPrefix)
	}
	m, err := t.v.meta(f)
	if err != nil {
		return err
	}
	h := &tar.Header{
		Name: path, Mode: int64(m.Mode & 0o7777), Uid: int(m.UID), Gid: int(m.GID),
		ModTime: time.Unix(m.MtimeSec, m.MtimeNsec),
	}
	if m.Mode&unix.S_IFMT != unix.S_IFDIR && m.Nlink > 1 {
		if first, ok := t.names[f.key()]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return t.header(h)
		}
		t.names[f.key()] = path
	}
	xattrs, err := t.v.xattrs(f)
	if err != nil {
		return err
	}
	h.PAXRecords = paxXattrs(xattrs)
	switch m.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, m.Size
		return t.regular(h, f)
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
		if path == "" {
			h.Name = "./"
		}
	case unix.S_IFLNK:
		target, err := t.v.target(f)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(target)
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(m.Major), int64(m.Minor)
		if m.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return nil // a socket: tar has none
	}
	return t.header(h)
}

func (t *tarWriter) header(h *tar.Header) error {
	h.Format = tar.FormatPAX
	if t.sizeOnly {
		t.tw = tar.NewWriter(t.w) // the one before misses the content of its last file
	}
	return t.tw.WriteHeader(h)
}

// paxXattrs returns the PAX records of extended attributes. A '=' cannot be part of
// a record's name in the usual form; libarchive's form has it escaped.
func paxXattrs(list []tree.Xattr) map[string]string {
	if len(list) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, x := range list {
		if strings.ContainsRune(x.Name, '=') {
			out["LIBARCHIVE.xattr."+strings.ReplaceAll(url.PathEscape(x.Name), "=", "%3D")] = base64.RawStdEncoding.EncodeToString(x.Value)
			continue
		}
		out["SCHILY.xattr."+x.Name] = string(x.Value)
	}
	return out
}

// wholeFile is the size up to which a file is read before its header is written, so
// that one that is being written can be read again.
const wholeFile = 4 << 20

// readTries is how often a file that changes while it is read is read.
const readTries = 5

// regular writes a regular file.
func (t *tarWriter) regular(h *tar.Header, f *viewFile) error {
	if t.sizeOnly {
		t.size += (h.Size + 511) &^ 511
		return t.header(h)
	}
	if h.Size == 0 && (f.up == nil || f.up.Size == 0) {
		return t.header(h)
	}
	c, err := t.v.open(f)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.file == nil {
		if err := t.header(h); err != nil {
			return err
		}
		return copyExactly(t.tw, c, h.Size)
	}
	return t.growing(h, c)
}

// growing writes a file of the writable layer, which somebody may be writing: the
// header has the size and the time of the moment of the reading, and what was
// written meanwhile is read again when that costs little.
func (t *tarWriter) growing(h *tar.Header, c *content) error {
	var buf bytes.Buffer
	for try := 1; ; try++ {
		before, err := stat(c)
		if err != nil {
			return err
		}
		h.Size, h.ModTime = before.Size, time.Unix(before.Mtim.Sec, before.Mtim.Nsec)
		small := before.Size <= wholeFile
		w := io.Writer(t.tw)
		if small {
			buf.Reset()
			w = &buf
		} else if err := t.header(h); err != nil {
			return err
		}
		if err := copyExactly(w, c, h.Size); err != nil {
			return err
		}
		after, err := stat(c)
		if err != nil {
			return err
		}
		whole := before.Size == after.Size && before.Mtim == after.Mtim && before.Ctim == after.Ctim
		if small && !whole && try < readTries {
			time.Sleep(time.Duration(try) * time.Millisecond)
			continue
		}
		if !whole {
			t.Torn = append(t.Torn, h.Name)
		}
		if !small {
			return nil
		}
		if err := t.header(h); err != nil {
			return err
		}
		_, err = t.tw.Write(buf.Bytes())
		return err
	}
}

func stat(c *content) (st unix.Stat_t, err error) {
	return st, unix.Fstat(int(c.file.Fd()), &st)
}

// copyExactly copies size bytes; a file that has become shorter is filled up with
// zeros, as it would read when it had grown again.
func copyExactly(w io.Writer, r io.ReaderAt, size int64) error {
	buf := make([]byte, min(size, 256<<10))
	for off := int64(0); off < size; {
		n, err := r.ReadAt(buf[:min(size-off, int64(len(buf)))], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			n = int(min(size-off, int64(len(buf))))
			clear(buf[:n])
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// close writes the end of the archive.
func (t *tarWriter) close() error {
	if t.sizeOnly {
		t.size += 2 * 512
		return nil
	}
	return t.tw.Close()
}
