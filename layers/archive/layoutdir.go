package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A layoutDir is an OCI layout in a directory. Files are opened through an os.Root:
// symbolic links are followed inside the directory, as published layouts have
// them, and nothing outside can be reached, whatever the names and whoever changes
// them meanwhile.
type layoutDir struct {
	root *os.Root
	name string
}

// openLayoutDir opens the layout at path, which may itself be a link.
func openLayoutDir(dir string) (*layoutDir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	d := &layoutDir{root: root, name: dir}
	if err := d.check(); err != nil {
		root.Close()
		return nil, err
	}
	return d, nil
}

// check makes sure that this is a layout and not another kind of directory.
func (d *layoutDir) check() error {
	layout, index := d.has("oci-layout"), d.has("index.json")
	switch {
	case layout && index:
		return nil
	case d.isSkopeoDir():
		return nil
	case d.has("manifest.json"):
		return fmt.Errorf("%s: %w: it looks like an unpacked docker-archive; pack it with `tar -C %s -cf NEW.tar .`", d.name, ErrUnsupported, d.name)
	case layout:
		return fmt.Errorf("%s: %w: it is an OCI layout without index.json", d.name, ErrDamaged)
	case index:
		return fmt.Errorf("%s: %w: the directory has index.json, but not oci-layout", d.name, ErrNotArchive)
	}
	return fmt.Errorf("%s: %w: the directory has neither oci-layout nor index.json, so it is no OCI layout", d.name, ErrNotArchive)
}

// has says whether there is a file, of whatever kind.
func (d *layoutDir) has(name string) bool {
	_, err := d.root.Lstat(name)
	return err == nil
}

// open implements container.
func (d *layoutDir) open(name string) (*file, error) {
	f, size, err := d.openRegular(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.member(name), err)
	}
	if target, ok := placeholder(f, name, size); ok {
		to, toSize, err := d.openRegular(target)
		switch {
		case err == nil:
			f.Close()
			f, size = to, toSize
		case !isMissing(err):
			f.Close()
			return nil, fmt.Errorf("%s: it stands for a symbolic link to %s: %w", d.member(name), target, err)
		} // A text that names nothing is a damaged blob: whoever reads it finds that out.
	}
	return &file{SectionReader: io.NewSectionReader(f, 0, size), closer: f}, nil
}

// openRegular opens a regular file. O_NONBLOCK keeps a FIFO from blocking the open.
func (d *layoutDir) openRegular(name string) (*os.File, int64, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("it is %w in the layout", errMissing)
	}
	var errno unix.Errno
	if err != nil && (!errors.As(err, &errno) || errno == unix.ELOOP) { // os does not export what it says then
		return nil, 0, fmt.Errorf("%w: a symbolic link leads out of the layout (%w); copy the layout with `cp -rL`", ErrUnsupported, err)
	}
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%w: it is no regular file", ErrUnsupported)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// maxPlaceholder is the longest link target that is looked for.
const maxPlaceholder = 255

// placeholder recognises a blob that is in truth a symbolic link: where links
// cannot be had, git and others check them out as files that hold the target.
// Official images are published as such layouts. A file with the content that its
// name promises is what it is; anything else is verified after it was read.
func placeholder(f *os.File, name string, size int64) (target string, ok bool) {
	dir, base := path.Split(name)
	if !strings.HasPrefix(name, "blobs/") || size == 0 || size > maxPlaceholder {
		return "", false
	}
	text := make([]byte, size)
	if _, err := f.ReadAt(text, 0); err != nil || !utf8.Valid(text) || bytes.ContainsAny(text, "\x00\n") {
		return "", false
	}
	if digest.FromBytes(text).Encoded() == base {
		return "", false
	}
	target = path.Join(dir, string(text))
	return target, filepath.IsLocal(target)
}

// member implements container.
func (d *layoutDir) member(name string) string { return path.Join(d.name, name) }

// Close implements container.
func (d *layoutDir) Close() error { return d.root.Close() }
