// Package idmap reads maps of user and group IDs as users write them.
package idmap

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ErrInvalid is returned for what is no map.
var ErrInvalid = errors.New("invalid map of IDs")

// A Range maps Count IDs of a container from Inside on to those of the host from
// Outside on.
type Range struct{ Inside, Outside, Count uint32 }

// Parse reads CONTAINER:HOST:COUNT[,...]. Neither the IDs of the container nor those
// of the host may be in two ranges, so that a map can be undone.
func Parse(text string) ([]Range, error) {
	var m []Range
	for part := range strings.SplitSeq(text, ",") {
		r, err := parseRange(part)
		if err != nil {
			return nil, fmt.Errorf("%w: %w; want CONTAINER:HOST:COUNT[,...]", ErrInvalid, err)
		}
		for _, other := range m {
			if overlap(r.Inside, other.Inside, r.Count, other.Count) || overlap(r.Outside, other.Outside, r.Count, other.Count) {
				return nil, fmt.Errorf("%w: %q overlaps another range", ErrInvalid, part)
			}
		}
		m = append(m, r)
	}
	return m, nil
}

func parseRange(text string) (Range, error) {
	f := strings.Split(text, ":")
	if len(f) != 3 {
		return Range{}, fmt.Errorf("%q has not three numbers", text)
	}
	var n [3]uint64
	for i := range n {
		v, err := strconv.ParseUint(f[i], 10, 32)
		if err != nil {
			return Range{}, fmt.Errorf("%q is no ID", f[i])
		}
		n[i] = v
	}
	if n[2] == 0 || n[0]+n[2] > math.MaxUint32 || n[1]+n[2] > math.MaxUint32 {
		return Range{}, fmt.Errorf("%q is empty or goes beyond the largest ID", text)
	}
	return Range{uint32(n[0]), uint32(n[1]), uint32(n[2])}, nil
}

func overlap(a, b, countA, countB uint32) bool {
	return uint64(a) < uint64(b)+uint64(countB) && uint64(b) < uint64(a)+uint64(countA)
}
