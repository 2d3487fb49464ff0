package upper

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// eachUser runs a test as root and as an ordinary user, each with a directory of
// their own; where there is only one of them, as that one.
func eachUser(t *testing.T, test func(t *testing.T, f *Format, dir string)) {
	if os.Geteuid() != 0 {
		o, err := Self()
		if err != nil {
			t.Fatal(err)
		}
		test(t, New(o), t.TempDir())
		return
	}
	t.Run("root", func(t *testing.T) { test(t, New(Owners{}), t.TempDir()) })
	t.Run("user", func(t *testing.T) {
		a := testenv.User(t)
		dir := a.TempDir(t)
		f := New(Owners{
			UID: uint32(a.UID), GID: uint32(a.GID),
			UIDs: []Range{{100000, 1000}, {300000, 1000}}, GIDs: []Range{{200000, 65536}},
		})
		err := treetest.AsUser(a.UID, a.GID, func() error {
			test(t, f, dir)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func open(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// create makes a file as the union does: what the host can hold of it, then its meta.
func create(t *testing.T, f *Format, at At, want *Override) {
	t.Helper()
	var err error
	mode := f.HostMode(want)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = unix.Mkdirat(at.Dir, at.Name, mode&0o7777)
	case unix.S_IFLNK:
		err = unix.Symlinkat("target", at.Dir, at.Name)
	default:
		err = unix.Mknodat(at.Dir, at.Name, mode, int(unix.Mkdev(want.Major, want.Minor)))
	}
	if err != nil {
		t.Errorf("create %+v: %v", want, err)
		return
	}
	st, err := at.Stat()
	if err != nil {
		t.Error(err)
	}
	have := f.FromStat(&st)
	have.Placeholder = f.NeedsPlaceholder(want)
	if err := f.SetMeta(at, &have, want); err != nil {
		t.Errorf("meta of %+v: %v", want, err)
	}
	if f.NeedsPlaceholder(want) && want.Mode&unix.S_IFMT == unix.S_IFLNK {
		fd, err := at.Open(unix.O_WRONLY)
		if err == nil {
			_, err = unix.Write(fd, []byte("target"))
			unix.Close(fd)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// Whatever a file is to the container comes back when it is read, on every host.
func TestMeta(t *testing.T) {
	eachUser(t, func(t *testing.T, f *Format, dir string) {
		fd := open(t, dir)
		for i, want := range []Override{
			{Mode: unix.S_IFREG | 0o644},
			{Mode: unix.S_IFREG},
			{Mode: unix.S_IFREG | 0o4755, UID: 5, GID: 6},
			{Mode: unix.S_IFDIR | 0o755},
			{Mode: unix.S_IFDIR | 0o1777, UID: 70000},
			{Mode: unix.S_IFDIR | 0o2050},
			{Mode: unix.S_IFLNK | 0o777},
			{Mode: unix.S_IFLNK | 0o777, UID: 1, GID: 1},
			{Mode: unix.S_IFIFO | 0o600},
			{Mode: unix.S_IFIFO | 0o640, GID: 3},
			{Mode: unix.S_IFSOCK | 0o755, UID: 9},
			{Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3},
			{Mode: unix.S_IFBLK | 0o660, GID: 6, Major: 259, Minor: 70000},
		} {
			at := At{fd, string(rune('a' + i))}
			create(t, f, at, &want)
			e, err := f.Read(at)
			if err != nil {
				t.Errorf("%+v: %v", want, err)
				continue
			}
			got := Override{UID: e.UID, GID: e.GID, Mode: e.Mode, Major: e.Major, Minor: e.Minor}
			if got != want || e.Whiteout {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if want.Mode&unix.S_IFMT == unix.S_IFLNK {
				if target, err := f.Readlink(at, &e); err != nil || string(target) != "target" {
					t.Errorf("%+v: target %q, %v", want, target, err)
				}
			}
			st, err := at.Stat()
			if err != nil || f.User() && st.Uid != uint32(f.owners.UID) {
				t.Errorf("%+v belongs to %d on the host, %v", want, st.Uid, err)
			}
		}
	})
}

func TestMetaChanges(t *testing.T) {
	eachUser(t, func(t *testing.T, f *Format, dir string) {
		at := At{open(t, dir), "file"}
		create(t, f, at, &Override{Mode: unix.S_IFREG | 0o644})
		for _, want := range []Override{
			{Mode: unix.S_IFREG | 0o4755},
			{Mode: unix.S_IFREG | 0o4755, UID: 3},
			{Mode: unix.S_IFREG | 0o200, UID: 3, GID: 4},
			{Mode: unix.S_IFREG | 0o600},
			{Mode: unix.S_IFREG | 0o444},
		} {
			have, err := f.Read(at)
			if err == nil {
				err = f.SetMeta(at, &have, &want)
			}
			e, err2 := f.Read(at)
			if err = errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			if got := (Override{UID: e.UID, GID: e.GID, Mode: e.Mode}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if e.Overridden && !f.NeedsOverride(&want) {
				t.Errorf("%+v keeps an override that it does not need", want)
			}
			if f.User() {
				fd, err := at.Open(unix.O_RDWR)
				if err != nil {
					t.Errorf("%+v cannot be opened on the host: %v", want, err)
				}
				unix.Close(fd)
			}
		}
	})
}

func TestMarks(t *testing.T) {
	eachUser(t, func(t *testing.T, f *Format, dir string) {
		fd := open(t, dir)
		must := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		d, file := At{fd, "dir"}, At{fd, "file"}
		create(t, f, d, &Override{Mode: unix.S_IFDIR | 0o755})
		create(t, f, file, &Override{Mode: unix.S_IFREG | 0o644})
		must(Whiteout(At{fd, "gone"}))
		must(f.SetOpaque(d))
		must(f.SetRedirect(d, "/old/place"))
		must(f.SetMetacopy(file))
		must(f.SetOrigin(file, Origin{3, 1 << 31}))
		e, err := f.Read(d)
		if err != nil || !e.Opaque || e.Redirect != "/old/place" || e.HasXattrs {
			t.Errorf("directory: %+v, %v", e, err)
		}
		e, err = f.Read(file)
		if err != nil || !e.Metacopy || !e.HasOrigin || e.Origin != (Origin{3, 1 << 31}) || e.HasXattrs {
			t.Errorf("file: %+v, %v", e, err)
		}
		if e, err = f.Read(At{fd, "gone"}); err != nil || !e.Whiteout {
			t.Errorf("whiteout: %+v, %v", e, err)
		}
		must(f.DropMetacopy(file))
		must(f.DropRedirect(d))
		must(f.DropRedirect(d)) // nothing to drop is fine
		if e, err = f.Read(file); err != nil || e.Metacopy {
			t.Errorf("after DropMetacopy: %+v, %v", e, err)
		}
	})
}

func TestXattrs(t *testing.T) {
	eachUser(t, func(t *testing.T, f *Format, dir string) {
		fd := open(t, dir)
		for _, name := range []string{"file", ""} {
			at := At{fd, name}
			if name != "" {
				create(t, f, at, &Override{Mode: unix.S_IFREG | 0o644, UID: 5})
			}
			names := []string{"security.capability", "trusted.x", "user.y"}
			values := map[string]string{
				"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
				"trusted.x":           "", "user.y": strings.Repeat("v", 1000),
			}
			for _, n := range names {
				if err := f.SetXattr(at, n, []byte(values[n]), 0); err != nil {
					t.Errorf("set %s: %v", n, err)
				}
				if v, ok, err := f.Xattr(at, n); err != nil || !ok || string(v) != values[n] {
					t.Errorf("%s: %q, %v, %v", n, v, ok, err)
				}
			}
			var got []string
			if err := f.EachXattr(at, func(n string) { got = append(got, n) }); err != nil {
				t.Error(err)
			}
			slices.Sort(got)
			if !slices.Equal(got, names) {
				t.Errorf("listed %v, want %v", got, names)
			}
			if e, err := f.Read(at); err != nil || !e.HasXattrs {
				t.Errorf("%+v, %v", e, err)
			}
			if err := f.SetXattr(at, "trusted.x", nil, unix.XATTR_CREATE); err != unix.EEXIST {
				t.Errorf("create again: %v", err)
			}
			if err := f.RemoveXattr(at, "trusted.x"); err != nil {
				t.Error(err)
			}
			if err := f.RemoveXattr(at, "trusted.x"); err != unix.ENODATA {
				t.Errorf("remove again: %v", err)
			}
			if err := f.SetXattr(at, "user.overlay.opaque", []byte("y"), 0); err != unix.EPERM {
				t.Errorf("an attribute of overlayfs could be set: %v", err)
			}
		}
	})
}

func TestWalk(t *testing.T) {
	eachUser(t, func(t *testing.T, f *Format, dir string) {
		fd := open(t, dir)
		create(t, f, At{fd, "b"}, &Override{Mode: unix.S_IFDIR | 0o500})
		sub := open(t, filepath.Join(dir, "b"))
		create(t, f, At{sub, "dev"}, &Override{Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3})
		create(t, f, At{fd, "a"}, &Override{Mode: unix.S_IFREG})
		create(t, f, At{fd, "c"}, &Override{Mode: unix.S_IFDIR | 0o700})
		create(t, f, At{open(t, filepath.Join(dir, "c")), "x"}, &Override{Mode: unix.S_IFREG})
		if err := Whiteout(At{fd, "b-gone"}); err != nil {
			t.Error(err)
		}
		var got []string
		err := f.Walk(dir, func(path string, at At, e *Entry) error {
			if e.Whiteout {
				path += " whiteout"
			}
			if e.Mode&unix.S_IFMT == unix.S_IFCHR && e.Major == 1 {
				path += " device"
			}
			got = append(got, path)
			if path == "c" {
				return fs.SkipDir
			}
			return nil
		})
		want := []string{"a", "b", "b/dev device", "b-gone whiteout", "c"}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("walked %q, want %q: %v", got, want, err)
		}
	})
}

func TestOwners(t *testing.T) {
	o := Owners{UID: 1000, GID: 100, UIDs: []Range{{100000, 1000}, {300000, 1000}}, GIDs: []Range{{200000, 65536}}}
	for _, c := range []struct{ uid, gid, wantUID, wantGID uint32 }{
		{1000, 100, 0, 0}, {100000, 200000, 1, 1}, {300005, 200099, 1006, 100}, {0, 0, 65534, 65534}, {101000, 99, 65534, 65534},
	} {
		if uid, gid := o.inside(c.uid, c.gid); uid != c.wantUID || gid != c.wantGID {
			t.Errorf("inside(%d, %d) = %d, %d, want %d, %d", c.uid, c.gid, uid, gid, c.wantUID, c.wantGID)
		}
	}
	root := Owners{}
	if uid, gid := root.inside(1000, 100); uid != 1000 || gid != 100 {
		t.Errorf("root's %d, %d", uid, gid)
	}
}

func TestMarker(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []bool{false, true, true} {
		if got, err := FuseOnly(dir); err != nil || got != want {
			t.Fatalf("FuseOnly: %v, %v, want %v", got, err, want)
		}
		if err := MarkFuseOnly(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// What is damaged is an error, never something else.
func TestDamagedOverride(t *testing.T) {
	eachUser(t, func(t *testing.T, f *Format, dir string) {
		at := At{open(t, dir), "file"}
		create(t, f, at, &Override{Mode: unix.S_IFREG | 0o644})
		for _, text := range []string{"", "1:2:3", "0:0:100644:0:x", "0:0:0:0:0", "0:0:300644:0:0", "-1:0:100644:0:0", "0:0:1100644:0:0"} {
			if err := at.set(f.prefix+nameOverride, []byte(text), 0); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Read(at); !errors.Is(err, os.ErrInvalid) {
				t.Errorf("override %q: %v", text, err)
			}
		}
	})
}

func TestMain(m *testing.M) {
	unix.Umask(0)
	os.Exit(m.Run())
}
