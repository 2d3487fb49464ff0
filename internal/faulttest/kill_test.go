package faulttest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
)

// TestKills kills every action at random moments: the store is old or new and sound, a
// collection leaves nothing, and the action then works. TestFaultsByCount kills at
// operations on the disk; between them programs also do other things.
func TestKills(t *testing.T) {
	testenv.Require(t, "root")
	for _, i := range some(t, len(actions)) {
		t.Run(actions[i].name, func(t *testing.T) {
			t.Parallel()
			k := newKilling(t, &actions[i])
			r := random(t)
			for range min(places(1), 60) {
				k.try(r)
			}
			t.Logf("%d kills, of which %d came too late; it takes %v", k.kills, k.late, k.took)
		})
	}
}

// A killing is an action that is killed again and again on copies of one store.
type killing struct {
	*bench
	a           *action
	template    string
	old, new    []string // pictures
	oldFiles    []string
	newFiles    []string
	took        time.Duration
	kills, late int
}

func newKilling(t *testing.T, a *action) *killing {
	t.Helper()
	dir := t.TempDir()
	tmpfs("size=64m")(t, dir) // where a sync costs nothing
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	k := &killing{
		bench: &bench{t: t, w: newWorker(t), mnt: filepath.Join(dir, "before"), registry: serveRegistry(t, newImage(baseTar(), newTar()))},
		a:     a, template: filepath.Join(dir, "before"),
	}
	must(t, os.Mkdir(k.mnt, 0o755))
	if !a.fresh {
		for _, step := range slices.Concat(common, a.setup) {
			k.do(step)
		}
	}
	k.mnt = filepath.Join(dir, "work")
	k.reset()
	if !a.damaged {
		k.old, k.oldFiles = k.look("before"), filesBelow(t, k.mnt)
	}
	k.reset()
	start := time.Now()
	k.do(a.name)
	k.took = time.Since(start)
	k.new, k.newFiles = k.look("after"), filesBelow(t, k.mnt)
	return k
}

// reset begins again with the store as it was.
func (k *killing) reset() {
	k.t.Helper()
	must(k.t, os.RemoveAll(k.mnt))
	if out, err := exec.Command("cp", "-a", k.template, k.mnt).CombinedOutput(); err != nil {
		k.t.Fatalf("cp: %v: %s", err, out)
	}
}

func (k *killing) try(r *rand.Rand) {
	k.t.Helper()
	k.reset()
	delay := time.Duration(r.Int64N(int64(k.took) + 1))
	timer := time.AfterFunc(delay, k.w.kill)
	a := k.ask(k.a.name)
	if timer.Stop() {
		k.late++
	} else if a != nil { // it had just answered
		k.w.again()
		k.late++
	}
	k.kills++
	when := fmt.Sprintf("killed after %v", delay)
	if a != nil && a.Err != "" {
		k.t.Fatalf("%s: %s", when, a.Err)
	}
	wasNew := false
	if !k.a.damaged {
		wasNew = k.oldOrNew(when, a == nil)
	}
	if a := k.ask(k.a.name); a.Err != "" && !wasNew {
		k.t.Errorf("%s: the next time: %s", when, a.Err)
	}
	k.oldOrNew(when+", and done again", false)
}

func (k *killing) oldOrNew(when string, mayBeOld bool) (isNew bool) {
	k.t.Helper()
	got, left := k.look(when), filesBelow(k.t, k.mnt)
	switch {
	case slices.Equal(got, k.new) && (slices.Equal(left, k.newFiles) || mayBeOld && k.a.same):
		return true
	case mayBeOld && slices.Equal(got, k.old) && slices.Equal(left, k.oldFiles):
	default:
		k.t.Errorf("%s: neither old nor new:%s%s", when, diff(k.new, got), diff(k.newFiles, left))
	}
	return false
}

// filesBelow is what files gives for a directory.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			list = append(list, path[len(dir):])
		}
		return err
	}))
	return plain(list)
}
