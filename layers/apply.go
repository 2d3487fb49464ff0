package layers

import (
	"fmt"
	"math"
	"strings"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/tarsplit"
)

// Names with a meaning of their own in a layer (image-spec layer.md, "Whiteouts";
// the .wh..wh. ones come from AUFS).
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh."
	aufsLinks      = ".wh..wh.plnk"
)

// maxSymlink is the longest target that Linux can hold: PATH_MAX without the NUL.
const maxSymlink = 4095

// apply adds one member of a layer's tar to the layer's tree; sum is the digest of
// its body, if it has one. Everything in the header is hostile: names are only
// ever names in the table, never paths of the host.
func apply(b *tree.Builder, h *tarsplit.Header, sum tree.Sum) error {
	if h.Type == 'g' || h.Type == 'V' { // global PAX header, GNU volume label: no files
		return nil
	}
	path, err := cleanPath(h.Name)
	if err != nil {
		return err
	}
	dir, base := splitPath(path)
	if hidden(dir) {
		return nil // inside a directory that is itself layer metadata
	}
	links := dir == aufsLinks || path == aufsLinks && h.Type == '5'
	if strings.HasPrefix(base, whiteoutPrefix) && !links {
		return applyWhiteout(b, dir, base)
	}
	return applyEntry(b, h, path, sum)
}

// whiteout reports whether a name may stand for something else than a file. It is
// only right in one direction: what it denies is a file.
func whiteout(name string) bool { return strings.Contains(name, whiteoutPrefix) }

// applyWhiteout handles the names that delete something from the layers below.
func applyWhiteout(b *tree.Builder, dir, base string) error {
	switch {
	case base == whiteoutOpaque:
		return b.Opaque(dir)
	case strings.HasPrefix(base, aufsPrefix):
		return nil
	case base == whiteoutPrefix:
		return fmt.Errorf("%w: whiteout without a name", ErrInvalidLayer)
	}
	return b.Whiteout(joinPath(dir, base[len(whiteoutPrefix):]))
}

func applyEntry(b *tree.Builder, h *tarsplit.Header, path string, sum tree.Sum) error {
	meta, err := metaOf(h)
	if err != nil {
		return err
	}
	if path == "" && h.Type != '5' {
		return fmt.Errorf("%w: the name %q stands for the root directory, but the entry is no directory", ErrInvalidLayer, tree.Clip(h.Name))
	}
	switch h.Type {
	case '0', 0, '7', 'S':
		return b.File(path, meta, h.Size, sum, h.BodySize, extents(h.Sparse))
	case '5', 'D': // 'D' is a directory of a GNU incremental archive; its list of names is no content
		return b.Dir(path, meta)
	case '2':
		if len(h.Linkname) > maxSymlink || h.Linkname == "" || strings.IndexByte(h.Linkname, 0) >= 0 {
			return fmt.Errorf("%w: symbolic link with a target of %d bytes, or with a NUL in it", ErrInvalidLayer, len(h.Linkname))
		}
		meta.Mode = 0o777 // Linux has no other mode for them (symlink(7))
		return b.Symlink(path, h.Linkname, meta)
	case '1':
		target, err := cleanPath(h.Linkname)
		if err != nil {
			return fmt.Errorf("hard link: %w", err)
		}
		return b.Link(path, target)
	case '3', '4':
		major, minor, err := deviceOf(h)
		if err != nil {
			return err
		}
		kind := tree.KindChar
		if h.Type == '4' {
			kind = tree.KindBlock
		}
		return b.Node(path, kind, meta, major, minor)
	case '6':
		return b.Node(path, tree.KindFIFO, meta, 0, 0)
	}
	return fmt.Errorf("%w: entry has the type %q, which is not known", ErrInvalidLayer, h.Type)
}

func metaOf(h *tarsplit.Header) (tree.Meta, error) {
	// 1<<32-1 is no ID: chown(2) takes it for "leave as it is".
	if h.UID < 0 || h.UID >= math.MaxUint32 || h.GID < 0 || h.GID >= math.MaxUint32 {
		return tree.Meta{}, fmt.Errorf("%w: owner %d:%d is out of range", ErrInvalidLayer, h.UID, h.GID)
	}
	m := tree.Meta{
		Mode: uint32(h.Mode) & 0o7777, UID: uint32(h.UID), GID: uint32(h.GID),
		MtimeSec: h.MtimeSec, MtimeNsec: uint32(h.MtimeNsec),
	}
	// Only files and directories can have attributes of the user (xattr(7)).
	for _, x := range h.Xattrs {
		if !privateXattr(x.Name) && (!strings.HasPrefix(x.Name, "user.") || h.IsRegular() || h.Type == '5') {
			m.Xattrs = append(m.Xattrs, tree.Xattr{Name: x.Name, Value: x.Value})
		}
	}
	return m, nil
}

// privateXattr tells the attributes with which union file systems mark their own
// directories. A layer must not be able to smuggle them into somebody's mount.
func privateXattr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") ||
		strings.HasPrefix(name, "user.fuseoverlayfs.")
}

// deviceOf checks the device number against the 12 and 20 bits that Linux has.
func deviceOf(h *tarsplit.Header) (major, minor uint32, err error) {
	if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
		return 0, 0, fmt.Errorf("%w: device number %d:%d is out of range", ErrInvalidLayer, h.Devmajor, h.Devminor)
	}
	return uint32(h.Devmajor), uint32(h.Devminor), nil
}

func extents(in []tarsplit.Extent) []tree.Extent {
	if in == nil {
		return nil
	}
	out := make([]tree.Extent, len(in))
	for i, e := range in {
		out[i] = tree.Extent{Offset: e.Offset, Length: e.Length}
	}
	return out
}

// cleanPath turns a name of an archive into the path in the layer that it stands
// for: relative to the layer's root, without ".", ".." and empty components. ".."
// stops at the root, as it does in a chroot.
func cleanPath(name string) (string, error) {
	if isClean(name) {
		return name, nil
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			parts = parts[:max(0, len(parts)-1)]
		default:
			if len(part) > 255 {
				return "", fmt.Errorf("%w: a name of %d bytes is longer than the 255 that Linux allows", ErrInvalidLayer, len(part))
			}
			if strings.IndexByte(part, 0) >= 0 {
				return "", fmt.Errorf("%w: a name with a NUL byte", ErrInvalidLayer)
			}
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/"), nil
}

// isClean recognises the ordinary name without allocating.
func isClean(name string) bool {
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			if name[i] == 0 {
				return false
			}
			continue
		}
		n := i - start
		if n == 0 || n > 255 || name[start] == '.' && (n == 1 || n == 2 && name[start+1] == '.') {
			return false
		}
		start = i + 1
	}
	return true
}

func splitPath(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func joinPath(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// hidden reports whether a component of the directory is layer metadata. The
// directory of AUFS hard links is kept until the layer is complete.
func hidden(dir string) bool {
	if dir == aufsLinks || !strings.Contains(dir, whiteoutPrefix) {
		return false
	}
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(part, whiteoutPrefix) {
			return true
		}
	}
	return false
}
