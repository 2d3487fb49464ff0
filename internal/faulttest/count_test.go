package faulttest_test

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/faultfs"
	"github.com/layerfs/layerfs/internal/testenv"
)

// A bench is a place to try actions at: stores that begin with the same content.
type bench struct {
	t        *testing.T
	w        *worker
	mnt      string
	registry string
	boot     string
}

// states are stores by the actions that made them.
var states = struct {
	sync.Mutex
	by map[string]*faultfs.State
}{by: map[string]*faultfs.State{}}

func newBench(t *testing.T) *bench {
	t.Helper()
	testenv.Require(t, "fuse", "root")
	return &bench{t: t, w: newWorker(t), mnt: testenv.Mountpoint(t, nil), registry: serveRegistry(t, newImage(baseTar(), newTar()))}
}

// with mounts a file system and calls fn with it.
func (b *bench) with(s *faultfs.State, fn func(f *faultfs.FS)) {
	b.t.Helper()
	f := faultfs.New(s)
	m, err := f.Mount(b.mnt)
	must(b.t, err)
	defer func() {
		f.SetHook(nil)
		if err := m.Unmount(); err != nil {
			b.t.Errorf("unmount: %v", err)
			testenv.Detach(b.mnt)
		}
	}()
	fn(f)
}

// ask performs an action in the store.
func (b *bench) ask(do string) *answer {
	b.t.Helper()
	return b.w.ask(request{Root: b.mnt + "/store", Do: do, Arg: b.registry, Boot: b.boot})
}

// do performs what has to succeed.
func (b *bench) do(what string) {
	b.t.Helper()
	if a := b.ask(what); a == nil || a.Err != "" {
		b.t.Fatalf("%s: %+v", what, a)
	}
}

// look checks the store, collects, and returns what the store shows.
func (b *bench) look(when string) (picture []string) {
	b.t.Helper()
	a := b.ask("look")
	if a == nil || a.Err != "" {
		b.t.Errorf("%s: %+v", when, a)
		return nil
	}
	for _, l := range a.Lines {
		if problem, ok := strings.CutPrefix(l, "! "); ok {
			b.t.Errorf("%s: check: %s", when, problem)
		} else {
			picture = append(picture, l)
		}
	}
	return picture
}

// before returns a store as it is before an action.
func (b *bench) before(a *action) *faultfs.State {
	b.t.Helper()
	if a.fresh {
		return faultfs.NewState(0, 0)
	}
	states.Lock()
	defer states.Unlock()
	return b.made(append(slices.Clone(common), a.setup...)).Clone()
}

// made returns the store that some actions make. Preconditions: states is locked.
func (b *bench) made(steps []string) *faultfs.State {
	if len(steps) == 0 {
		return faultfs.NewState(0, 0)
	}
	key := strings.Join(steps, ",")
	if states.by[key] == nil {
		last := len(steps) - 1
		b.with(b.made(steps[:last]).Clone(), func(f *faultfs.FS) {
			b.do(steps[last])
			states.by[key] = f.State()
		})
	}
	return states.by[key]
}

// An outcome is what an action makes of a store when nothing goes wrong.
type outcome struct {
	*bench
	a        *action
	old, new []string // pictures
	oldFiles []string // after a collection
	newFiles []string
	ops      int // that the action does
}

func (b *bench) outcome(a *action) *outcome {
	b.t.Helper()
	o := &outcome{bench: b, a: a}
	b.with(b.before(a), func(f *faultfs.FS) {
		if !a.damaged {
			o.old, o.oldFiles = b.look("before"), files(f.State())
		}
	})
	b.with(b.before(a), func(f *faultfs.FS) {
		f.SetHook(func(*faultfs.Op) error { o.ops++; return nil })
		b.do(a.name)
		f.SetHook(nil)
		o.new, o.newFiles = b.look("after "+a.name), files(f.State())
	})
	if !a.same && !a.damaged && slices.Equal(o.old, o.new) {
		b.t.Fatalf("%s changes nothing", a.name)
	}
	return o
}

// eachAction runs a test for some actions, or for all, on benches of their own.
func eachAction(t *testing.T, test func(o *outcome)) {
	testenv.Require(t, "fuse", "root")
	for _, i := range some(t, len(actions)) {
		t.Run(actions[i].name, func(t *testing.T) {
			t.Parallel()
			test(newBench(t).outcome(&actions[i]))
		})
	}
}

var packName = regexp.MustCompile(`[0-9a-f]{16}`)

// files lists what a store holds, but for what differs from one time to the next.
func files(s *faultfs.State) []string { return plain(s.Files()) }

func plain(paths []string) []string {
	var list []string
	for _, p := range paths {
		p = strings.TrimPrefix(p, "/store/")
		base := path.Base(p)
		switch {
		case strings.HasPrefix(p, "index.") && !strings.Contains(p, "tmp"), strings.HasSuffix(p, ".lock"), strings.HasSuffix(p, "/writer"),
			strings.HasPrefix(p, "quarantine/"):
		case strings.HasPrefix(p, "packs/"):
			list = append(list, "packs/"+packName.ReplaceAllString(base, "…"))
		default:
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// A trouble is a way in which things go wrong at the n-th operation.
type trouble struct {
	name string
	err  unix.Errno
	// sticky: all later ones that it can befall go wrong too.
	sticky bool
	short  bool
	befall func(o *faultfs.Op) bool
	kill   bool
}

// needsSpace tells the operations that a full disk refuses.
func needsSpace(o *faultfs.Op) bool {
	switch o.Kind {
	case faultfs.Create, faultfs.Tmpfile, faultfs.Link, faultfs.Write, faultfs.Setxattr, faultfs.Fsync, faultfs.Datasync:
		return true
	}
	return false
}

func changesOrSyncs(o *faultfs.Op) bool {
	return o.Changes() || o.Kind == faultfs.Fsync || o.Kind == faultfs.Datasync
}

var troubles = []trouble{
	{name: "one error", err: unix.EIO},
	{name: "full disk", err: unix.ENOSPC, sticky: true, short: true, befall: needsSpace},
	{name: "dead disk", err: unix.EIO, sticky: true, befall: changesOrSyncs},
	{name: "read-only disk", err: unix.EROFS, sticky: true, befall: changesOrSyncs},
	{name: "kill", err: unix.EINTR, sticky: true, kill: true},
}

// hook makes the n-th operation fail, and says in what which it was.
func (tr *trouble) hook(n int, what *string, kill func()) func(*faultfs.Op) error {
	count := 0
	return func(o *faultfs.Op) error {
		count++
		if count < n || count > n && !tr.sticky || tr.befall != nil && !tr.befall(o) {
			return nil
		}
		if *what == "" {
			*what = o.String()
			if tr.kill {
				kill()
			}
			if tr.short && o.Kind == faultfs.Write {
				return fmt.Errorf("%w: %w", faultfs.ErrShort, tr.err)
			}
		}
		return tr.err
	}
}

// TestFaultsByCount lets the first, the second, the third … operation on the disk go
// wrong, for every action and in several ways. After each the store is old or new, sound,
// and can be used; a collection leaves nothing behind.
func TestFaultsByCount(t *testing.T) {
	eachAction(t, func(o *outcome) {
		r := random(o.t)
		tried := 0
		for j := range troubles {
			for _, n := range choose(r, o.ops, places(1)) {
				o.try(&troubles[j], n)
				tried++
			}
		}
		o.t.Logf("%d operations, %d faults", o.ops, tried)
	})
}

// try does the action with trouble at the n-th operation.
func (o *outcome) try(tr *trouble, n int) {
	o.t.Helper()
	o.with(o.before(o.a), func(f *faultfs.FS) {
		what := ""
		f.SetHook(tr.hook(n, &what, o.w.kill))
		a := o.ask(o.a.name)
		f.SetHook(nil)
		if what == "" && a == nil {
			o.t.Errorf("%s: the worker died", o.a.name)
		}
		if what == "" {
			return // other threads have done less than last time
		}
		when := fmt.Sprintf("%s at operation %d of %d, %s", tr.name, n, o.ops, what)
		failed := a == nil || a.Err != ""
		if a != nil && failed && !a.is(tr.err) {
			o.t.Errorf("%s: the error is another: %s", when, a.Err)
		}
		o.judge(when, failed, f)
	})
}

// judge looks at a store after trouble, does the action again and looks once more.
func (o *outcome) judge(when string, mayBeOld bool, f *faultfs.FS) {
	o.t.Helper()
	wasNew := false
	if !o.a.damaged {
		wasNew = o.oldOrNew(when, mayBeOld, f)
	}
	if a := o.ask(o.a.name); a.Err != "" && !wasNew {
		o.t.Errorf("%s: the next time: %s", when, a.Err)
	}
	o.oldOrNew(when+", and done again", false, f)
}

// oldOrNew looks at the store, which must be one of them.
func (o *outcome) oldOrNew(when string, mayBeOld bool, f *faultfs.FS) (isNew bool) {
	o.t.Helper()
	got := o.look(when)
	switch {
	case mayBeOld && o.a.same && slices.Equal(got, o.new):
		// A part of it may be done.
		for _, p := range files(f.State()) {
			if !slices.Contains(o.oldFiles, p) && !slices.Contains(o.newFiles, p) {
				o.t.Errorf("%s: %s is left", when, p)
			}
		}
	case slices.Equal(got, o.new):
		o.same(when+": new, and left", o.newFiles, f)
		return true
	case mayBeOld && slices.Equal(got, o.old):
		o.same(when+": old, and left", o.oldFiles, f)
	case mayBeOld:
		o.t.Errorf("%s: neither old nor new:%s", when, diff(o.old, got))
	default:
		o.t.Errorf("%s: not new, and no error:%s", when, diff(o.new, got))
	}
	return false
}

func (o *outcome) same(when string, want []string, f *faultfs.FS) {
	o.t.Helper()
	if got := files(f.State()); !slices.Equal(got, want) {
		o.t.Errorf("%s:%s", when, diff(want, got))
	}
}
