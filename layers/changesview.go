package layers

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
	"github.com/layerfs/layerfs/layers/upper"
)

// A view is a merged tree that is read without a mount: a stack of layers, below
// the writable layer of a container or alone. It is for one goroutine.
type view struct {
	stack *Stack
	upper string // the writable layer; empty: none
	form  *upper.Format
}

// A viewDir is an open directory of a view: one of the writable layer, a merged one
// of the stack, or both.
type viewDir struct {
	v      *view
	up     *os.File // nil: not in the writable layer
	low    union.Node
	hasLow bool
}

// A viewFile is a file in a view. Its place in the writable layer is valid while
// its directory is open.
type viewFile struct {
	name string
	up   *upper.Entry // nil: a file of the stack
	at   upper.At
	// low is a file of the stack: this one, or what is merged below this directory,
	// or whose content this file of the writable layer has.
	low    union.Node
	hasLow bool
}

// root opens the root directory. The caller closes it.
func (v *view) root() (*viewDir, *viewFile, error) {
	d := &viewDir{v: v}
	f := &viewFile{}
	if len(v.stack.layers) > 0 {
		d.low, d.hasLow = v.stack.Root(), true
		f.low, f.hasLow = d.low, true
	}
	if v.upper == "" {
		return d, f, nil
	}
	up, err := os.Open(v.upper)
	if err != nil {
		return nil, nil, err
	}
	d.up, f.at = up, upper.At{Dir: int(up.Fd())}
	e, err := v.form.Read(f.at)
	if err != nil {
		return nil, nil, errors.Join(err, up.Close())
	}
	f.up = &e
	return d, f, nil
}

func (d *viewDir) close() {
	if d.up != nil {
		d.up.Close() // it was only read
	}
}

// open opens a directory in d.
func (d *viewDir) open(f *viewFile) (*viewDir, error) {
	sub := &viewDir{v: d.v, low: f.low, hasLow: f.hasLow}
	if f.up == nil {
		return sub, nil
	}
	fd, err := f.at.Open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	sub.up = os.NewFile(uintptr(fd), f.name)
	return sub, nil
}

// changed returns the files of the writable layer in d, in byte order, and the names
// that it deletes. What vanishes meanwhile is left out.
func (d *viewDir) changed() (files []viewFile, deleted []string, err error) {
	if d.up == nil {
		return nil, nil, nil
	}
	names, err := d.up.Readdirnames(-1)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		f := viewFile{name: name, at: upper.At{Dir: int(d.up.Fd()), Name: name}}
		e, err := d.v.form.Read(f.at)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%q: %w", name, err)
		}
		if e.Whiteout {
			deleted = append(deleted, name)
			continue
		}
		f.up = &e
		if err := d.below(&f); err != nil {
			return nil, nil, fmt.Errorf("%q: %w", name, err)
		}
		files = append(files, f)
	}
	return files, deleted, nil
}

// below finds what is merged below a directory of the writable layer, and whose
// content a metacopy has, as overlayfs does.
func (d *viewDir) below(f *viewFile) error {
	dir := f.isDir()
	if dir && f.up.Opaque || !dir && !f.up.Metacopy {
		return nil
	}
	var n union.Node
	var ok bool
	var err error
	switch {
	case strings.HasPrefix(f.up.Redirect, "/"):
		if len(d.v.stack.layers) > 0 {
			n, ok, err = d.v.stack.Resolve(f.up.Redirect)
		}
	case !d.hasLow:
	default:
		name := cmp.Or(f.up.Redirect, f.name)
		n, ok, err = d.v.stack.Lookup(d.v.stack.DirID(d.low), []byte(name))
	}
	if err != nil {
		return err
	}
	want := tree.KindDirectory
	if !dir {
		want = tree.KindRegular
	}
	if ok && n.Kind == want {
		f.low, f.hasLow = n, true
	} else if !dir {
		return fmt.Errorf("%w: the file whose content it has is not in the layers below", ErrDamaged)
	}
	return nil
}

// list returns all files of d in byte order.
func (d *viewDir) list() ([]viewFile, error) {
	files, deleted, err := d.changed()
	if err != nil || !d.hasLow {
		return files, err
	}
	l, err := d.v.stack.Open(d.v.stack.DirID(d.low))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		deleted = append(deleted, f.name)
	}
	slices.Sort(deleted)
	for i := range l.Len() {
		name, n, err := l.At(i)
		if err != nil {
			return nil, err
		}
		if _, hidden := slices.BinarySearch(deleted, string(name)); !hidden {
			files = append(files, viewFile{name: string(name), low: n, hasLow: true})
		}
	}
	slices.SortFunc(files, func(a, b viewFile) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// lookup finds a file of the stack in d.
func (d *viewDir) lookup(name string) (viewFile, bool, error) {
	if !d.hasLow {
		return viewFile{}, false, nil
	}
	n, ok, err := d.v.stack.Lookup(d.v.stack.DirID(d.low), []byte(name))
	return viewFile{name: name, low: n, hasLow: ok}, ok, err
}

// A fileMeta is what lstat says of a file of a view.
type fileMeta struct {
	Mode         uint32 // with the S_IFMT bits
	UID, GID     uint32
	Major, Minor uint32
	Nlink        uint32
	Size         int64
	MtimeSec     int64
	MtimeNsec    int64
}

var kindMode = [...]uint32{
	tree.KindRegular: unix.S_IFREG, tree.KindDirectory: unix.S_IFDIR, tree.KindSymlink: unix.S_IFLNK,
	tree.KindChar: unix.S_IFCHR, tree.KindBlock: unix.S_IFBLK, tree.KindFIFO: unix.S_IFIFO, tree.KindSocket: unix.S_IFSOCK,
}

func (f *viewFile) isDir() bool {
	if f.up != nil {
		return f.up.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	return f.hasLow && f.low.Kind == tree.KindDirectory
}

// meta returns the attributes of a file.
func (v *view) meta(f *viewFile) (fileMeta, error) {
	if f.up == nil {
		return v.stackMeta(f.low)
	}
	e := f.up
	m := fileMeta{
		Mode: e.Mode, UID: e.UID, GID: e.GID, Major: e.Major, Minor: e.Minor, Nlink: e.Nlink,
		Size: e.Size, MtimeSec: e.Mtime.Sec, MtimeNsec: e.Mtime.Nsec,
	}
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if e.Metacopy {
			below, err := v.stackMeta(f.low)
			m.Size = below.Size
			return m, err
		}
	case unix.S_IFLNK:
	default:
		m.Size = 0
	}
	return m, nil
}

func (v *view) stackMeta(n union.Node) (fileMeta, error) {
	a, err := v.stack.Attr(n)
	if err != nil {
		return fileMeta{}, err
	}
	return fileMeta{
		Mode: kindMode[n.Kind] | a.Mode, UID: a.UID, GID: a.GID, Major: a.Major, Minor: a.Minor, Nlink: a.Nlink,
		Size: a.Size, MtimeSec: a.MtimeSec, MtimeNsec: int64(a.MtimeNsec),
	}, nil
}

// xattrs returns the extended attributes in the order of their names. A label of the
// host's security module is not the container's.
func (v *view) xattrs(f *viewFile) ([]tree.Xattr, error) {
	var out []tree.Xattr
	if f.up == nil {
		err := v.stack.EachXattr(f.low, func(name, value []byte) bool {
			out = append(out, tree.Xattr{Name: string(name), Value: bytes.Clone(value)})
			return true
		})
		return out, err
	}
	if !f.up.HasXattrs {
		return nil, nil
	}
	var names []string
	if err := v.form.EachXattr(f.at, func(name string) { names = append(names, name) }); err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if name == "security.selinux" {
			continue
		}
		value, ok, err := v.form.Xattr(f.at, name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, tree.Xattr{Name: name, Value: value})
		}
	}
	return out, nil
}

// target returns the target of a symbolic link.
func (v *view) target(f *viewFile) ([]byte, error) {
	if f.up != nil {
		return v.form.Readlink(f.at, f.up)
	}
	return v.stack.Layer(f.low).Tree().Symlink(f.low.Ino)
}

// A content is the open content of a regular file.
type content struct {
	io.ReaderAt
	file *os.File // of the writable layer; nil: of the stack
}

func (c *content) Close() {
	if c.file != nil {
		c.file.Close() // it was only read
	}
}

// open opens the content of a regular file.
func (v *view) open(f *viewFile) (*content, error) {
	if f.up == nil || f.up.Metacopy {
		return &content{ReaderAt: &layerFile{v.stack.Layer(f.low), f.low.Ino}}, nil
	}
	fd, err := f.at.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), f.name)
	return &content{file, file}, nil
}

// A layerFile is a regular file of a layer.
type layerFile struct {
	l   *Layer
	ino tree.Ino
}

func (f *layerFile) ReadAt(p []byte, off int64) (int, error) { return f.l.ReadAt(f.ino, p, off) }

// A fileKey tells which names are links to one file.
type fileKey struct {
	dev, ino uint64
	up       bool
}

func (f *viewFile) key() fileKey {
	if f.up != nil {
		return fileKey{f.up.HostDev, f.up.HostIno, true}
	}
	return fileKey{uint64(f.low.Layer), uint64(f.low.Ino), false}
}
