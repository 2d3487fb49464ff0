package upper

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"

	subid "github.com/moby/sys/user"
)

// Owners are the IDs of the host that the files of a store's uppers may have.
type Owners struct {
	UID, GID   uint32  // of whom the store belongs to
	UIDs, GIDs []Range // subordinate IDs, which are 1 and up inside
	// Namespace: root of a user namespace, who sees the IDs as a container does but has
	// no more rights on the host than the user who made it.
	Namespace bool
}

// A Range is a range of subordinate IDs.
type Range struct{ First, Count uint32 }

// overflowID is what an ID without a meaning inside becomes, as in the kernel.
const overflowID = 65534

// Self returns the owners for stores of the user that this process runs as.
func Self() (Owners, error) {
	o := Owners{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if o.UID == 0 {
		var err error
		o.Namespace, err = inNamespace()
		return o, err
	}
	var err error
	if o.UIDs, err = granted("/etc/subuid", o.UID); err != nil {
		return o, err
	}
	o.GIDs, err = granted("/etc/subgid", o.UID)
	return o, err
}

// inNamespace reports whether this process is in a user namespace: outside all IDs
// stand for themselves (user_namespaces(7)).
func inNamespace() (bool, error) {
	text, err := os.ReadFile("/proc/self/uid_map")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.Join(strings.Fields(string(text)), " ") != "0 0 4294967295", err
}

// granted returns the ranges of a user in a file where users have names or numbers.
func granted(file string, uid uint32) ([]Range, error) {
	number := strconv.FormatUint(uint64(uid), 10)
	name := number
	if u, err := user.LookupId(number); err == nil {
		name = u.Username
	}
	ids, err := subid.ParseSubIDFileFilter(file, func(s subid.SubID) bool { return s.Name == name || s.Name == number })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []Range
	for _, s := range ids {
		if s.SubID >= 0 && s.Count > 0 && s.SubID+s.Count < 1<<32 {
			out = append(out, Range{uint32(s.SubID), uint32(s.Count)})
		}
	}
	return out, nil
}

// inside returns the owner in the container of a file without an override.
func (o *Owners) inside(uid, gid uint32) (uint32, uint32) {
	if o.UID == 0 {
		return uid, gid
	}
	return insideID(uid, o.UID, o.UIDs), insideID(gid, o.GID, o.GIDs)
}

func insideID(id, own uint32, ranges []Range) uint32 {
	if id == own {
		return 0
	}
	next := uint32(1)
	for _, r := range ranges {
		if id-r.First < r.Count { // below First this wraps around and is large
			return next + id - r.First
		}
		next += r.Count
	}
	return overflowID
}
