package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A layoutDir is an OCI layout in a directory. Files are opened relative to the
// directory one component after the other and no link is followed, so nothing
// outside can be reached, whatever the names and whoever changes it meanwhile.
type layoutDir struct {
	root *os.File
	name string
}

// openLayoutDir opens the layout at path, which may itself be a link.
func openLayoutDir(dir string) (*layoutDir, error) {
	root, err := os.Open(dir)
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
	case d.has("manifest.json") && d.has("version"):
		return fmt.Errorf("%s: %w: it is a directory of skopeo's dir: transport; convert it with `skopeo copy dir:%s oci:NEW`", d.name, ErrUnsupported, d.name)
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
	var st unix.Stat_t
	return unix.Fstatat(int(d.root.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// open implements container.
func (d *layoutDir) open(name string) (*file, error) {
	f, err := d.openat(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.member(name), err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: it is no regular file", d.member(name), ErrUnsupported)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{SectionReader: io.NewSectionReader(f, 0, fi.Size()), closer: f}, nil
}

// openat walks to name. O_NONBLOCK keeps a FIFO from blocking the open.
func (d *layoutDir) openat(name string) (*os.File, error) {
	dir, parts := int(d.root.Fd()), strings.Split(name, "/")
	for i, part := range parts {
		flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
		if i < len(parts)-1 {
			flags |= unix.O_DIRECTORY
		}
		fd, err := unix.Openat(dir, part, flags, 0)
		for err == unix.EINTR {
			fd, err = unix.Openat(dir, part, flags, 0)
		}
		if i > 0 {
			unix.Close(dir)
		}
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) && i < len(parts)-1 {
			return nil, fmt.Errorf("%w: %s is a symbolic link or no directory, and links in a layout are not followed; copy it with `cp -rL`",
				ErrUnsupported, path.Join(parts[:i+1]...))
		}
		if errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("it is %w in the layout", errMissing)
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path.Join(parts[:i+1]...), Err: err}
		}
		dir = fd
	}
	return os.NewFile(uintptr(dir), name), nil
}

// member implements container.
func (d *layoutDir) member(name string) string { return path.Join(d.name, name) }

// Close implements container.
func (d *layoutDir) Close() error { return d.root.Close() }
