package graphroot

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A Tar is the uncompressed tar of a layer, put together from its tar-split file and
// its files while it is read.
type Tar struct {
	root  *Root
	layer string
	file  *os.File
	zip   *gzip.Reader
	limit *io.LimitedReader // of an entry
	json  *json.Decoder

	off     int64     // bytes read so far
	segment []byte    // the rest of the present segment
	body    io.Reader // the present file, nil between files
	name    string    // of it
	left    int64     // bytes of it still to come
	open    io.Closer // of body
	err     error     // the end, or what went wrong

	files      []TarFile // that have begun and that nobody has asked for
	unreadable []string
}

// A TarFile is a part of the tar that is the content of a file.
type TarFile struct {
	Offset, Size int64
	Name         string // in the tar
	// Unreadable says that the file could not be opened for lack of permission; the
	// tar has zeros in its place.
	Unreadable bool
}

// entry is one line of a tar-split file.
type entry struct {
	Type    int    `json:"type"`
	Name    string `json:"name"`
	NameRaw []byte `json:"name_raw"`
	Size    int64  `json:"size"`
	Payload []byte `json:"payload"`
}

// maxEntry limits an entry, which the decoder keeps in memory whole: headers and padding
// between two files, in base64.
const maxEntry = 64 << 20

const (
	typeFile    = 1
	typeSegment = 2
)

// OpenTar opens the tar of a layer. The caller closes it.
func (r *Root) OpenTar(layer string) (*Tar, error) {
	if !isID(layer) {
		return nil, fmt.Errorf("%w: layer %q", ErrInvalid, layer)
	}
	f, err := os.Open(filepath.Join(r.dir, "overlay-layers", layer+".tar-split.gz"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: layer %s has no tar-split file", ErrInvalid, layer)
	}
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 64<<10))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, f.Name(), err)
	}
	t := &Tar{root: r, layer: layer, file: f, zip: z, limit: &io.LimitedReader{R: z}}
	t.json = json.NewDecoder(t.limit)
	return t, nil
}

// Close releases the files.
func (t *Tar) Close() error {
	if t.open != nil {
		t.open.Close()
	}
	return t.file.Close()
}

// Read implements io.Reader.
func (t *Tar) Read(p []byte) (int, error) {
	for len(p) > 0 && t.err == nil {
		var n int
		n, t.err = t.some(p)
		t.off += int64(n)
		if n > 0 {
			return n, nil
		}
	}
	return 0, t.err
}

// some reads from what is at hand, or gets the next entry and reads nothing.
func (t *Tar) some(p []byte) (int, error) {
	switch {
	case len(t.segment) > 0:
		n := copy(p, t.segment)
		t.segment = t.segment[n:]
		return n, nil
	case t.left > 0:
		n, err := t.body.Read(p[:min(int64(len(p)), t.left)])
		t.left -= int64(n)
		if err == io.EOF && t.left > 0 {
			return n, fmt.Errorf("%w: layer %s: %q is shorter than when it was unpacked", ErrInvalid, t.layer, t.name)
		}
		if err == io.EOF {
			err = nil
		}
		return n, err
	}
	return 0, t.next()
}

// next gets the next entry.
func (t *Tar) next() error {
	if t.open != nil {
		t.open.Close()
		t.open, t.body = nil, nil
	}
	var e entry
	t.limit.N = maxEntry
	if err := t.json.Decode(&e); err != nil {
		if t.limit.N <= 0 {
			return fmt.Errorf("%w: %s: an entry has more than %d bytes", ErrInvalid, t.file.Name(), maxEntry)
		}
		if err == io.EOF {
			return io.EOF
		}
		return fmt.Errorf("%w: %s: %w", ErrInvalid, t.file.Name(), err)
	}
	switch {
	case e.Type == typeSegment:
		t.segment = e.Payload
	case e.Type == typeFile && e.Size > 0:
		return t.begin(e)
	case e.Type != typeFile || e.Size < 0:
		return fmt.Errorf("%w: %s: entry of type %d and size %d", ErrInvalid, t.file.Name(), e.Type, e.Size)
	}
	return nil
}

// begin opens the file of an entry.
func (t *Tar) begin(e entry) error {
	if len(e.NameRaw) > 0 {
		e.Name = string(e.NameRaw)
	}
	f := TarFile{Offset: t.off, Size: e.Size, Name: e.Name}
	file, err := t.root.OpenFile(t.layer, e.Name)
	switch {
	case err == nil:
		t.body, t.open = file, file
	case errors.Is(err, fs.ErrPermission):
		f.Unreadable, t.body = true, zeros{}
		t.unreadable = append(t.unreadable, e.Name)
	default:
		return fmt.Errorf("%w: layer %s: %w", ErrInvalid, t.layer, err)
	}
	t.left, t.name = e.Size, e.Name
	t.files = append(t.files, f)
	return nil
}

// File returns the file whose content begins at an offset of the tar, if that is one.
// Offsets must be asked for in ascending order, each when the tar has been read to
// it at least.
func (t *Tar) File(off int64) (TarFile, bool) {
	for len(t.files) > 0 && t.files[0].Offset < off {
		t.files = t.files[1:]
	}
	// The reader may have stopped just before the file.
	for len(t.files) == 0 && t.off == off && len(t.segment) == 0 && t.left == 0 && t.err == nil {
		t.err = t.next() // who reads on gets the error
	}
	if len(t.files) == 0 || t.files[0].Offset != off {
		return TarFile{}, false
	}
	return t.files[0], true
}

// Unreadable returns the names of the files that could not be opened so far.
func (t *Tar) Unreadable() []string { return t.unreadable }

// zeros stands in for what cannot be read.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
