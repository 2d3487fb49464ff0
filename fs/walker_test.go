package fs

import (
	"testing"

	"github.com/layerfs/layerfs/fs/internal/wire"
)

// TestWalker wants listings with attributes for those who look at files, and without for those who do not.
func TestWalker(t *testing.T) {
	begin := wire.NewDir(nil, 0, true)
	var w walker
	lean := 0
	for range 1000 { // ls -lR: a listing, then a look-up of each file that came without attributes
		if w.lean(begin, 20) {
			lean++
			for range 20 {
				w.lookedUp()
			}
		}
	}
	if lean > 20 {
		t.Errorf("ls -lR: %d of 1000 listings without attributes", lean)
	}
	w = walker{}
	lean = 0
	for range 1000 { // find
		if w.lean(begin, 20) {
			lean++
		}
	}
	if lean < 900 {
		t.Errorf("find: only %d of 1000 listings without attributes", lean)
	}
	if w.lean(begin, 100_000) {
		t.Error("a large directory is listed without attributes")
	}
}
