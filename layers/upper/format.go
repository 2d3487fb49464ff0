package upper

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Format is the form of the uppers of one store.
type Format struct {
	// Guard, if set, is called before an override or a kept attribute is written, which
	// the kernel's overlayfs would not see; its error is returned instead.
	Guard func() error

	prefix string
	user   bool
	owners Owners
}

func (f *Format) guard() error {
	if f.Guard == nil {
		return nil
	}
	return f.Guard()
}

// New returns the form of the uppers of a store that belongs to owners.UID: that
// with user.overlay.* unless it is that of the host's root.
func New(owners Owners) *Format {
	if owners.UID == 0 && !owners.Namespace {
		return &Format{prefix: "trusted.overlay.", owners: owners}
	}
	return &Format{prefix: "user.overlay.", user: true, owners: owners}
}

// User reports whether the form is that of an ordinary user.
func (f *Format) User() bool { return f.user }

// Names of attributes, behind the prefix.
const (
	nameOpaque   = "opaque"
	nameRedirect = "redirect"
	nameMetacopy = "metacopy"
	nameOverride = "layerfs"
	nameOrigin   = "layerfs.origin"
	nameKept     = "layerfs.x."
)

// Private reports whether an attribute belongs to the form of overlayfs, ours or
// that of another tool, so that nobody inside a container may see or set it.
func Private(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") ||
		strings.HasPrefix(name, "user.fuseoverlayfs.")
}

// Origin is the file below that a file was copied from: an inode of a layer, which
// are counted from the bottom. For a directory it is the topmost that it is merged
// with.
type Origin struct {
	Layer uint32
	Ino   uint32
}

func (o Origin) encode() []byte {
	return fmt.Appendf(nil, "%d:%d", o.Layer, o.Ino)
}

func decodeOrigin(text []byte) (Origin, bool) {
	l, i, ok := strings.Cut(string(text), ":")
	layer, err1 := strconv.ParseUint(l, 10, 32)
	ino, err2 := strconv.ParseUint(i, 10, 32)
	return Origin{uint32(layer), uint32(ino)}, ok && err1 == nil && err2 == nil
}

// An Override is what a file is to the container.
type Override struct {
	UID, GID     uint32
	Mode         uint32 // with the S_IFMT bits
	Major, Minor uint32 // of a device
	// Xattrs: it is about to get extended attributes. This is not written down.
	Xattrs bool
}

func (o *Override) encode() []byte {
	return fmt.Appendf(nil, "%d:%d:%o:%d:%d", o.UID, o.GID, o.Mode, o.Major, o.Minor)
}

func decodeOverride(text []byte) (Override, bool) {
	parts := strings.Split(string(text), ":")
	if len(parts) != 5 {
		return Override{}, false
	}
	var n [5]uint32
	for i, p := range parts {
		base := 10
		if i == 2 {
			base = 8
		}
		v, err := strconv.ParseUint(p, base, 32)
		if err != nil {
			return Override{}, false
		}
		n[i] = uint32(v)
	}
	o := Override{UID: n[0], GID: n[1], Mode: n[2], Major: n[3], Minor: n[4]}
	switch o.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		return o, o.Mode&^(unix.S_IFMT|0o7777) == 0
	}
	return Override{}, false
}
