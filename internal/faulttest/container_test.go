package faulttest_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	layerfs "github.com/layerfs/layerfs/fs"
	"github.com/layerfs/layerfs/internal/faultfs"
	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
	"github.com/layerfs/layerfs/layers"
)

// A mountedBox is a container that a worker serves.
type mountedBox struct {
	store *layers.Store
	mount *layerfs.Containers
}

// box is what this worker serves.
var box *mountedBox

func mountBox(root, dir, boot string) error {
	s, err := layers.Open(root, &layers.Options{Timeout: 20 * time.Second, Boot: boot})
	if err != nil {
		return err
	}
	m, err := layerfs.MountContainer(s, "box", dir, &layerfs.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return errors.Join(err, s.Close())
	}
	box = &mountedBox{s, m}
	return nil
}

func umountBox() error {
	if box == nil {
		return errors.New("nothing is mounted")
	}
	b := box
	box = nil
	var err error
	for range 500 { // what the kernel still closes keeps the mount busy for a moment
		if err = b.mount.Unmount(); !errors.Is(err, layerfs.ErrMountBusy) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.Join(err, b.store.Close())
}

// A hand does the steps of a deed in a mounted container.
type hand struct {
	dir string
	f   *os.File
}

func (h *hand) at(name string) string { return filepath.Join(h.dir, name) }

func (h *hand) close() {
	if h.f != nil {
		h.f.Close()
		h.f = nil
	}
}

// A step is one system call.
type step struct {
	name string
	do   func(h *hand) error
	// content is the file whose content may be half of what was to be written.
	content string
}

// A deed is something that a program does in a container.
type deed struct {
	name  string
	setup []step
	steps []step
}

func open(name string, flags int) step {
	return step{name: "open " + name, do: func(h *hand) (err error) {
		h.f, err = os.OpenFile(h.at(name), flags, 0o644)
		return err
	}}
}

func write(name string, n int, off int64) step {
	return step{name: "write " + name, content: name, do: func(h *hand) error {
		k, err := unix.Pwrite(int(h.f.Fd()), []byte(noise(30, n)), off)
		if err == nil && k < n {
			return errShort
		}
		return err
	}}
}

// errShort is a write that was done in part, which is no error to the caller.
var errShort = errors.New("a part was written")

func fsync() step { return step{name: "fsync", do: func(h *hand) error { return h.f.Sync() }} }
func finish() step {
	return step{name: "close", do: func(h *hand) error { f := h.f; h.f = nil; return f.Close() }}
}

// call is a step that is a call with one path.
func call(name, path string, fn func(path string) error) step {
	return step{name: name + " " + path, do: func(h *hand) error { return fn(h.at(path)) }}
}

// call2 is a step that is a call with two paths.
func call2(name, a, b string, fn func(a, b string) error) step {
	return step{name: name + " " + a + " " + b, do: func(h *hand) error { return fn(h.at(a), h.at(b)) }}
}

func chmod(path string) step {
	return call("chmod", path, func(p string) error { return os.Chmod(p, 0o600) })
}
func unlink(path string) step { return call("unlink", path, unix.Unlink) }
func rename(a, b string) step { return call2("rename", a, b, unix.Rename) }
func mkdir(path string) step {
	return call("mkdir", path, func(p string) error { return unix.Mkdir(p, 0o755) })
}

var deeds = []deed{
	{name: "write into a file of the image", steps: []step{open("data/a", os.O_WRONLY), write("data/a", 4000, 100), fsync(), finish()}},
	{name: "write into a large file of the image", steps: []step{open("bin/tool", os.O_WRONLY), write("bin/tool", 10, 140_000), finish()}},
	{name: "truncate a file of the image", steps: []step{call("truncate", "data/a", func(p string) error { return unix.Truncate(p, 1000) })}},
	{name: "open and truncate", steps: []step{open("data/a", os.O_WRONLY|os.O_TRUNC), write("data/a", 10, 0), finish()}},
	{name: "chmod", steps: []step{chmod("data/a")}},
	{name: "chmod, write", setup: []step{chmod("data/a")}, steps: []step{open("data/a", os.O_WRONLY), write("data/a", 10, 5), fsync(), finish()}},
	{name: "chmod one of two names", steps: []step{chmod("bin/tool")}},
	{name: "chown", steps: []step{call("chown", "data/a", func(p string) error { return unix.Chown(p, 5, 6) })}},
	{name: "utimes", steps: []step{call("utimes", "data/a", func(p string) error { return os.Chtimes(p, time.Unix(1e9, 0), time.Unix(1e9, 0)) })}},
	{name: "unlink a file of the image", steps: []step{unlink("data/a")}},
	{name: "unlink one of two names", steps: []step{unlink("bin/tool")}},
	{name: "unlink a copy", setup: []step{chmod("data/a")}, steps: []step{unlink("data/a")}},
	{name: "unlink a new file", setup: []step{open("data/n", os.O_CREATE|os.O_WRONLY), finish()}, steps: []step{unlink("data/n")}},
	{name: "create", steps: []step{open("data/n", os.O_CREATE|os.O_EXCL|os.O_WRONLY), write("data/n", 5000, 0), fsync(), finish()}},
	{name: "create again", setup: []step{unlink("data/a")}, steps: []step{open("data/a", os.O_CREATE|os.O_EXCL|os.O_WRONLY), write("data/a", 10, 0), finish()}},
	{name: "mkdir", steps: []step{mkdir("data/sub/n")}},
	{name: "mkdir again", setup: []step{unlink("data/sub/c"), call("rmdir", "data/sub", unix.Rmdir)}, steps: []step{mkdir("data/sub")}},
	{name: "rmdir", setup: []step{unlink("data/sub/c")}, steps: []step{call("rmdir", "data/sub", unix.Rmdir)}},
	{name: "rename a file of the image", steps: []step{rename("data/a", "data/sub/z")}},
	{name: "rename over a file of the image", steps: []step{rename("data/a", "etc/motd")}},
	{name: "rename a new file over one of the image", setup: []step{open("data/n", os.O_CREATE|os.O_WRONLY), write("data/n", 10, 0), finish()}, steps: []step{rename("data/n", "data/a")}},
	{name: "rename a directory of the image", steps: []step{rename("data", "moved")}},
	{name: "rename a new directory", setup: []step{mkdir("n"), mkdir("n/m")}, steps: []step{rename("n", "data/n")}},
	{name: "exchange", steps: []step{call2("exchange", "data/a", "etc/motd", func(a, b string) error {
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	})}},
	{name: "symlink", steps: []step{call("symlink", "data/l", func(p string) error { return unix.Symlink("target", p) })}},
	{name: "link a file of the image", steps: []step{call2("link", "data/a", "etc/a", unix.Link)}},
	{name: "link one of two names", steps: []step{call2("link", "bin/tool", "etc/tool", unix.Link)}},
	{name: "mknod", steps: []step{call("mkfifo", "data/p", func(p string) error { return unix.Mkfifo(p, 0o600) })}},
	{name: "setxattr", steps: []step{call("setxattr", "data/a", func(p string) error { return unix.Setxattr(p, "user.k", []byte("v"), 0) })}},
	{name: "setxattr of a directory", steps: []step{call("setxattr", "data/sub", func(p string) error { return unix.Setxattr(p, "user.k", []byte("v"), 0) })}},
	{
		name:  "removexattr",
		setup: []step{call("setxattr", "data/a", func(p string) error { return unix.Setxattr(p, "user.k", []byte("v"), 0) })},
		steps: []step{call("removexattr", "data/a", func(p string) error { return unix.Removexattr(p, "user.k") })},
	},
	{name: "fallocate", setup: []step{chmod("data/a")}, steps: []step{open("data/a", os.O_WRONLY), {name: "fallocate", content: "data/a", do: func(h *hand) error {
		return unix.Fallocate(int(h.f.Fd()), 0, 0, 20_000)
	}}, finish()}},
	{name: "a file without a name", steps: []step{open("data", unix.O_TMPFILE|os.O_RDWR), write("data/t", 100, 0), {name: "linkat", do: func(h *hand) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", h.f.Fd()), unix.AT_FDCWD, h.at("data/t"), unix.AT_SYMLINK_FOLLOW)
	}}, finish()}},
}

// A boxBench is a place to try deeds at.
type boxBench struct {
	*bench
	dir string
}

func newBoxBench(t *testing.T) *boxBench {
	return &boxBench{newBench(t), testenv.Mountpoint(t, nil)}
}

// boxed is the store of the tests with a container in which nothing was written.
var boxed = []string{"load base", "create box"}

func (b *boxBench) before() *faultfs.State {
	b.t.Helper()
	states.Lock()
	defer states.Unlock()
	return b.made(boxed).Clone()
}

// mounted calls fn while the container is mounted; it reports whether it still was in
// the end.
func (b *boxBench) mounted(fn func()) (alive bool) {
	b.t.Helper()
	if a := b.w.ask(request{Root: b.mnt + "/store", Do: "mount box", Arg: b.dir, Boot: b.boot}); a == nil || a.Err != "" {
		b.t.Fatalf("mount: %+v", a)
	}
	pid := b.w.cmd.Process.Pid
	func() {
		ended := false
		defer func() {
			if !ended { // by Fatal
				testenv.Detach(b.dir)
			}
		}()
		fn()
		ended = true
	}()
	if b.w.isDead() {
		b.w.again()
		testenv.Detach(b.dir)
		return false
	}
	if a := b.w.ask(request{Root: b.mnt + "/store", Do: "umount box"}); a == nil || a.Err != "" || pid != b.w.cmd.Process.Pid {
		b.t.Errorf("unmount: %+v", a)
		testenv.Detach(b.dir)
	}
	return true
}

// take looks at the whole tree.
func (b *boxBench) take() *treetest.Snapshot {
	b.t.Helper()
	s, err := treetest.Take(b.dir)
	must(b.t, err)
	return s
}

// differs compares two trees but for times that are of these days, and for the content
// of one file. The kernel may have listed ".." of a directory before it was moved.
func differs(want, got *treetest.Snapshot, content string) []string {
	got.Problems = slices.DeleteFunc(got.Problems, func(p string) bool { return strings.Contains(p, `".." is listed`) })
	return treetest.Diff(want, got, &treetest.Options{Entry: func(_ string, want, got *treetest.Entry) {
		// A copy gets the times of the original last, and its directory gets its own back:
		// what stops between shows that it happened now.
		if recent(got.Mtime) {
			got.Mtime = want.Mtime
		}
		if want.Group == content { // all its names
			got.Size, got.Sum, got.Mtime = want.Size, want.Sum, want.Mtime
		}
	}})
}

func recent(t time.Time) bool { return time.Since(t) < 24*time.Hour }

// A story is how a deed goes when nothing goes wrong.
type story struct {
	*boxBench
	d    *deed
	tree []*treetest.Snapshot // before the first step, and after each
	ops  int
}

func (b *boxBench) story(d *deed) *story {
	b.t.Helper()
	s := &story{boxBench: b, d: d}
	b.with(b.before(), func(f *faultfs.FS) {
		b.mounted(func() {
			h := &hand{dir: b.dir}
			defer h.close()
			b.doAll(h, d.setup)
			s.tree = append(s.tree, b.take())
			for _, st := range d.steps {
				f.SetHook(func(*faultfs.Op) error { s.ops++; return nil })
				if err := st.do(h); err != nil {
					b.t.Fatalf("%s: %v", st.name, err)
				}
				f.SetHook(nil)
				s.tree = append(s.tree, b.take())
			}
		})
		b.look(d.name)
	})
	return s
}

func (b *boxBench) doAll(h *hand, steps []step) {
	b.t.Helper()
	for _, st := range steps {
		if err := st.do(h); err != nil {
			b.t.Fatalf("%s: %v", st.name, err)
		}
	}
	h.close()
}

// TestContainerFaults lets operations on the disk below a container go wrong. The
// program gets the error, the tree is as it was or as it was to be, also after another
// mount, and the rest of what the program does then works.
func TestContainerFaults(t *testing.T) {
	testenv.Require(t, "fuse", "root")
	for _, i := range some(t, len(deeds)) {
		t.Run(deeds[i].name, func(t *testing.T) {
			t.Parallel()
			s := newBoxBench(t).story(&deeds[i])
			r := random(t)
			tried := 0
			list := troubles
			if !long() {
				list = list[r.IntN(len(list)-1):][:2]
			}
			for j := range list {
				for _, n := range choose(r, s.ops, places(1)) {
					s.try(&list[j], n)
					tried++
				}
			}
			t.Logf("%d operations, %d faults", s.ops, tried)
		})
	}
}

// try does the deed with trouble at the n-th operation.
func (s *story) try(tr *trouble, n int) {
	s.t.Helper()
	s.with(s.before(), func(f *faultfs.FS) {
		what, when := "", ""
		done, failed := 0, false
		alive := s.mounted(func() {
			h := &hand{dir: s.dir}
			defer h.close()
			s.doAll(h, s.d.setup)
			f.SetHook(tr.hook(n, &what, s.w.kill))
			var err error
			for done < len(s.d.steps) && err == nil {
				if err = s.d.steps[done].do(h); err == nil {
					done++
				}
			}
			f.SetHook(nil)
			failed = err != nil
			when = fmt.Sprintf("%s at operation %d of %d, %s", tr.name, n, s.ops, what)
			switch {
			case what == "" && err != nil:
				s.t.Errorf("%s: %v", s.d.steps[done].name, err)
			case tr.kill || err == nil || errors.Is(err, errShort):
			case !errors.Is(err, tr.err):
				s.t.Errorf("%s: the error is another: %v", when, err)
			}
			if s.w.isDead() {
				return
			}
			s.judge(when, done, failed)
			s.goOn(when, h, done, failed)
		})
		s.mounted(func() {
			if !alive {
				s.judge(when+", mounted again", done, failed)
			} else if d := differs(s.tree[len(s.d.steps)], s.take(), ""); len(d) > 0 {
				s.t.Errorf("%s, done and mounted again: %q", when, d)
			}
		})
		s.look(when)
		s.noWork(when, f)
	})
}

// judge compares the tree with what it may be when so many steps were done, and one
// more has perhaps failed.
func (s *story) judge(when string, done int, failed bool) {
	s.t.Helper()
	got := s.take()
	first := differs(s.tree[done], got, "")
	if len(first) == 0 {
		return
	}
	if failed && len(differs(s.tree[done+1], got, s.d.steps[done].content)) == 0 {
		return
	}
	s.t.Errorf("%s: after %d steps, failed %v: %q", when, done, failed, first)
}

// goOn does what has failed again, and the rest.
func (s *story) goOn(when string, h *hand, done int, failed bool) {
	s.t.Helper()
	for i, st := range s.d.steps[done:] {
		err := st.do(h)
		if first := i == 0 && failed; first && (errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODATA)) && len(differs(s.tree[done+1], s.take(), "")) == 0 {
			err = nil // it was done, and then the error came
			if strings.HasPrefix(st.name, "open ") {
				err = open(strings.TrimPrefix(st.name, "open "), os.O_WRONLY).do(h)
			}
		}
		if st.name == "close" && h.f == nil && err != nil {
			err = nil // a close that has failed has closed
		}
		if err != nil {
			s.t.Errorf("%s: then %s: %v", when, st.name, err)
			return
		}
	}
	if d := differs(s.tree[len(s.d.steps)], s.take(), ""); len(d) > 0 {
		s.t.Errorf("%s, and then done: %q", when, d)
	}
}

// noWork wants nothing in the work directory.
func (s *boxBench) noWork(when string, f *faultfs.FS) {
	s.t.Helper()
	for _, p := range f.State().Files() {
		if strings.HasPrefix(p, "/store/containers/"+boxID+"/work/") {
			s.t.Errorf("%s: %s is left", when, p)
		}
	}
	if !slices.Contains(f.State().Files(), "/store/format") {
		s.t.Errorf("%s: this is no store", when)
	}
}
