package fs

import (
	"strings"
	"syscall"

	"github.com/layerfs/layerfs/index/tree"
)

// private reports whether an attribute belongs to overlayfs or fuse-overlayfs. One that came in a tar is never shown:
// it could redirect what somebody mounts on top of the layer.
func private(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") ||
		strings.HasPrefix(name, "user.fuseoverlayfs.")
}

// opaqueMark reports whether an attribute marks opaque directories for overlayfs. It is answered for those of diff/
// but never listed: overlayfs in a user namespace fails to copy a listed one up.
func opaqueMark(name string) bool {
	return name == "trusted.overlay.opaque" || name == "user.overlay.opaque"
}

// unsupported reports whether the absence of an attribute is answered with EOPNOTSUPP. ls -l asks for these for every
// file, the kernel does not remember the answers, and only this errno makes ls stop: without it a second ls -lR takes
// two round trips per file. A file that has the attribute shows it all the same.
func unsupported(name string) bool {
	return name == "security.selinux" || name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// absent is the errno for an attribute that a file does not have.
func absent(name string) syscall.Errno {
	if unsupported(name) {
		return syscall.EOPNOTSUPP
	}
	return syscall.ENODATA
}

// metaOf returns the table and inode that hold the extended attributes of a node; a nil table means that there are
// none.
func (f *fileSystem) metaOf(s *snapshot, node uint64) (*tree.Tree, tree.Ino, syscall.Errno) {
	k, slot, number := splitID(node)
	v := s.views[slot]
	switch {
	case k == kindFile || k == kindDiffDir:
		l := s.layerAt(slot)
		if l == nil {
			return nil, 0, syscall.ESTALE
		}
		o, err := f.use(l)
		if err != nil {
			return nil, 0, f.errno(err)
		}
		return o.Tree(), tree.Ino(number), 0
	case k == kindViewDir && v != nil:
		return f.viewDirMeta(v, number)
	case k == kindViewObject && v != nil && number >= viewLinkGroup:
		st, n, errno := f.group(v, number)
		if errno != 0 {
			return nil, 0, errno
		}
		return st.Layer(n.Layer), n.Ino, 0
	}
	return nil, 0, 0
}

func (f *fileSystem) viewDirMeta(v *view, number uint32) (*tree.Tree, tree.Ino, syscall.Errno) {
	st, err := f.tree(v.image)
	if err != nil {
		return nil, 0, f.errno(err)
	}
	n, ok := st.DirNode(st.dirID(number))
	if !ok {
		return nil, 0, syscall.ESTALE
	}
	n, err = st.Meta(n)
	if err != nil {
		return nil, 0, f.errno(err)
	}
	return st.Layer(n.Layer), n.Ino, 0
}

// GetXattr implements wire.Handler. Overlayfs asks for an attribute of every file that is looked up, also where the
// image has none. An ENOSYS would end that, and programs would get EOPNOTSUPP instead of ENODATA: not worth it.
func (f *fileSystem) GetXattr(node uint64, attr []byte) ([]byte, syscall.Errno) {
	node = f.meant(node)
	t, i, errno := f.metaOf(f.snap.Load(), node)
	name := string(attr)
	switch {
	case errno != 0:
		return nil, errno
	case t == nil:
		return nil, absent(name)
	case private(name):
		return f.opaque(node, t, i, name)
	}
	v, ok, err := t.Xattr(i, name)
	if err != nil {
		return nil, f.errno(err)
	}
	if !ok {
		return nil, absent(name)
	}
	return v, 0
}

var yes = []byte("y")

// opaque answers for the attributes of overlayfs.
func (f *fileSystem) opaque(node uint64, t *tree.Tree, i tree.Ino, name string) ([]byte, syscall.Errno) {
	if k, _, _ := splitID(node); k != kindDiffDir || !opaqueMark(name) {
		return nil, syscall.ENODATA
	}
	a, err := t.Attr(i)
	if err != nil {
		return nil, f.errno(err)
	}
	if !a.Opaque {
		return nil, syscall.ENODATA
	}
	return yes, 0
}

// ListXattr implements wire.Handler.
func (f *fileSystem) ListXattr(node uint64, buf []byte) ([]byte, syscall.Errno) {
	t, i, errno := f.metaOf(f.snap.Load(), f.meant(node))
	if errno != 0 || t == nil {
		return nil, errno
	}
	err := t.EachXattr(i, func(name, _ []byte) bool {
		if f.listed(string(name)) && cap(buf)-len(buf) > len(name) {
			buf = append(append(buf, name...), 0)
		}
		return true
	})
	if err != nil {
		return nil, f.errno(err)
	}
	return buf, 0
}

// listed reports whether an attribute is listed. Of trusted.* an ordinary user's mount lists none: nobody there can
// read them, and overlayfs gives up on what it finds listed and cannot read.
func (f *fileSystem) listed(name string) bool {
	return !private(name) && (f.trusted || !strings.HasPrefix(name, "trusted."))
}
