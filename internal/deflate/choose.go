package deflate

import (
	"cmp"
	"slices"
)

// rounds say how a spec is chosen: all are tried with little, and the best of them with
// more.
var rounds = []struct {
	bytes int64
	keep  int
}{{96 << 10, 6}, {384 << 10, 3}, {sample, 1}}

// choose returns the spec that codes the sample best; of equals, the first.
func (a *analyzer) choose() spec {
	left := a.likelyFirst()
	for _, r := range rounds {
		left = a.best(left, r.bytes, r.keep)
		if len(left) == 1 || a.done && a.win.end() <= r.bytes {
			break
		}
	}
	return left[0]
}

// likelyFirst puts in front the specs that the member's header suggests, so that the
// others, being hopeless, need not be tried for long: Go's libraries say that they do
// not know the operating system, and the C ones that it is Unix.
func (a *analyzer) likelyFirst() []spec {
	goFirst := false
	for _, ev := range a.queue {
		if ev.kind == evMember {
			goFirst = ev.raw[9] == 255
			break
		}
	}
	out := slices.Clone(specs)
	slices.SortStableFunc(out, func(x, y spec) int {
		return cmp.Or(cmp.Compare(b2u(y.cheap), b2u(x.cheap)), cmp.Compare(b2u(x.ofGo != goFirst), b2u(y.ofGo != goFirst)))
	})
	return out
}

// best returns the specs of which the correction of the start of the stream is
// smallest.
func (a *analyzer) best(candidates []spec, bytes int64, keep int) []spec {
	type scored struct {
		spec
		cost int64
	}
	var all []scored
	least := int64(1 << 60)
	for _, s := range candidates {
		cost := a.cost(s, bytes, 2*least+hopeless)
		least = min(least, cost)
		all = append(all, scored{s, cost})
	}
	slices.SortStableFunc(all, func(x, y scored) int { return cmp.Compare(x.cost, y.cost) })
	var out []spec
	for _, s := range all[:min(keep, len(all))] {
		if s.cost <= 2*least+hopeless {
			out = append(out, s.spec)
		}
	}
	return out
}

// hopeless is how much more than twice the best a spec may cost before it is given up.
const hopeless = 128

// cost is the size of the correction of the start of the stream, or something above
// limit.
func (a *analyzer) cost(s spec, bytes, limit int64) int64 {
	c := newEncoder(nil)
	c.limit = limit
	n := newSession(c, a.win, s)
	n.stops = a.stops
	for _, ev := range a.queue {
		if !a.done && ev.start+int64(ev.size)+lookahead > a.win.end() || n.pos > bytes {
			break
		}
		if err := n.code(ev); err != nil {
			break
		}
	}
	return c.size
}
