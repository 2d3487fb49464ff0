package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
)

// newContainer makes a container of the two layers that most tests use.
func newContainer(t testing.TB, st *layers.Store, name string) *layers.Container {
	t.Helper()
	load(t, st, newImage(t, "base", baseLayer(t), topLayer(t)), "base:1")
	c, err := st.CreateContainer(context.Background(), &layers.ContainerOptions{Image: "base:1", Names: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// mountedContainer mounts the tree of a container for the length of a test.
func mountedContainer(t testing.TB, st *layers.Store, name string) string {
	t.Helper()
	return containersAt(t, func(dir string) (*Containers, error) {
		return MountContainer(st, name, dir, &Options{Logger: quiet})
	}).Mountpoint()
}

func containersAt(t testing.TB, mount func(dir string) (*Containers, error)) *Containers {
	t.Helper()
	testenv.Require(t, "fuse")
	s, err := mount(testenv.Mountpoint(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Detach(); err != nil {
			t.Errorf("detach: %v", err)
		}
		select {
		case <-s.finished:
		case <-time.After(10 * time.Second):
			t.Error("Serve does not end")
		}
	})
	return s
}

// The suite of go-fuse, in a directory that is only the container's, and in one of the image.
func TestMountedPosix(t *testing.T) {
	st := newStore(t)
	newContainer(t, st, "c")
	root := mountedContainer(t, st, "c")
	own := filepath.Join(root, "own")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, test := range posixtest.All {
		if name == "FcntlFlockLocksFile" {
			continue // it wants two locks of one process to conflict, which they do on no file system of Linux
		}
		for _, dir := range []string{own, filepath.Join(root, "usr")} {
			t.Run(name+"/"+filepath.Base(dir), func(t *testing.T) {
				sub, err := os.MkdirTemp(dir, "posix")
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(sub, 0o755); err != nil {
					t.Fatal(err)
				}
				test(t, sub)
			})
		}
	}
}

// TestMountedContainers looks at what is around the trees, in a mount of the whole store.
func TestMountedContainers(t *testing.T) {
	st := newStore(t)
	c := newContainer(t, st, "web")
	beside := filepath.Join(t.TempDir(), "beside")
	s := mounted(t, st, &Options{Logger: quiet, Containers: beside})
	dir := filepath.Join(s.Mountpoint(), "containers")
	if target, err := os.Readlink(dir); err != nil || target != beside {
		t.Fatalf("containers leads to %q, %v", target, err)
	}
	wantNames(t, dir, "web")
	wantNames(t, filepath.Join(dir, "web"), "changes", "config.json", "diff.tar", "labels.json", "rootfs")
	if err := os.WriteFile(filepath.Join(dir, "web/rootfs/etc/new"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "web/changes")); err != nil || string(got) != "C /etc\nA /etc/new\n" {
		t.Errorf("changes: %q, %v", got, err)
	}
	if err := os.Rename(filepath.Join(dir, "web"), filepath.Join(dir, "front")); err != nil {
		t.Error(err)
	}
	if got, err := st.Container(context.Background(), "front"); err != nil || got.ID != c.ID {
		t.Errorf("after mv: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "front")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("rmdir of a container with changes: %v", err)
	}
	if err := os.Symlink("../images/docker.io/library/base@1", filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
	wantNames(t, dir, "front", "new")
	if got, err := os.ReadFile(filepath.Join(dir, "new/rootfs/etc/passwd")); err != nil || !strings.HasPrefix(string(got), "root:") {
		t.Errorf("the new container: %q, %v", got, err)
	}
	if err := os.Symlink("../images/docker.io/library/base@1", filepath.Join(dir, "front")); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := os.Symlink("../images/none@1", filepath.Join(dir, "other")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("an image that is not there: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "new")); err != nil {
		t.Errorf("rmdir of a container without changes: %v", err)
	}
	if _, err := st.DeleteContainer(context.Background(), "front", true); err != nil {
		t.Error(err)
	}
	eventually(t, "a removed container disappears", func() bool {
		list, err := os.ReadDir(dir)
		return err == nil && len(list) == 0
	})
	eventually(t, "its files go", func() bool {
		list, err := os.ReadDir(filepath.Join(st.Root(), "containers"))
		return err == nil && len(list) == 0
	})
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(beside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second mount is still there: %v", err)
	}
}

// eventually is soon for a machine that has other things to do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: not within twenty seconds", what)
			return
		}
	}
}

func wantNames(t testing.TB, dir string, want ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	var got []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s holds %q, %v, want %q", dir, got, err, want)
	}
}

// TestMountedOneWriter mounts a container twice.
func TestMountedOneWriter(t *testing.T) {
	st := newStore(t)
	newContainer(t, st, "c")
	one := mountedContainer(t, st, "c")
	other, err := layers.Open(st.Root(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	s := containersAt(t, func(dir string) (*Containers, error) {
		return MountContainer(other, "c", dir, &Options{Logger: quiet})
	})
	if err := os.WriteFile(filepath.Join(one, "etc/passwd"), []byte("changed"), 0o644); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(s.Mountpoint(), "etc/passwd")); err != nil || string(got) != "changed" {
		t.Errorf("the reader sees %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(s.Mountpoint(), "etc/passwd"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("the second writer gets %v", err)
	}
	if why := s.ReadOnly()["c"]; !strings.Contains(why, one) {
		t.Errorf("the reason is %q, and does not name %s", why, one)
	}
}

// TestMountedForgets makes and removes many files, and looks at files of the image, and wants nothing of them kept.
func TestMountedForgets(t *testing.T) {
	st := newStore(t)
	newContainer(t, st, "c")
	m := containersAt(t, func(dir string) (*Containers, error) { return MountContainer(st, "c", dir, &Options{Logger: quiet}) })
	dir := filepath.Join(m.Mountpoint(), "many")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := os.Rename(name, name+"x"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(m.Mountpoint(), func(_ string, _ os.DirEntry, err error) error { return err }); err != nil {
		t.Error(err)
	}
	o := m.t.single.open.Load()
	eventually(t, "the kernel forgets what was removed", func() bool { return o.Stats().Nodes < 10 })
	if n := o.Stats(); n.Files > 10 {
		t.Errorf("%+v after everything was closed and removed", n)
	}
}

// TestMountedMovedDirectory lists a directory, moves it into another one and wants that as its parent in the next
// list, of which the kernel has kept the first.
func TestMountedMovedDirectory(t *testing.T) {
	st := newStore(t)
	newContainer(t, st, "c")
	root := mountedContainer(t, st, "c")
	for _, dir := range []string{"new/dir", "new/other", "to"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ino := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Error(err)
		}
		return st.Ino
	}
	at := func(dir string) {
		t.Helper()
		path := filepath.Join(root, dir)
		for range 2 {
			if got, want := listedDots(t, path)[".."], ino(filepath.Dir(path)); got != want {
				t.Errorf("%s: .. is listed as inode %#x, want %#x", dir, got, want)
			}
		}
	}
	rename := func(from, to string, flags uint) {
		t.Helper()
		if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, from), unix.AT_FDCWD, filepath.Join(root, to), flags); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"new/dir", "etc"} { // one of the image, too
		at(dir)
		rename(dir, "to/moved", 0)
		at("to/moved")
		rename("to/moved", "new/other", unix.RENAME_EXCHANGE)
		at("to/moved")
		at("new/other")
		rename("new/other", dir, 0)
		at(dir)
		rename("to/moved", "new/other", 0)
		at("new/other")
	}
}
