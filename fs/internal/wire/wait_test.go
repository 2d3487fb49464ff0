package wire

import (
	"testing"
	"time"
)

// TestPace follows how long a worker looks for the next request before it sleeps.
func TestPace(t *testing.T) {
	var p pace
	watch := func() time.Duration { return time.Duration(p.watch.Load()) }
	come := func(after time.Duration, times int) {
		for range times {
			p.came(after, watch())
		}
	}
	come(time.Second, 3)
	if watch() != 0 {
		t.Errorf("after rare requests it looks for %v", watch())
	}
	come(50*time.Microsecond, 10)
	if w := watch(); w < 50*time.Microsecond || w > watchMax {
		t.Errorf("after one request each 50µs it looks for %v", w)
	}
	come(5*time.Microsecond, 10)
	if watch() == 0 {
		t.Error("it sleeps between requests each 5µs")
	}
	come(10*time.Millisecond, 5)
	if watch() != 0 {
		t.Errorf("when they have become rare it looks for %v", watch())
	}
	if p.took(0, slow); p.slow(slow + 1) {
		t.Error("slow after a fast request")
	}
	p.took(0, slow+1)
	if !p.slow(slow + 2) {
		t.Error("not slow after a slow request")
	}
	if p.slow(slow + slowFor + 2) {
		t.Error("slow for ever")
	}
}
