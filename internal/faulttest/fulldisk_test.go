package faulttest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
)

// A smallDisk is a file system of its own.
type smallDisk struct {
	name string
	make func(t *testing.T, dir string)
	// trouble makes it refuse, and relief undoes that.
	trouble, relief func(t *testing.T, dir string)
	errno           syscall.Errno
	always          bool // it refuses everything that changes the store
}

func tmpfs(options string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) { must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options)) }
}

// ext4 makes a small ext4 in a file.
func ext4(t *testing.T, dir string) {
	testenv.Require(t, "mkfs.ext4", "losetup")
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 24<<20))
	command(t, "mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=0", image)
	command(t, "mount", "-o", "loop", image, dir)
}

func command(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
}

// fill takes all space.
func fill(t *testing.T, dir string) {
	f, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	for size := 1 << 20; size >= 512; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk ended with %v", err)
	}
}

func unfill(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "filler"))) }

// fillInodes takes all inodes.
func fillInodes(t *testing.T, dir string) {
	must(t, os.Mkdir(filepath.Join(dir, "filler"), 0o755))
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(dir, "filler", strconv.Itoa(i)))
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		must(t, errors.Join(err, f.Close()))
	}
}

func unfillInodes(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "filler"))) }

func remount(flags uintptr) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) { must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|flags, "")) }
}

// forbid takes the right to change anything away, and permit gives it back.
func forbid(t *testing.T, dir string) {
	chmodAll(t, dir, func(m os.FileMode) os.FileMode { return m &^ 0o222 })
}

func permit(t *testing.T, dir string) {
	chmodAll(t, dir, func(m os.FileMode) os.FileMode { return m | 0o200 })
}

func chmodAll(t *testing.T, dir string, change func(os.FileMode) os.FileMode) {
	must(t, filepath.WalkDir(filepath.Join(dir, "store"), func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, change(info.Mode().Perm()))
	}))
}

var smallDisks = []smallDisk{
	{name: "full tmpfs", make: tmpfs("size=16m"), trouble: fill, relief: unfill, errno: unix.ENOSPC},
	{name: "full ext4", make: ext4, trouble: fill, relief: unfill, errno: unix.ENOSPC},
	{name: "no inodes", make: tmpfs("size=64m,nr_inodes=400"), trouble: fillInodes, relief: unfillInodes, errno: unix.ENOSPC},
	{name: "read-only", make: tmpfs("size=64m"), trouble: remount(unix.MS_RDONLY), relief: remount(0), errno: unix.EROFS, always: true},
}

// TestRealDisks does every action on small file systems that are full, have no inodes
// left, or were mounted again read-only: it is done, or there is an error that says so in
// a sentence; nothing is lost, and it works when there is room again.
func TestRealDisks(t *testing.T) {
	testenv.Require(t, "root")
	for i := range smallDisks {
		d := &smallDisks[i]
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			b := &bench{t: t, w: newWorker(t), registry: serveRegistry(t, newImage(baseTar(), newTar()))}
			for j := range actions {
				if a := &actions[j]; long() || j%len(smallDisks) == i {
					d.try(b, a)
				}
			}
		})
	}
}

// try does an action on a disk that refuses, and again on one that does not.
func (d *smallDisk) try(b *bench, a *action) {
	b.t.Helper()
	dir := b.t.TempDir()
	d.make(b.t, dir)
	defer unix.Unmount(dir, unix.MNT_DETACH)
	b.mnt = dir
	if !a.fresh {
		for _, step := range common {
			b.do(step)
		}
		for _, step := range a.setup {
			b.do(step)
		}
	}
	var old []string
	if !a.damaged {
		old = b.look("before " + a.name)
	}
	d.trouble(b.t, dir)
	got := b.ask(a.name)
	when := fmt.Sprintf("%s on %s", a.name, d.name)
	switch {
	case got.Err == "" && d.always:
		b.t.Errorf("%s: no error", when)
	case got.Err != "" && !got.is(d.errno):
		b.t.Errorf("%s: the error is another: %s", when, got.Err)
	case strings.Contains(got.Err, "\n"):
		b.t.Errorf("%s: an error of several lines: %q", when, got.Err)
	}
	d.relief(b.t, dir)
	if !a.damaged && got.Err != "" {
		if now := b.look(when); !a.same && diff(old, now) != "" {
			b.t.Errorf("%s: with an error, and changed:%s", when, diff(old, now))
		}
	}
	if got.Err != "" {
		b.do(a.name)
	}
	if now := b.look(when + ", then done"); !a.same && !a.damaged && diff(old, now) == "" {
		b.t.Errorf("%s: nothing has changed in the end", when)
	}
}

// TestLostPermission lets an ordinary user lose the right to write into the store: every
// change is refused with a sentence, reading goes on, and with the right everything
// works again.
func TestLostPermission(t *testing.T) {
	testenv.Require(t, "root")
	a := testenv.User(t)
	dir := a.TempDir(t)
	b := &bench{t: t, w: newWorkerAs(t, &a), mnt: dir, registry: serveRegistry(t, newImage(baseTar(), newTar()))}
	for _, step := range common {
		b.do(step)
	}
	old := b.look("before")
	for i := range actions {
		act := &actions[i]
		if act.fresh || act.damaged || act.name == "gc" || act.name == "apply" {
			continue // need another store before them
		}
		forbid(t, dir)
		got := b.ask(act.name)
		permit(t, dir)
		if got.Err == "" || !got.is(unix.EACCES) {
			t.Errorf("%s: without permission: %+v", act.name, got)
		}
	}
	if now := b.look("with permission again"); diff(old, now) != "" {
		t.Errorf("what was refused has changed something:%s", diff(old, now))
	}
	for i := range actions {
		if act := &actions[i]; act.name == "load" || act.name == "commit" || act.name == "rmi" {
			b.do(act.name)
		}
	}
	b.look("in the end")
}
