package faulttest_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/layerfs/layerfs/internal/faultfs"
)

// TestPowerLoss lets the power fail at any moment of every action, on file systems
// that keep no more than what was synced, and on such that keep random parts of the
// rest. The store is old or new and sound; new, when the action had said that it is done.
func TestPowerLoss(t *testing.T) {
	eachAction(t, func(o *outcome) {
		r := random(o.t)
		log := o.record()
		tried := 0
		for _, m := range []faultfs.Model{faultfs.Strict, faultfs.Journal} {
			for _, n := range append(choose(r, len(log.Ops), places(1)), len(log.Ops)+1) {
				if done := n > len(log.Ops); done || long() {
					o.lose(log, n-1, m, nil)
					tried++
				}
				if done := n > len(log.Ops); !done || long() {
					o.lose(log, n-1, m, rand.New(rand.NewPCG(r.Uint64(), 0)))
					tried++
				}
			}
		}
		o.t.Logf("%d changes and syncs, %d power failures", len(log.Ops), tried)
	})
}

// record does the action and returns what reached the disk.
func (o *outcome) record() (log *faultfs.Log) {
	o.t.Helper()
	o.with(o.before(o.a), func(f *faultfs.FS) {
		f.Record()
		o.do(o.a.name)
		log = f.Log()
	})
	return log
}

// lose does what is to be done when the power fails after the first n operations.
func (o *outcome) lose(log *faultfs.Log, n int, m faultfs.Model, r *rand.Rand) {
	o.t.Helper()
	last := "the end"
	if n < len(log.Ops) {
		last = log.Ops[n].String()
	}
	when := fmt.Sprintf("power lost before operation %d of %d, %s, %s", n+1, len(log.Ops), last, m)
	if r != nil {
		when += " with some of the rest"
	}
	o.boot = when // every power failure has a boot behind it
	o.with(log.Crash(n, m, r), func(f *faultfs.FS) { o.judge(when, n < len(log.Ops), f) })
	o.boot = ""
}
