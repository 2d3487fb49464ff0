package fs

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"

	subid "github.com/moby/sys/user"

	"github.com/layerfs/layerfs/internal/idmap"
)

// overflowID is what an ID that has no place in a map becomes, as in the kernel.
const overflowID = 65534

// subID files, in which administrators grant ranges of IDs to users.
const (
	subUIDFile = "/etc/subuid"
	subGIDFile = "/etc/subgid"
)

// idRange maps count IDs of the image from inside on to the host's from outside on.
type idRange struct{ inside, outside, count uint32 }

// owners shifts the owners of the files of images; what layerfs itself adds to the tree belongs to the server.
type owners struct {
	text       string // the option that it came from
	explicit   bool   // somebody has asked for it
	squash     bool   // everything belongs to uid and gid
	uid, gid   uint32
	uids, gids []idRange // nil: unchanged
}

// shift returns the owner to show for one of the image's.
func (o *owners) shift(uid, gid uint32) (uint32, uint32) {
	if o.squash {
		return o.uid, o.gid
	}
	return shiftID(o.uids, uid), shiftID(o.gids, gid)
}

// unshift undoes shift: it returns the owner in the image for one that is shown.
func (o *owners) unshift(uid, gid uint32) (uint32, uint32) {
	if o.squash {
		return squashed(uid, o.uid), squashed(gid, o.gid)
	}
	return unshiftID(o.uids, uid), unshiftID(o.gids, gid)
}

// squashed returns what the one owner that is shown means: root.
func squashed(id, own uint32) uint32 {
	if id == own {
		return 0
	}
	return overflowID
}

func unshiftID(m []idRange, id uint32) uint32 {
	if m == nil {
		return id
	}
	for _, r := range m {
		if id-r.outside < r.count {
			return r.inside + (id - r.outside)
		}
	}
	return overflowID
}

func shiftID(m []idRange, id uint32) uint32 {
	if m == nil {
		return id
	}
	for _, r := range m {
		if id-r.inside < r.count { // below inside this wraps around and is large
			return r.outside + (id - r.inside)
		}
	}
	return overflowID
}

// parseOwners understands the option idmap: "none", "squash", "auto", a list C:H:N[,C:H:N...], or nothing for the
// default: none for root, auto for an ordinary user.
func parseOwners(text string, uid, gid int) (owners, error) {
	switch text {
	case "":
		if uid == 0 {
			return parseOwners("none", uid, gid)
		}
		return parseOwners("auto", uid, gid)
	case "none":
		return owners{text: text}, nil
	case "squash":
		return owners{text: text, squash: true, uid: uint32(uid), gid: uint32(gid)}, nil
	case "auto":
		return autoOwners(uid, gid)
	}
	m, err := parseRanges(text)
	if err != nil {
		return owners{}, fmt.Errorf("%w idmap=%s: %w, auto, none or squash", ErrOption, text, err)
	}
	return owners{text: text, uids: m, gids: m}, nil
}

// parseMaps understands the options uidmap and gidmap; one that is not given is as the other.
func parseMaps(uidmap, gidmap string) (owners, error) {
	if uidmap == "" {
		uidmap = gidmap
	}
	if gidmap == "" {
		gidmap = uidmap
	}
	o := owners{text: "uidmap=" + uidmap + " gidmap=" + gidmap}
	for _, m := range []struct {
		name, text string
		into       *[]idRange
	}{{"uidmap", uidmap, &o.uids}, {"gidmap", gidmap, &o.gids}} {
		ranges, err := parseRanges(m.text)
		if err != nil {
			return owners{}, fmt.Errorf("%w %s=%s: %w", ErrOption, m.name, m.text, err)
		}
		*m.into = ranges
	}
	return o, nil
}

// parseRanges reads CONTAINER:HOST:COUNT[,...].
func parseRanges(text string) ([]idRange, error) {
	list, err := idmap.Parse(text)
	if err != nil {
		return nil, err
	}
	m := make([]idRange, len(list))
	for i, r := range list {
		m[i] = idRange{r.Inside, r.Outside, r.Count}
	}
	return m, nil
}

// autoOwners maps as rootless containers do: 0 is the user, the rest lies in the subordinate ranges. A user without
// such ranges gets everything squashed.
func autoOwners(uid, gid int) (owners, error) {
	uids, err := subRanges(subUIDFile, uid, uid)
	if err != nil {
		return owners{}, err
	}
	gids, err := subRanges(subGIDFile, uid, gid)
	if err != nil {
		return owners{}, err
	}
	if len(uids) < 2 || len(gids) < 2 {
		o, err := parseOwners("squash", uid, gid)
		o.text = "auto (squash: no subordinate IDs)"
		return o, err
	}
	return owners{text: "auto", uids: uids, gids: gids}, nil
}

// subRanges returns the map for the user uid from a file in which users have names or numbers: self for 0, then the
// ranges back to back.
func subRanges(file string, uid, self int) ([]idRange, error) {
	number := strconv.Itoa(uid)
	name := number
	if u, err := user.LookupId(number); err == nil {
		name = u.Username
	}
	granted, err := subid.ParseSubIDFileFilter(file, func(s subid.SubID) bool { return s.Name == name || s.Name == number })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	m := []idRange{{0, uint32(self), 1}}
	next := uint64(1)
	for _, s := range granted {
		if s.SubID < 0 || s.Count <= 0 || s.SubID+s.Count > 1<<32-1 || next+uint64(s.Count) > 1<<32-1 {
			continue // not a range of IDs
		}
		m = append(m, idRange{uint32(next), uint32(s.SubID), uint32(s.Count)})
		next += uint64(s.Count)
	}
	return m, nil
}
