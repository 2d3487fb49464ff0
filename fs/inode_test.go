package fs

import (
	"math/rand/v2"
	"testing"
)

func TestNodeIDs(t *testing.T) {
	for k := kindFixed; k <= kindWhiteout; k++ {
		for range 1000 {
			slot, number := rand.Uint32N(maxSlot+1), rand.Uint32()
			id := nodeID(k, slot, number)
			if gk, gs, gn := splitID(id); gk != k || gs != slot || gn != number {
				t.Fatalf("%#x: got %d %d %d, want %d %d %d", id, gk, gs, gn, k, slot, number)
			}
			if id >= 1<<61 {
				t.Fatalf("%#x is too large for overlayfs with xino", id)
			}
		}
	}
	if k, slot, _ := splitID(1<<63 | rootID); k != kindFixed || slot == 0 {
		t.Error("an ID beyond 2^61 means the root")
	}
}

func TestRepoIDsDiffer(t *testing.T) {
	taken := map[uint64]bool{}
	first := repoID("docker.io", taken)
	if repoID("docker.io", taken) != first {
		t.Error("the ID of a path depends on something else")
	}
	taken[first] = true
	if repoID("docker.io", taken) != first+1 {
		t.Error("a taken ID is given again")
	}
	if k, _, _ := splitID(first); k != kindRepo {
		t.Errorf("kind %d", k)
	}
}
