package fs

import (
	"sync/atomic"

	"github.com/layerfs/layerfs/fs/internal/wire"
)

// A walker guesses whether the programs that list directories look at the files
// in them. Attributes that come with a listing save a look-up per file, about 20 µs,
// to those who want them (ls -l, tar, du), and cost 3 µs per file in the kernel for
// those who do not (find, shells). Directories come with attributes always: whoever
// walks needs them.
//
// The guess is made for the whole mount. After a listing without attributes, a
// look-up of a file turns them on for a number of listings, which doubles each time
// that this was right. It is only ever a matter of speed.
type walker struct {
	lookups atomic.Int32 // of files, since a directory was last listed
	full    atomic.Int32 // listings that will still come with attributes
	last    atomic.Int32 // how many there were the last time
}

const (
	// leanLimit is the largest directory that is listed without attributes: being
	// wrong about a large one would cost a look-up for each of its files.
	leanLimit = 128
	fullMin   = 16
	fullMax   = 4096
)

// lookedUp is told of each look-up of a file.
func (w *walker) lookedUp() {
	if w.lookups.Load() < 2 {
		w.lookups.Add(1)
	}
}

// lean decides about the listing of a directory of n names.
func (w *walker) lean(out *wire.Dir, n int) bool {
	if !out.Plus || n > leanLimit {
		return false
	}
	if out.Offset > 0 {
		return w.full.Load() <= 0
	}
	if w.lookups.Swap(0) > 0 {
		next := min(max(2*w.last.Load(), fullMin), fullMax)
		w.last.Store(next)
		w.full.Store(next)
	}
	if w.full.Load() <= 0 {
		return true
	}
	w.full.Add(-1)
	return false
}
