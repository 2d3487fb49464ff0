package mounttest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/strace"
	"github.com/layerfs/layerfs/internal/testenv"
)

// TestCallsOfLoad counts what load asks the kernel for one more small file. A file costs
// its part of what is done for many at once: a write to the pack, a read of the archive,
// a transaction of the index for some hundred. One call more for each file fails here.
func TestCallsOfLoad(t *testing.T) {
	testenv.Require(t, "strace")
	const few, many, limit = 500, 3500, 0.5
	var sums [2]int
	var counts [2]map[string]int
	for i, n := range []int{few, many} {
		tarball := newTar()
		for f := range n {
			tarball.file(fmt.Sprintf("srv/d%02d/f%04d", f/50, f), strings.Repeat(fmt.Sprintln("line", f), 10+f%20))
		}
		s := newStore(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var err error
		counts[i], err = strace.Count(ctx, s.command(ctx, "load", "-q", "-i", archiveOf(t, tarball)))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = strace.Sum(counts[i])
	}
	each := float64(sums[1]-sums[0]) / (many - few)
	t.Logf("%d system calls for %d files, %d for %d: %.3f for each more", sums[0], few, sums[1], many, each)
	if each > limit || sums[1] <= sums[0] {
		t.Errorf("%.3f system calls for each more file, want at most %v: %v for %d files, %v for %d", each, limit, counts[0], few, counts[1], many)
	}
}
