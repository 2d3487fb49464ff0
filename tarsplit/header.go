package tarsplit

// Sum names a body: the SHA-256 of its bytes.
type Sum = [32]byte

// Types of members, as the type flag of a header has them. Others occur and are
// reported as found.
const (
	TypeRegular    = '0'
	TypeLink       = '1'
	TypeSymlink    = '2'
	TypeChar       = '3'
	TypeBlock      = '4'
	TypeDirectory  = '5'
	TypeFIFO       = '6'
	TypeContiguous = '7' // a regular file, for every system in use
	TypeGlobal     = 'g' // PAX global header: not a member, holds for no file; skip it
	TypeGNUSparse  = 'S' // a regular file in the old GNU sparse format
)

// An Xattr is one extended attribute of a member.
type Xattr struct {
	Name  string
	Value []byte
}

// An Extent is a piece of data of a sparse file; what lies outside of all
// extents reads as zeros.
type Extent struct {
	Offset, Length int64
}

// A Header describes a member. Its fields have the values that archive/tar
// gives; in particular they are not checked or cleaned: names can be absolute,
// contain "..", NUL-free bytes of any kind, or be empty.
type Header struct {
	// Type is the type flag. A type flag of NUL has become TypeDirectory when
	// the name ends in a slash and TypeRegular when not. A TypeRegular whose name
	// ends in a slash stays what it is, as in archive/tar.
	Type byte

	Name     string
	Linkname string

	Mode      int64 // permission, set-ID and sticky bits, and whatever else the writer put there
	UID, GID  int64
	Size      int64 // logical size of a file; links and directories may have a meaningless one
	MtimeSec  int64
	MtimeNsec int32 // 0 to 999,999,999, also before 1970

	Devmajor, Devminor int64

	// Xattrs are the PAX records "SCHILY.xattr." and "LIBARCHIVE.xattr." in the
	// order of the header, the latter decoded (URL-encoded name, base64 value;
	// one that does not decode is left out). When both name the same attribute,
	// SCHILY counts, which carries the bytes as they are. Empty values are kept.
	Xattrs []Xattr

	// Sparse is the map of a sparse file, in order, without empty extents; the
	// body is the data of all extents back to back. It is nil when the file is
	// not sparse and empty, not nil, when the file is one hole.
	Sparse []Extent

	BodySize int64 // bytes of the body; 0 for links, directories and devices
	Offset   int64 // where in the stream the member's first header starts
}

// IsRegular reports whether the member is a regular file in any of its forms.
func (h *Header) IsRegular() bool {
	return h.Type == TypeRegular || h.Type == TypeContiguous || h.Type == TypeGNUSparse
}

// headerOnly reports whether members of the type have no body, whatever size
// their header claims.
func headerOnly(typ byte) bool { return TypeLink <= typ && typ <= TypeFIFO }
