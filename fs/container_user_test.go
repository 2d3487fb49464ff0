package fs

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/overlay"
	"github.com/layerfs/layerfs/layers/upper"
)

// TestUserLikeRoot does the same to a container in the store of root, whose host holds all owners and devices, and to one
// of an ordinary user, where they are written down. Nobody in the containers must be able to tell them apart.
func TestUserLikeRoot(t *testing.T) {
	testenv.Require(t, "root", "user")
	ops, seed := envInt(t, "LAYERFS_RANDOM_OPS", 6000), envInt(t, "LAYERFS_RANDOM_SEED", 1)
	defer syscall.Umask(syscall.Umask(0)) // the workers of a mount have such a umask
	st := newStore(t)
	load(t, st, newImage(t, "random", randomLayer(t), randomTop(t)), "random:1")
	img, err := st.Image(context.Background(), "random:1")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chmod", "-R", "a+rX", st.Root(), filepath.Dir(st.Root()), filepath.Dir(filepath.Dir(st.Root()))).CombinedOutput(); err != nil {
		t.Fatalf("chmod: %v: %s", err, out)
	}
	account := testenv.User(t)
	user := &unionSide{dir: account.TempDir(t), owners: upper.Owners{UID: uint32(account.UID), GID: uint32(account.GID)}}
	user.start(t, &account)
	root := &unionSide{dir: t.TempDir()}
	root.start(t, nil)
	for _, s := range []*unionSide{root, user} {
		for _, d := range img.DiffIDs() {
			l, err := st.OpenLayer(d)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			s.layers = append(s.layers, l)
		}
		s.do(func() error { return s.open(true) })
	}
	w := &unionWorld{t: t, rnd: rand.New(rand.NewSource(int64(seed))), sides: [2]*unionSide{user, root}}
	for i := 0; i < ops && !t.Failed(); i++ {
		w.step()
		if i%1000 == 999 {
			w.compare(".")
			for _, s := range w.sides {
				if err := s.do(func() error { return errors.Join(s.fs.Close(), s.open(false)) }); err != nil {
					t.Fatal(err)
				}
			}
			w.compare(".")
		}
	}
	if t.Failed() {
		t.Logf("seed %d; the last operations:\n%s", seed, strings.Join(w.log, "\n"))
	}
	for _, s := range w.sides {
		s.do(s.fs.Close)
		close(s.calls)
	}
}

// A unionSide is a union that is used with the rights of somebody.
type unionSide struct {
	dir    string
	owners upper.Owners
	layers []*layers.Layer
	fs     *overlay.FS
	calls  chan func()
}

// start begins to make calls as the account, or as root.
func (s *unionSide) start(t *testing.T, a *testenv.Account) {
	s.calls = make(chan func())
	serve := func() error {
		for fn := range s.calls {
			fn()
		}
		return nil
	}
	go func() {
		var err error
		if a == nil {
			err = serve()
		} else {
			err = treetest.AsUser(a.UID, a.GID, serve)
		}
		if err != nil {
			t.Error(err)
		}
	}()
}

func (s *unionSide) do(fn func() error) error {
	done := make(chan error)
	s.calls <- func() { done <- fn() }
	return <-done
}

func (s *unionSide) open(first bool) (err error) {
	o := overlay.Options{Format: upper.New(s.owners)}
	for _, l := range s.layers {
		o.Layers = append(o.Layers, l)
	}
	o.Upper, o.Work, o.Meta = filepath.Join(s.dir, "upper"), filepath.Join(s.dir, "work"), filepath.Join(s.dir, "meta")
	for _, d := range []string{o.Upper, o.Work, o.Meta} {
		if err := os.Mkdir(d, 0o755); err != nil && first {
			return err
		}
	}
	s.fs, err = overlay.Open(&o)
	return err
}

// find looks a path up; the last name need not be there.
func (s *unionSide) find(path string) (parent overlay.ID, name string, a overlay.Attr, err error) {
	parts := strings.Split(path, "/")
	parent = overlay.Root
	for _, p := range parts[:len(parts)-1] {
		a, err := s.fs.Lookup(parent, p)
		if err != nil {
			return 0, "", a, err
		}
		if a.Mode&unix.S_IFMT != unix.S_IFDIR {
			return 0, "", a, unix.ENOTDIR
		}
		parent = a.ID
	}
	name = parts[len(parts)-1]
	a, err = s.fs.Lookup(parent, name)
	if err == unix.ENOENT {
		return parent, name, overlay.Attr{}, nil
	}
	return parent, name, a, err
}

// A unionWorld is two unions to which the same is done.
type unionWorld struct {
	t     *testing.T
	rnd   *rand.Rand
	sides [2]*unionSide
	log   []string
}

// both does something with a path on both sides and compares what comes out.
func (w *unionWorld) both(what, path string, fn func(s *unionSide, parent overlay.ID, name string, a overlay.Attr) (string, error)) {
	w.t.Helper()
	var text [2]string
	var errs [2]error
	for i, s := range w.sides {
		errs[i] = s.do(func() error {
			parent, name, a, err := s.find(path)
			if err != nil {
				return err
			}
			text[i], err = fn(s, parent, name, a)
			return err
		})
	}
	w.log = append(w.log, fmt.Sprintf("%s %s = %.100q %v", what, path, text[1], errs[1]))
	if len(w.log) > 40 {
		w.log = w.log[1:]
	}
	if text[0] != text[1] || errnoOf(errs[0]) != errnoOf(errs[1]) {
		w.t.Errorf("%s %s: the user has %.200q %v, root %.200q %v", what, path, text[0], errs[0], text[1], errs[1])
	}
}

func describeAttr(a overlay.Attr) string {
	size := a.Size
	if a.Mode&unix.S_IFMT == unix.S_IFDIR {
		a.Nlink, size = 0, 0
	}
	return fmt.Sprintf("%o %d:%d %d links %d bytes %d,%d", a.Mode, a.UID, a.GID, a.Nlink, size, a.Major, a.Minor)
}

// step does one random thing.
func (w *unionWorld) step() {
	r := &randomWorld{rnd: w.rnd}
	p, q := r.path(), r.path()
	caller := overlay.Caller{UID: uint32(w.rnd.Intn(3)), GID: uint32(w.rnd.Intn(3)), Umask: uint32([]int{0, 0o22, 0o77}[w.rnd.Intn(3)])}
	mode := uint32([]int{0o644, 0o755, 0o4711, 0o2755, 0o1777, 0o070, 0}[w.rnd.Intn(7)])
	n := w.rnd.Intn(90000)
	switch w.rnd.Intn(14) {
	case 0:
		kind := []uint32{unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}[w.rnd.Intn(5)]
		w.made(fmt.Sprintf("mknod %#o %+v", kind|mode, caller), p, func(s *unionSide, d overlay.ID, name string) (overlay.Attr, error) {
			return s.fs.Mknod(d, name, kind|mode, 1, 300, caller)
		})
	case 1:
		w.made(fmt.Sprintf("mkdir %#o %+v", mode, caller), p, func(s *unionSide, d overlay.ID, name string) (overlay.Attr, error) {
			return s.fs.Mkdir(d, name, mode, caller)
		})
	case 2:
		w.made(fmt.Sprintf("symlink %+v", caller), p, func(s *unionSide, d overlay.ID, name string) (overlay.Attr, error) {
			return s.fs.Symlink(d, name, q, caller)
		})
	case 3:
		w.write(p, mode, caller, n)
	case 4:
		w.both("unlink", p, func(s *unionSide, d overlay.ID, name string, a overlay.Attr) (string, error) {
			if a.Mode&unix.S_IFMT == unix.S_IFDIR {
				return "", s.fs.Rmdir(d, name)
			}
			return "", s.fs.Unlink(d, name)
		})
	case 5, 6:
		flags := []uint32{0, 0, overlay.NoReplace, overlay.Exchange}[w.rnd.Intn(4)]
		w.both(fmt.Sprintf("rename %d to %s", flags, q), p, func(s *unionSide, d overlay.ID, name string, _ overlay.Attr) (string, error) {
			to, toName, _, err := s.find(q)
			if err != nil || strings.HasPrefix(q, p+"/") || strings.HasPrefix(p, q+"/") {
				return "", err
			}
			return "", s.fs.Rename(d, name, to, toName, flags)
		})
	case 7:
		w.both("link to "+q, p, func(s *unionSide, _ overlay.ID, _ string, a overlay.Attr) (string, error) {
			to, toName, _, err := s.find(q)
			if err != nil || a.ID == 0 {
				return "", err
			}
			a, err = s.fs.Link(a.ID, to, toName)
			return describeAttr(a), err
		})
	case 8, 9:
		c := &overlay.Change{}
		if w.rnd.Intn(2) == 0 {
			c.Mode = &mode
		}
		if w.rnd.Intn(2) == 0 {
			c.UID, c.GID = &caller.UID, &caller.GID
		}
		w.both(fmt.Sprintf("setattr %v %#o %+v", c.Mode != nil, mode, caller), p, func(s *unionSide, _ overlay.ID, _ string, a overlay.Attr) (string, error) {
			kind := a.Mode & unix.S_IFMT
			if a.ID == 0 || a.Nlink > 1 && (kind == unix.S_IFLNK || kind == unix.S_IFIFO || kind == unix.S_IFSOCK) {
				return "", nil // a placeholder cannot take the place of several names
			}
			a, err := s.fs.SetAttr(a.ID, c)
			return describeAttr(a), err
		})
	case 10:
		w.both("read", p, func(s *unionSide, _ overlay.ID, _ string, a overlay.Attr) (string, error) {
			switch a.Mode & unix.S_IFMT {
			case unix.S_IFREG:
				b, err := s.fs.Read(a.ID, make([]byte, 100000), 0)
				return string(b), err
			case unix.S_IFLNK:
				b, err := s.fs.Readlink(a.ID)
				return string(b), err
			}
			return describeAttr(a), nil
		})
	case 11, 12:
		w.xattr(p)
	case 13:
		w.compare(p)
	}
}

func (w *unionWorld) made(what, p string, fn func(s *unionSide, d overlay.ID, name string) (overlay.Attr, error)) {
	w.t.Helper()
	w.both(what, p, func(s *unionSide, d overlay.ID, name string, _ overlay.Attr) (string, error) {
		a, err := fn(s, d, name)
		if err != nil {
			return "", err
		}
		return describeAttr(a), nil
	})
}

// write makes a file, or writes to one that is there.
func (w *unionWorld) write(p string, mode uint32, c overlay.Caller, n int) {
	kill := w.rnd.Intn(2) == 0
	w.both(fmt.Sprintf("write %#o %+v %v", mode, c, kill), p, func(s *unionSide, d overlay.ID, name string, a overlay.Attr) (string, error) {
		var err error
		switch {
		case a.ID == 0:
			a, _, err = s.fs.Create(d, name, mode, c)
		case a.Mode&unix.S_IFMT != unix.S_IFREG:
			return "", nil
		default:
			_, err = s.fs.Open(a.ID, unix.O_RDWR, kill)
		}
		if err != nil {
			return "", err
		}
		defer s.fs.Release(a.ID)
		if err := s.fs.Write(a.ID, []byte(strings.Repeat("w", n/10)), int64(n), kill); err != nil {
			return "", err
		}
		a, err = s.fs.GetAttr(a.ID)
		return describeAttr(a), err
	})
}

func (w *unionWorld) xattr(p string) {
	name := []string{"user.k", "trusted.k", "security.capability", "system.posix_acl_access", "system.posix_acl_default"}[w.rnd.Intn(5)]
	value := []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	list := strings.HasPrefix(name, "system.")
	if list {
		value = []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x07\x00\x05\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff")
	}
	remove := w.rnd.Intn(3) == 0
	w.both(fmt.Sprintf("xattr %s %v", name, remove), p, func(s *unionSide, _ overlay.ID, _ string, a overlay.Attr) (string, error) {
		kind := a.Mode & unix.S_IFMT
		if kind != unix.S_IFREG && kind != unix.S_IFDIR || name == "system.posix_acl_default" && kind != unix.S_IFDIR {
			return "", nil
		}
		var err error
		if remove {
			err = s.fs.RemoveXattr(a.ID, name)
		} else {
			err = s.fs.SetXattr(a.ID, name, value, 0, false)
		}
		if err != nil {
			return "", err
		}
		a, err = s.fs.GetAttr(a.ID)
		return describeAttr(a), err
	})
}

// compare compares everything below a path.
func (w *unionWorld) compare(path string) {
	w.t.Helper()
	w.both("tree", strings.TrimPrefix(path, "."), func(s *unionSide, _ overlay.ID, _ string, a overlay.Attr) (string, error) {
		if path == "." {
			a = overlay.Attr{ID: overlay.Root, Mode: unix.S_IFDIR}
		}
		var out []string
		err := s.walk(path, a, &out)
		slices.Sort(out)
		return strings.Join(out, "\n"), err
	})
}

func (s *unionSide) walk(path string, a overlay.Attr, out *[]string) error {
	if a.ID == 0 {
		return nil
	}
	text := path + " " + describeAttr(a)
	var names []string
	if err := s.fs.EachXattr(a.ID, func(name string) { names = append(names, name) }); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		v, err := s.fs.GetXattr(a.ID, name)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", path, name, err)
		}
		text += fmt.Sprintf(" %s=%x", name, v)
	}
	*out = append(*out, text)
	if a.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	d, err := s.fs.OpenDir(a.ID)
	if err != nil {
		return err
	}
	var entries []overlay.DirEntry
	if err := d.Each(0, false, func(e overlay.DirEntry, _ *overlay.Attr, _ int) bool {
		entries = append(entries, e)
		return true
	}); err != nil {
		return err
	}
	for _, e := range entries {
		sub, err := s.fs.Lookup(a.ID, e.Name)
		if err != nil {
			return err
		}
		if e.Mode != sub.Mode&unix.S_IFMT || e.Ino != sub.Ino {
			return fmt.Errorf("%s/%s is listed as %+v, but is %o %d", path, e.Name, e, sub.Mode, sub.Ino)
		}
		if err := s.walk(path+"/"+e.Name, sub, out); err != nil {
			return err
		}
	}
	return nil
}

// TestUserOwns gives files of a container to others as an ordinary user, who is root in it.
func TestUserOwns(t *testing.T) {
	for _, c := range []struct {
		unchecked            bool
		inside, shown, meant uint32
		ok                   bool
	}{
		{true, overflowID, 33, 33, true},
		{false, overflowID, 33, 33, false},
		{false, 1000, 301000, 1000, true},
		{false, overflowID, overflowID, overflowID, true},
	} {
		f := &trees{unchecked: c.unchecked}
		if got, ok := f.given(c.inside, c.shown); *got != c.meant || ok != c.ok {
			t.Errorf("%+v: got %d, %t", c, *got, ok)
		}
	}
}
