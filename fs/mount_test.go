package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
)

// The tests called TestMounted... run with the rights of whoever runs them, and by TestAsUser once more as an ordinary
// user.

// mounted mounts a store for the length of a test and wants everything to end properly with it.
func mounted(t testing.TB, st *layers.Store, o *Options) *Server {
	t.Helper()
	testenv.Require(t, "fuse")
	dir := testenv.Mountpoint(t, nil)
	return serving(t, func() (*Server, error) { return Mount(st, dir, o) })
}

func serving(t testing.TB, mount func() (*Server, error)) *Server {
	t.Helper()
	s, err := mount()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		select {
		case <-s.finished:
		default:
			if err := s.Detach(); err != nil {
				t.Errorf("detach: %v", err)
			}
		}
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Serve does not end")
		}
	})
	return s
}

// soon waits up to a second for a condition.
func soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: not within a second", what)
			return
		}
	}
}

// describe says about a file what a user sees.
func describe(t testing.TB, path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return ""
	}
	st := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
	if info.IsDir() {
		return text
	}
	if !info.ModTime().Equal(mtime) {
		t.Errorf("%s: time %v", path, info.ModTime())
	}
	text += fmt.Sprintf(" %d ", st.Nlink)
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			t.Error(err)
		}
		return text + target
	case fs.ModeDevice | fs.ModeCharDevice:
		return text + fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return text + fmt.Sprint(info.Size())
}

// treeOf describes everything below a directory.
func treeOf(t testing.TB, dir string) map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		all[rel] = describe(t, path)
		if info, err := d.Info(); err == nil && info.Mode().Type() != d.Type() {
			t.Errorf("%s: listed as %v, is %v", rel, d.Type(), info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

func loadFixture(t testing.TB, st *layers.Store) *layers.Image {
	return load(t, st, newImage(t, "me", baseLayer(t), topLayer(t)), "fixture:1")
}

func TestMountedTree(t *testing.T) {
	st := newStore(t)
	img := loadFixture(t, st)
	s := mounted(t, st, &Options{IDMap: "none"})
	root := filepath.Join(s.Mountpoint(), rootfs)
	if diff := cmp.Diff(merged, treeOf(t, root)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	for name, want := range map[string]string{"etc/passwd": "root:x:0:0:changed", "usr/bin/big": big, "lower": "#!shell", "bin/sh2": "#!shell", "etc/empty": ""} {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for _, name := range []string{"etc/motd", "gone", "sub/a", "etc/.wh.motd", "nothing"} {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The exact tars, also from the middle.
	for i, want := range [][]byte{baseLayer(t), topLayer(t)} {
		path := filepath.Join(s.Mountpoint(), "layers/sha256", strings.TrimPrefix(string(img.DiffIDs()[i]), "sha256:"), "layer.tar")
		got, err := os.ReadFile(path)
		if err != nil || string(got) != string(want) {
			t.Errorf("layer.tar: %d bytes of %d, %v", len(got), len(want), err)
		}
	}
	config, err := os.ReadFile(filepath.Join(filepath.Dir(root), "config.json"))
	if raw, berr := st.Blob(img.ID); err != nil || berr != nil || string(config) != string(raw) {
		t.Errorf("config.json: %v %v", err, berr)
	}
	if err := os.WriteFile(filepath.Join(root, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
		t.Errorf("write: %v", err)
	}
}

func TestMountedDotDot(t *testing.T) {
	st := newStore(t)
	loadFixture(t, st)
	s := mounted(t, st, nil)
	ino := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Error(err)
		}
		return st.Ino
	}
	filepath.WalkDir(s.Mountpoint(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			t.Error(err)
			return nil
		}
		if !d.IsDir() || path == s.Mountpoint() {
			return nil
		}
		want := map[string]uint64{".": ino(path), "..": ino(filepath.Dir(path))}
		for name, in := range listedDots(t, path) {
			if in != want[name] {
				t.Errorf("%s: %s is listed as inode %#x, is %#x", path, name, in, want[name])
			}
		}
		return nil
	})
}

// listedDots returns the inode numbers of "." and ".." as listed.
func listedDots(t testing.TB, dir string) map[string]uint64 {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer unix.Close(fd)
	buf := make([]byte, 32768)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		t.Error(err)
	}
	found := map[string]uint64{}
	for b := buf[:n]; len(b) > 0; {
		ino := binary.NativeEndian.Uint64(b)
		reclen := int(b[16]) | int(b[17])<<8
		name := strings.TrimRight(string(b[19:reclen]), "\x00")
		if name == "." || name == ".." {
			found[name] = ino
		}
		b = b[reclen:]
	}
	return found
}

// wideLayer is a layer of many files.
func wideLayer(t testing.TB, dirs, files int) []byte {
	var all []member
	for d := range dirs {
		all = append(all, dirMember(fmt.Sprintf("d%02d", d)))
		for f := range files {
			all = append(all, file(fmt.Sprintf("d%02d/file-%04d", d, f), fmt.Sprint(d, f)))
		}
	}
	return tarOf(t, all...)
}

// walk reads the attributes of everything and the content of small files.
func walk(t testing.TB, dir string, read bool) (entries int) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		if _, err := d.Info(); err != nil {
			return err
		}
		if read && d.Type().IsRegular() {
			_, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return entries
}

// TestMountedSecondWalk wants the kernel to need nobody for a second walk, reading included. A kernel that takes memory
// back at leisure (DAMON) may have forgotten some files and listings, which it then asks for again: the walk is repeated.
func TestMountedSecondWalk(t *testing.T) {
	st := newStore(t)
	load(t, st, newImage(t, "me", wideLayer(t, 20, 300), wideLayer(t, 3, 10)), "wide:1")
	s := mounted(t, st, nil)
	root := filepath.Join(s.Mountpoint(), "images/docker.io/library/wide@1/rootfs")
	if n := walk(t, root, true); n != 1+20+20*300 {
		t.Errorf("%d entries", n)
	}
	var needed []string
	for tries, other := 8, false; tries > 0 && !other; tries-- {
		needed = nil
		before := s.Stats().Requests
		walk(t, root, true)
		os.Stat(filepath.Join(root, "d01/file-0001"))
		for op, n := range s.Stats().Requests {
			if op != "forget" && op != "batch_forget" && n != before[op] {
				needed = append(needed, fmt.Sprintf("%d %s requests", n-before[op], op))
				other = other || op != "read" && op != "readdirplus"
			}
		}
		if needed == nil {
			return
		}
	}
	t.Errorf("the second walk and those after it need %v", needed)
}

func TestMountedParallel(t *testing.T) {
	st := newStore(t)
	load(t, st, newImage(t, "me", baseLayer(t), wideLayer(t, 10, 200), topLayer(t)), "wide:1")
	s := mounted(t, st, nil)
	root := filepath.Join(s.Mountpoint(), "images/docker.io/library/wide@1")
	want := -1
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			n := walk(t, root, true)
			mu.Lock()
			defer mu.Unlock()
			if want < 0 {
				want = n
			}
			if n != want {
				t.Errorf("%d entries, another walk found %d", n, want)
			}
		})
	}
	wg.Wait()
}

// TestMountedFollows loads and removes images under a mount that is being listed all the time.
func TestMountedFollows(t *testing.T) {
	st := newStore(t)
	loadFixture(t, st)
	s := mounted(t, st, &Options{Logger: quiet})
	images := filepath.Join(s.Mountpoint(), "images")
	list := func(dir string) string {
		entries, err := os.ReadDir(filepath.Join(images, dir))
		if err != nil {
			return err.Error()
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				filepath.WalkDir(images, func(string, fs.DirEntry, error) error { return nil })
			}
		})
	}
	defer wg.Wait()
	defer stop()

	if got := list("docker.io/library"); got != "fixture@1" {
		t.Errorf("at first: %s", got)
	}
	if _, err := os.Stat(filepath.Join(images, "quay.io/new@2/rootfs/only")); err == nil {
		t.Error("is there already")
	}
	img := load(t, st, newImage(t, "new", tarOf(t, file("only", "this"))), "quay.io/new:2", "fixture:2")
	soon(t, "new name", func() bool { return list("docker.io/library") == "fixture@1 fixture@2" })
	soon(t, "new repository", func() bool { return list("") == "by-id docker.io quay.io" })
	soon(t, "new file", func() bool { _, err := os.Stat(filepath.Join(images, "quay.io/new@2/rootfs/only")); return err == nil })
	soon(t, "new ID", func() bool { return strings.Contains(list("by-id"), img.ID.Encoded()) })

	// A name that moves shows the other image.
	if err := st.Tag(t.Context(), "fixture:1", "fixture:2"); err != nil {
		t.Fatal(err)
	}
	soon(t, "moved name", func() bool {
		got, _ := os.ReadFile(filepath.Join(images, "docker.io/library/fixture@2/rootfs/etc/passwd"))
		return string(got) == "root:x:0:0:changed"
	})

	// What is open stays readable after the removal.
	f, err := os.Open(filepath.Join(images, "quay.io/new@2/rootfs/only"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Remove(t.Context(), string(img.ID), &layers.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	soon(t, "removed repository", func() bool { return list("") == "by-id docker.io" })
	soon(t, "removed ID", func() bool { return !strings.Contains(list("by-id"), img.ID.Encoded()) })
	if _, err := os.Stat(filepath.Join(images, "quay.io/new@2")); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESTALE) {
		t.Errorf("removed name: %v", err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != "this" {
		t.Errorf("open file of a removed image: %q, %v", got, err)
	}
	stop()
	wg.Wait()
	if n := s.Stats().Lingering; n != 1 {
		t.Errorf("%d layers linger, want the one with the open file", n)
	}
	f.Close()
	for end := time.Now().Add(10 * time.Second); s.Stats().Lingering > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the removed layer is not let go: %+v", s.Stats())
		}
	}
}
