package faultfs

import (
	"math/rand/v2"
	"slices"
)

// A Model says what a file system promises about changes that nobody has synced.
type Model string

const (
	// Strict is what POSIX promises and no more: fsync of a file makes its content
	// and attributes durable, and none of its names; fsync of a directory makes the names
	// in it durable, and nothing of what they lead to. What is not synced may be lost in
	// any order, but for the changes of one directory, and for the attributes of one file.
	// A rename is whole: it never loses both names.
	Strict Model = "strict"
	// Journal is what ext4, xfs and btrfs do: changes of names and attributes become
	// durable in the order in which they were made, and a sync of one file or directory
	// makes all those durable that came before its own last change. Contents are durable
	// when they were synced, and else in any order.
	Journal Model = "journal"
)

// A Log is a state and the operations that followed on it.
type Log struct {
	Base *State
	Ops  []*Op
}

// tornUnit is what a disk writes whole.
const tornUnit = 512

// Crash returns what is on the disk when the power fails after the first at
// operations. Without a source of randomness that is what was synced and nothing more;
// with one, random parts of the rest are there too.
func (l *Log) Crash(at int, m Model, r *rand.Rand) *State {
	ops := l.Ops[:at]
	var keep []bool
	if m == Strict {
		keep = keepStrict(ops, r)
	} else {
		keep = keepJournal(ops, r)
	}
	s := l.Base.Clone()
	for _, o := range ops { // files that only a later change gives a name
		if o.made != nil {
			(&Op{ino: o.ino, made: o.made, Kind: Tmpfile}).apply(s)
		}
		if o.left != nil {
			(&Op{ino: o.left.ino, made: o.left, Kind: Tmpfile}).apply(s)
		}
	}
	for i, o := range ops {
		switch {
		case !o.Changes():
		case keep[i]:
			o.apply(s)
		case o.Kind == Write && r != nil:
			tear(o, s, r)
		}
	}
	s.settle()
	return s
}

// Whole returns the state after the first at operations, as a killed program leaves it.
func (l *Log) Whole(at int) *State {
	s := l.Base.Clone()
	for _, o := range l.Ops[:at] {
		if o.Changes() {
			o.apply(s)
		}
	}
	s.settle()
	return s
}

// tear writes some sectors of a write that was not synced.
func tear(o *Op, s *State, r *rand.Rand) {
	if r.IntN(3) == 0 {
		return
	}
	whole := r.IntN(2) == 0
	for at := 0; at < len(o.data); at += tornUnit {
		if whole || r.IntN(2) == 0 {
			part := o.data[at:min(at+tornUnit, len(o.data))]
			(&Op{Kind: Write, ino: o.ino, data: part, off: o.off + int64(at)}).apply(s)
		}
	}
}

// content reports whether the operation changes the content of a file by other means
// than its size.
func (o *Op) content() bool { return o.Kind == Write || o.Kind == Punch }

// keepStrict says which operations are durable, or happen to be on the disk.
func keepStrict(ops []*Op, r *rand.Rand) []bool {
	keep := make([]bool, len(ops))
	for i, o := range ops {
		if !o.syncs() {
			continue
		}
		for j, p := range ops[:i] {
			switch {
			case keep[j] || !p.Changes():
			case p.names() && (p.dir == o.ino || p.dir2 == o.ino):
				keep[j] = true
			case !p.names() && p.ino == o.ino && (o.Kind == Fsync || p.content() || p.Kind == Truncate):
				keep[j] = true
			}
		}
	}
	if r != nil {
		keepSome(ops, keep, r)
	}
	// A change of a name needs those before it that led the file there.
	needed := map[uint64]bool{}
	for i, o := range slices.Backward(ops) {
		if o.names() {
			keep[i] = keep[i] || needed[o.ino] || o.Kind == Exchange && needed[o.other]
			needed[o.ino] = needed[o.ino] || keep[i]
			if o.Kind == Exchange {
				needed[o.other] = needed[o.other] || keep[i]
			}
		}
	}
	return keep
}

// keepSome keeps a part of what was not synced: of each directory and of the
// attributes of each file what came first.
func keepSome(ops []*Op, keep []bool, r *rand.Rand) {
	cut := map[uint64]int{}
	upTo := func(ino uint64) int {
		if _, ok := cut[ino]; !ok {
			switch r.IntN(3) {
			case 0:
				cut[ino] = 0
			case 1:
				cut[ino] = len(ops)
			default:
				cut[ino] = r.IntN(len(ops) + 1)
			}
		}
		return cut[ino]
	}
	for i, o := range ops {
		switch {
		case keep[i] || !o.Changes() || o.Kind == Write:
		case o.names():
			keep[i] = i < upTo(o.dir) && (o.dir2 == 0 || i < upTo(o.dir2))
		default:
			keep[i] = i < upTo(o.ino)
		}
	}
}

// keepJournal says which operations are durable, or happen to be on the disk.
func keepJournal(ops []*Op, r *rand.Rand) []bool {
	keep := make([]bool, len(ops))
	committed := 0 // names and attributes are durable up to here
	last := map[uint64]int{}
	for i, o := range ops {
		if !o.syncs() {
			for _, ino := range []uint64{o.ino, o.dir, o.dir2, o.other} {
				if o.Changes() && ino != 0 {
					last[ino] = i + 1
				}
			}
			continue
		}
		committed = max(committed, last[o.ino])
		for j, p := range ops[:i] {
			if p.content() && p.ino == o.ino {
				keep[j] = true
			}
		}
	}
	if r != nil {
		committed += r.IntN(len(ops) - committed + 1)
	}
	for i, o := range ops[:committed] {
		if o.Changes() && o.Kind != Write {
			keep[i] = true
		}
	}
	return keep
}
