package changes

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

// A View is a merged tree that is read without a mount: a stack of layers, below
// the writable layer of a container or alone. It is for one goroutine.
type View struct {
	Stack *union.Stack // nil: no layers
	// ReadAt reads the content of a regular file of the stack.
	ReadAt func(n union.Node, p []byte, off int64) (int, error)

	Upper  string        // the directory of the writable layer; empty: none
	Format *upper.Format // the form of the writable layer
}

// hasLayers reports whether there is anything below the writable layer.
func (v *View) hasLayers() bool { return v.Stack != nil && v.Stack.Layers() > 0 }

// tree returns the tree of the layer that a file of the stack is of.
func (v *View) tree(n union.Node) *tree.Tree { return v.Stack.Layer(n.Layer) }

// A viewDir is an open directory of a view: one of the writable layer, a merged one
// of the stack, or both.
type viewDir struct {
	v      *View
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
func (v *View) root() (*viewDir, *viewFile, error) {
	d := &viewDir{v: v}
	f := &viewFile{}
	if v.hasLayers() {
		d.low, d.hasLow = v.Stack.Root(), true
		f.low, f.hasLow = d.low, true
	}
	if v.Upper == "" {
		return d, f, nil
	}
	up, err := os.Open(v.Upper)
	if err != nil {
		return nil, nil, err
	}
	d.up, f.at = up, upper.At{Dir: int(up.Fd())}
	e, err := v.Format.Read(f.at)
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
		e, err := d.v.Format.Read(f.at)
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
		if d.v.hasLayers() {
			n, ok, err = d.v.Stack.Resolve(f.up.Redirect)
		}
	case !d.hasLow:
	default:
		name := cmp.Or(f.up.Redirect, f.name)
		n, ok, err = d.v.Stack.Lookup(d.v.Stack.DirID(d.low), []byte(name))
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
		return fmt.Errorf("%w: the file whose content it has is not in the layers below", ErrNoContent)
	}
	return nil
}

// list returns all files of d in byte order.
func (d *viewDir) list() ([]viewFile, error) {
	files, deleted, err := d.changed()
	if err != nil || !d.hasLow {
		return files, err
	}
	l, err := d.v.Stack.Open(d.v.Stack.DirID(d.low))
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
	n, ok, err := d.v.Stack.Lookup(d.v.Stack.DirID(d.low), []byte(name))
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
func (v *View) meta(f *viewFile) (fileMeta, error) {
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

func (v *View) stackMeta(n union.Node) (fileMeta, error) {
	a, err := v.Stack.Attr(n)
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
func (v *View) xattrs(f *viewFile) ([]tree.Xattr, error) {
	var out []tree.Xattr
	if f.up == nil {
		err := v.Stack.EachXattr(f.low, func(name, value []byte) bool {
			out = append(out, tree.Xattr{Name: string(name), Value: bytes.Clone(value)})
			return true
		})
		return out, err
	}
	if !f.up.HasXattrs {
		return nil, nil
	}
	var names []string
	if err := v.Format.EachXattr(f.at, func(name string) { names = append(names, name) }); err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if name == "security.selinux" {
			continue
		}
		value, ok, err := v.Format.Xattr(f.at, name)
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
func (v *View) target(f *viewFile) ([]byte, error) {
	if f.up != nil {
		return v.Format.Readlink(f.at, f.up)
	}
	return v.tree(f.low).Symlink(f.low.Ino)
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
func (v *View) open(f *viewFile) (*content, error) {
	if f.up == nil || f.up.Metacopy {
		return &content{ReaderAt: &stackFile{v, f.low}}, nil
	}
	fd, err := f.at.Open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), f.name)
	return &content{file, file}, nil
}

// A stackFile is a regular file of the stack.
type stackFile struct {
	v *View
	n union.Node
}

func (f *stackFile) ReadAt(p []byte, off int64) (int, error) { return f.v.ReadAt(f.n, p, off) }

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
