package overlay

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/layers/upper"
)

// Attributes that mean something to this package.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	capability = "security.capability"
)

// States of node.defaultACL.
const (
	aclUnknown = iota
	aclNone
	aclThere
)

// An entry of an access list, as in include/uapi/linux/posix_acl_xattr.h: tag,
// permissions, ID; the list begins with a version.
const (
	aclHead   = 4
	aclEntry  = 8
	tagUser   = 0x01 // the owner
	tagNamed  = 0x02
	tagGroup  = 0x04 // the owning group
	tagGroups = 0x08
	tagMask   = 0x10
	tagOther  = 0x20
)

// An acl is an access list as it is in an attribute.
type acl []byte

func (a acl) valid() bool {
	return len(a) >= aclHead+aclEntry && (len(a)-aclHead)%aclEntry == 0 && binary.LittleEndian.Uint32(a) == 2
}

// find returns the entry with a tag.
func (a acl) find(tag uint16) ([]byte, bool) {
	for e := a[aclHead:]; len(e) >= aclEntry; e = e[aclEntry:] {
		if binary.LittleEndian.Uint16(e) == tag {
			return e[:aclEntry], true
		}
	}
	return nil, false
}

func (a acl) perm(tag uint16) uint32 {
	if e, ok := a.find(tag); ok {
		return uint32(binary.LittleEndian.Uint16(e[2:])) & 7
	}
	return 0
}

func (a acl) setPerm(tag uint16, perm uint32) {
	if e, ok := a.find(tag); ok {
		binary.LittleEndian.PutUint16(e[2:], uint16(perm&7))
	}
}

// group returns the tag that the group bits of a mode stand for.
func (a acl) group() uint16 {
	if _, ok := a.find(tagMask); ok {
		return tagMask
	}
	return tagGroup
}

// mode returns the permission bits that follow from the list.
func (a acl) mode() uint32 {
	return a.perm(tagUser)<<6 | a.perm(a.group())<<3 | a.perm(tagOther)
}

// minimal reports whether the list says no more than a mode does.
func (a acl) minimal() bool { return len(a) == aclHead+3*aclEntry }

// chmod makes the list follow a changed mode.
func (a acl) chmod(mode uint32) {
	a.setPerm(tagUser, mode>>6)
	a.setPerm(a.group(), mode>>3)
	a.setPerm(tagOther, mode)
}

// mask limits the list to the mode that something new was asked for with.
func (a acl) mask(mode uint32) {
	a.setPerm(tagUser, a.perm(tagUser)&(mode>>6))
	g := a.group()
	a.setPerm(g, a.perm(g)&(mode>>3))
	a.setPerm(tagOther, a.perm(tagOther)&mode)
}

// defaultACL returns the access list that a directory hands down, nil when it has none.
func (f *FS) defaultACL(n *node) (acl, error) {
	n.mu.RLock()
	state := n.defaultACL
	n.mu.RUnlock()
	if state == aclNone {
		return nil, nil
	}
	at, done, err := f.at(n)
	if err != nil {
		return nil, err
	}
	v, ok, err := f.format.Xattr(at, aclDefault)
	done()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.defaultACL = aclNone
	if ok && acl(v).valid() {
		n.defaultACL = aclThere
	}
	state = n.defaultACL
	n.mu.Unlock()
	if state == aclNone {
		return nil, nil
	}
	return acl(v), nil
}

// inheritACL gives something new the access list that its directory hands down.
func (b *birth) inheritACL(list acl) {
	if b.want.Mode&unix.S_IFMT == unix.S_IFDIR {
		b.inherit = append([]byte(nil), list...)
	}
	own := append(acl(nil), list...)
	own.mask(b.want.Mode)
	b.access = own
	if own.minimal() {
		b.access = nil
	}
	b.aclMode = own.mode()
	b.hostACL = true
	if b.f.format.User() {
		b.byHand()
	}
}

// byHand does what the host would do about access lists that are handed down.
func (b *birth) byHand() {
	if b.hostACL {
		b.want.Mode = b.want.Mode&^0o777 | b.aclMode
		b.want.Xattrs = b.access != nil
	}
	b.hostACL = false
}

// chmodACL makes the access list of a file that the host knows nothing of follow its
// mode.
func (f *FS) chmodACL(at upper.At, mode uint32) error {
	v, ok, err := f.format.Xattr(at, aclAccess)
	if err != nil || !ok || !acl(v).valid() {
		return err
	}
	acl(v).chmod(mode)
	return f.format.SetXattr(at, aclAccess, v, 0)
}
