package faultfs

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
)

// mounted returns an empty file system that records, and where it is mounted.
func mounted(t *testing.T) (*FS, string) {
	t.Helper()
	testenv.Require(t, "fuse")
	f := New(NewState(uint32(os.Geteuid()), uint32(os.Getegid())))
	dir := testenv.Mountpoint(t, nil)
	m, err := f.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	f.Record()
	return f, dir
}

// contents says what a state holds: contents by path.
func contents(s *State) string {
	m := map[string]string{}
	s.walk(s.inodes[rootIno], "", func(path string, i *inode) {
		if i.isDir() {
			m[path+"/"] = ""
			return
		}
		m[path] = string(i.data)
		for name, v := range i.xattrs {
			m[path] += fmt.Sprintf(" %s=%s", name, v)
		}
	})
	var out []string
	for _, p := range slices.Sorted(maps.Keys(m)) {
		out = append(out, strings.TrimSuffix(p+":"+m[p], ":"))
	}
	return strings.Join(out, " ")
}

func fsync(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPowerModels says for short histories what is left of them.
func TestPowerModels(t *testing.T) {
	for _, c := range []struct {
		name            string
		do              func(t *testing.T, p func(string) string)
		strict, journal string
	}{
		{"nothing synced", func(t *testing.T, p func(string) string) {
			must(t, os.WriteFile(p("a"), []byte("1"), 0o644))
		}, "", ""},
		{"only the content", func(t *testing.T, p func(string) string) {
			must(t, os.WriteFile(p("a"), []byte("1"), 0o644))
			fsync(t, p("a"))
		}, "", "/a:1"},
		{"only the name", func(t *testing.T, p func(string) string) {
			must(t, os.WriteFile(p("a"), []byte("1"), 0o644))
			fsync(t, p(""))
		}, "/a", "/a"},
		{"both", func(t *testing.T, p func(string) string) {
			must(t, os.WriteFile(p("a"), []byte("1"), 0o644))
			fsync(t, p("a"))
			fsync(t, p(""))
			must(t, os.WriteFile(p("a"), []byte("2"), 0o644))
			must(t, os.WriteFile(p("b"), []byte("2"), 0o644))
		}, "/a:1", "/a:1"},
		{"renamed, the new directory synced", func(t *testing.T, p func(string) string) {
			must(t, errors.Join(os.Mkdir(p("d"), 0o755), os.Mkdir(p("e"), 0o755)))
			fsync(t, p(""))
			must(t, os.WriteFile(p("d/a"), []byte("1"), 0o644))
			fsync(t, p("d/a"))
			must(t, os.Rename(p("d/a"), p("e/b")))
			fsync(t, p("e"))
		}, "/d/ /e/ /e/b:1", "/d/ /e/ /e/b:1"},
		{"replaced without a sync", func(t *testing.T, p func(string) string) {
			must(t, os.WriteFile(p("a"), []byte("old"), 0o644))
			fsync(t, p("a"))
			fsync(t, p(""))
			must(t, os.WriteFile(p("b"), []byte("new"), 0o644))
			must(t, os.Rename(p("b"), p("a")))
			fsync(t, p(""))
		}, "/a", "/a"},
		{"a journal keeps the order", func(t *testing.T, p func(string) string) {
			must(t, errors.Join(os.Mkdir(p("d"), 0o755), os.WriteFile(p("d/a"), []byte("1"), 0o644), os.WriteFile(p("b"), []byte("2"), 0o644)))
			fsync(t, p("b"))
		}, "", "/b:2 /d/ /d/a"},
		{"attributes", func(t *testing.T, p func(string) string) {
			must(t, os.WriteFile(p("a"), []byte("1"), 0o644))
			fsync(t, p(""))
			must(t, unix.Setxattr(p("a"), "user.x", []byte("y"), 0))
			fsync(t, p("a"))
			must(t, unix.Removexattr(p("a"), "user.x"))
		}, "/a:1 user.x=y", "/a:1 user.x=y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, dir := mounted(t)
			c.do(t, func(name string) string { return filepath.Join(dir, name) })
			log := f.Log()
			for m, want := range map[Model]string{Strict: c.strict, Journal: c.journal} {
				if got := contents(log.Crash(len(log.Ops), m, nil)); got != want {
					t.Errorf("%s: got %q, want %q", m, got, want)
				}
			}
			if got, want := contents(log.Whole(len(log.Ops))), contents(f.State()); got != want {
				t.Errorf("all of the log gives %q, but there is %q", got, want)
			}
		})
	}
}

// TestSynced: whatever else is lost, what was synced with its name is there, and a
// rename never loses both names.
func TestSynced(t *testing.T) {
	f, dir := mounted(t)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 300 {
		name := filepath.Join(dir, fmt.Sprint("f", r.IntN(5)))
		switch r.IntN(3) {
		case 0:
			must(t, os.WriteFile(name, []byte(strings.Repeat(fmt.Sprint(i), 1+r.IntN(2000))), 0o644))
		case 1:
			if err := os.Rename(name, filepath.Join(dir, fmt.Sprint("f", r.IntN(5)))); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		case 2:
			if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "kept"), []byte("kept"), 0o644))
	fsync(t, filepath.Join(dir, "kept"))
	fsync(t, dir)
	at := f.Len()
	must(t, os.Rename(filepath.Join(dir, "kept"), filepath.Join(dir, "moved")))
	must(t, os.WriteFile(filepath.Join(dir, "more"), []byte("more"), 0o644))
	log := f.Log()
	kept, moved := 0, 0
	for i := range 200 {
		for _, m := range []Model{Strict, Journal} {
			got := contents(log.Crash(at+i%(len(log.Ops)-at+1), m, r))
			switch {
			case strings.Contains(got, "/kept:kept"):
				kept++
			case strings.Contains(got, "/moved:kept"):
				moved++
			default:
				t.Fatalf("%s: a synced file is gone: %q", m, got)
			}
		}
	}
	if kept == 0 || moved == 0 {
		t.Errorf("%d times the old name, %d times the new", kept, moved)
	}
}

func TestHook(t *testing.T) {
	f, dir := mounted(t)
	path := filepath.Join(dir, "a")
	must(t, os.WriteFile(path, []byte("old"), 0o644))
	for kind, want := range map[Kind]error{Create: unix.EIO, Write: unix.ENOSPC, Fsync: unix.EIO, Rename: unix.EROFS, Unlink: unix.EIO, Close: unix.EIO, Setattr: unix.EIO} {
		f.SetHook(func(o *Op) error {
			if o.Kind == kind {
				return want
			}
			return nil
		})
		all := func() error {
			file, err := os.Create(path + "2")
			if err != nil {
				return err
			}
			_, err = file.WriteString("text")
			err = errors.Join(err, file.Sync(), file.Close())
			return errors.Join(err, os.Chmod(path+"2", 0o600), os.Rename(path+"2", path+"3"), os.Remove(path+"3"))
		}
		if err := all(); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", kind, err, want)
		}
		f.SetHook(nil)
		must(t, errors.Join(os.RemoveAll(path+"2"), os.RemoveAll(path+"3")))
	}
	f.SetHook(func(o *Op) error {
		if o.Kind == Write {
			return fmt.Errorf("%w: %w", ErrShort, unix.ENOSPC)
		}
		return nil
	})
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	n, err := unix.Write(int(file.Fd()), []byte("1234"))
	if n != 2 || err != nil {
		t.Errorf("a short write: %d, %v", n, err)
	}
	must(t, file.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
