package tarsplit

import (
	"bytes"
	"encoding/base64"
	"math"
	"net/url"
	"slices"
	"strconv"
)

// maxMeta bounds one extension header and one sparse map, as in archive/tar and
// libarchive.
const maxMeta = 1 << 20

const (
	schilyXattr     = "SCHILY.xattr."
	libarchiveXattr = "LIBARCHIVE.xattr."
)

// paxRecords are the records of one PAX header that matter here; a later record
// replaces an earlier one of the same key. Empty and absent are the same, except
// for xattrs. The slices alias the header's data.
type paxRecords struct {
	path, linkpath, uid, gid, size, mtime, atime, ctime []byte

	sparseMajor, sparseMinor, sparseName, sparseSize, sparseRealSize, sparseBlocks, sparseMap []byte

	xattrs []paxXattr

	// Format 0.0 repeats two keys for each extent; pairs collects the values in
	// the form of the map of format 0.1: "offset,length,offset,length".
	pairs  []byte
	npairs int
}

type paxXattr struct{ key, value []byte }

func (p *paxRecords) reset() {
	*p = paxRecords{xattrs: p.xattrs[:0], pairs: p.pairs[:0]}
}

// parse reads all records of a header and reports what is wrong, or "".
func (p *paxRecords) parse(data []byte) (bad string) {
	p.reset()
	for len(data) > 0 {
		key, value, rest, ok := cutRecord(data)
		if !ok {
			return "a PAX record is malformed"
		}
		if !p.set(key, value) {
			return "the PAX record " + quoteShort(key) + " is invalid"
		}
		data = rest
	}
	if p.npairs > 0 {
		p.sparseMap = p.pairs
	}
	return ""
}

// cutRecord cuts "LENGTH KEY=VALUE\n" from data; the length counts itself.
func cutRecord(data []byte) (key, value, rest []byte, ok bool) {
	digits, after, found := bytes.Cut(data, []byte(" "))
	n, isNumber := decimal(digits)
	if !found || !isNumber || n < 5 || n > int64(len(data)) {
		return nil, nil, nil, false
	}
	n -= int64(len(digits) + 1)
	if n <= 0 || after[n-1] != '\n' {
		return nil, nil, nil, false
	}
	key, value, found = bytes.Cut(after[:n-1], []byte("="))
	return key, value, after[n:], found && len(key) > 0
}

// set takes one record and reports whether it is valid: the strings of a member
// hold no NUL, nor does any other key.
func (p *paxRecords) set(key, value []byte) bool {
	switch string(key) {
	case "path":
		p.path = value
		return bytes.IndexByte(value, 0) < 0
	case "linkpath":
		p.linkpath = value
		return bytes.IndexByte(value, 0) < 0
	case "uname", "gname":
		return bytes.IndexByte(value, 0) < 0
	case "uid":
		p.uid = value
	case "gid":
		p.gid = value
	case "size":
		p.size = value
	case "mtime":
		p.mtime = value
	case "atime":
		p.atime = value
	case "ctime":
		p.ctime = value
	default:
		return bytes.IndexByte(key, 0) < 0 && p.setExtension(key, value)
	}
	return true
}

func (p *paxRecords) setExtension(key, value []byte) bool {
	switch string(key) {
	case "GNU.sparse.major":
		p.sparseMajor = value
	case "GNU.sparse.minor":
		p.sparseMinor = value
	case "GNU.sparse.name":
		p.sparseName = value
	case "GNU.sparse.size":
		p.sparseSize = value
	case "GNU.sparse.realsize":
		p.sparseRealSize = value
	case "GNU.sparse.numblocks":
		p.sparseBlocks = value
	case "GNU.sparse.map":
		p.sparseMap = value
	case "GNU.sparse.offset":
		return p.addPair(value, 0)
	case "GNU.sparse.numbytes":
		return p.addPair(value, 1)
	default:
		if bytes.HasPrefix(key, []byte(schilyXattr)) || bytes.HasPrefix(key, []byte(libarchiveXattr)) {
			p.xattrs = append(p.xattrs, paxXattr{key, value})
		}
	}
	return true
}

// addPair appends an offset (odd 0) or a length (odd 1), which must alternate.
func (p *paxRecords) addPair(value []byte, odd int) bool {
	if p.npairs%2 != odd || bytes.IndexByte(value, ',') >= 0 {
		return false
	}
	if p.npairs > 0 {
		p.pairs = append(p.pairs, ',')
	}
	p.pairs = append(p.pairs, value...)
	p.npairs++
	return true
}

// apply replaces fields of h by the records that are there and not empty, and
// reports what is wrong, or "". Names are for the caller.
func (p *paxRecords) apply(h *Header) (bad string) {
	numbers := [...]struct {
		key   string
		value []byte
		field *int64
	}{{"uid", p.uid, &h.UID}, {"gid", p.gid, &h.GID}, {"size", p.size, &h.Size}}
	for i := range numbers {
		if len(numbers[i].value) == 0 {
			continue
		}
		v, ok := decimal(numbers[i].value)
		if !ok {
			return "the PAX record \"" + numbers[i].key + "\" is no number"
		}
		*numbers[i].field = v
	}
	for _, t := range [...][]byte{p.atime, p.ctime} {
		if _, _, ok := paxTime(t); len(t) > 0 && !ok {
			return "a PAX time is invalid"
		}
	}
	if len(p.mtime) > 0 {
		var ok bool
		if h.MtimeSec, h.MtimeNsec, ok = paxTime(p.mtime); !ok {
			return "the PAX record \"mtime\" is no time"
		}
	}
	return ""
}

// decimal reads a number as strconv.ParseInt(b, 10, 64) does, without garbage.
func decimal(b []byte) (int64, bool) {
	negative := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	limit := uint64(math.MaxInt64)
	if negative {
		limit++
	}
	var x uint64
	for _, c := range b {
		if c < '0' || c > '9' || x > limit/10 {
			return 0, false
		}
		x = x*10 + uint64(c-'0')
		if x > limit {
			return 0, false
		}
	}
	if negative {
		return -int64(x), true
	}
	return int64(x), true
}

// paxTime reads "seconds.fraction"; digits after the ninth are dropped.
func paxTime(b []byte) (sec int64, nsec int32, ok bool) {
	whole, fraction, _ := bytes.Cut(b, []byte("."))
	sec, ok = decimal(whole)
	if !ok {
		return 0, 0, false
	}
	unit := int32(1e9)
	for _, c := range fraction {
		if c < '0' || c > '9' {
			return 0, 0, false
		}
		unit /= 10
		nsec += int32(c-'0') * unit
	}
	if whole[0] == '-' && nsec > 0 {
		sec--
		nsec = 1e9 - nsec
	}
	return sec, nsec, true
}

// decodeXattrs returns the attributes of the records, each name once.
func (p *paxRecords) decodeXattrs() []Xattr {
	if len(p.xattrs) == 0 {
		return nil
	}
	out := make([]Xattr, 0, len(p.xattrs))
	schily := make([]bool, 0, len(p.xattrs)) // for each of out
	find := xattrFinder(len(p.xattrs))
	for _, r := range p.xattrs {
		x, isSchily, ok := r.decode()
		if !ok {
			continue
		}
		i := find(out, x.Name)
		switch {
		case i == len(out):
			out, schily = append(out, x), append(schily, isSchily)
		case isSchily || !schily[i]:
			out[i], schily[i] = x, isSchily
		}
	}
	return out
}

// xattrFinder returns a function that finds the place of a name in the list that
// grows from call to call, or its length. Only a hostile member has many names.
func xattrFinder(n int) func([]Xattr, string) int {
	const few = 16
	if n <= few {
		return func(list []Xattr, name string) int {
			i := slices.IndexFunc(list, func(x Xattr) bool { return x.Name == name })
			if i < 0 {
				return len(list)
			}
			return i
		}
	}
	places := make(map[string]int, n)
	return func(list []Xattr, name string) int {
		i, known := places[name]
		if !known {
			i = len(list)
			places[name] = i
		}
		return i
	}
}

func (r *paxXattr) decode() (x Xattr, isSchily, ok bool) {
	if name, found := bytes.CutPrefix(r.key, []byte(schilyXattr)); found {
		return Xattr{Name: string(name), Value: bytes.Clone(r.value)}, true, true
	}
	name, err := url.PathUnescape(string(r.key[len(libarchiveXattr):]))
	if err != nil {
		return Xattr{}, false, false
	}
	// libarchive writes base64 without padding, others with it.
	value, err := base64.RawStdEncoding.DecodeString(string(bytes.TrimRight(r.value, "=")))
	return Xattr{Name: name, Value: value}, false, err == nil
}

// quoteShort quotes the start of a hostile string for an error message.
func quoteShort(b []byte) string {
	const most = 40
	if len(b) > most {
		return strconv.Quote(string(b[:most])) + "..."
	}
	return strconv.Quote(string(b))
}
