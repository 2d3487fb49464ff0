package fs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
)

func TestMountedImage(t *testing.T) {
	st := newStore(t)
	loadFixture(t, st)
	testenv.Require(t, "fuse")
	dir := testenv.Mountpoint(t, nil)
	s := serving(t, func() (*Server, error) { return MountImage(st, "fixture:1", dir, &Options{IDMap: "none"}) })
	if diff := cmp.Diff(merged, treeOf(t, dir)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	if d := listedDots(t, filepath.Join(dir, "etc")); d[".."] != 1 {
		t.Errorf("..: %v", d)
	}
	if _, err := st.Remove(t.Context(), "fixture:1", nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if got, err := os.ReadFile(filepath.Join(dir, "usr/bin/big")); err != nil || string(got) != big {
		t.Errorf("after the removal: %d bytes, %v", len(got), err)
	}
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	if _, err := MountImage(st, "nosuch", dir, nil); !errors.Is(err, layers.ErrImageUnknown) {
		t.Errorf("unknown image: %v", err)
	}
}

func TestMountedUnmount(t *testing.T) {
	st := newStore(t)
	loadFixture(t, st)
	s := mounted(t, st, nil)
	f, err := os.Open(filepath.Join(s.Mountpoint(), rootfs, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(); !errors.Is(err, ErrMountBusy) {
		t.Errorf("unmount of a mount in use: %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.Mountpoint(), rootfs)); err != nil {
		t.Errorf("after the refusal: %v", err)
	}
	f.Close()
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	if err := s.Unmount(); !errors.Is(err, ErrNotMounted) {
		t.Errorf("second unmount: %v", err)
	}
	if err := s.Serve(); err != nil {
		t.Error(err)
	}
}

// TestMountedDetach wants the server to end although the mount is in use.
func TestMountedDetach(t *testing.T) {
	st := newStore(t)
	loadFixture(t, st)
	s := mounted(t, st, nil)
	f, err := os.Open(filepath.Join(s.Mountpoint(), rootfs))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Detach(); err != nil {
		t.Error(err)
	}
	if err := s.Serve(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(s.Mountpoint()); err != nil || len(entries) != 0 {
		t.Errorf("still mounted: %v, %v", entries, err)
	}
}

func TestMountedByOthers(t *testing.T) {
	st := newStore(t)
	loadFixture(t, st)
	s := mounted(t, st, nil)
	// Somebody else unmounts.
	if err := exec.Command("fusermount3", "-u", s.Mountpoint()).Run(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(); err != nil {
		t.Error(err)
	}
}

func TestMountedErrors(t *testing.T) {
	testenv.Require(t, "fuse")
	st := newStore(t)
	dir := testenv.Mountpoint(t, nil)
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir   string
		o     *Options
		path  string
		want  error
		words string
	}{
		{dir: dir + "/none", want: fs.ErrNotExist, words: "mkdir"},
		{dir: plain, want: unix.ENOTDIR},
		{dir: dir, o: &Options{Extra: []string{"auto_unmount"}}, want: ErrOption, words: "auto_unmount"},
		{dir: dir, o: &Options{IDMap: "1:2"}, want: ErrOption},
	} {
		s, err := Mount(st, c.dir, c.o)
		if err == nil {
			s.Detach()
		}
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.words) {
			t.Errorf("%s %+v: %v", c.dir, c.o, err)
		}
	}
	if os.Geteuid() == 0 {
		return
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := os.Stat("/usr/bin/fusermount3"); err != nil {
		if _, err := Mount(st, dir, nil); !errors.Is(err, ErrNoHelper) {
			t.Errorf("without fusermount3: %v", err)
		}
	}
	if _, err := Mount(st, "/etc", nil); !errors.Is(err, ErrMountPermission) {
		t.Errorf("on /etc: %v", err)
	}
	if _, err := Mount(st, dir, &Options{Passthrough: true}); !errors.Is(err, ErrOption) {
		t.Errorf("passthrough: %v", err)
	}
}

// TestMountedOverDead leaves a dead mount behind and mounts again.
func TestMountedOverDead(t *testing.T) {
	testenv.Require(t, "fuse")
	st := newStore(t)
	loadFixture(t, st)
	dir := testenv.Mountpoint(t, nil)
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperServe$")
	cmd.Env = append(os.Environ(), "LAYERFS_TEST_SERVE="+st.Root()+":"+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := os.Stat(dir); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("no dead mount: %v", err)
	}
	s := serving(t, func() (*Server, error) { return Mount(st, dir, nil) })
	if _, err := os.Stat(filepath.Join(dir, rootfs)); err != nil {
		t.Error(err)
	}
	if cleaned, err := CleanDead(dir); cleaned || err != nil {
		t.Errorf("a living mount: %v, %v", cleaned, err)
	}
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
}

// TestHelperServe is no test: it serves a mount until it is killed.
func TestHelperServe(t *testing.T) {
	root, dir, ok := strings.Cut(os.Getenv("LAYERFS_TEST_SERVE"), ":")
	if !ok {
		t.Skip("only for TestMountedOverDead")
	}
	st, err := layers.Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Mount(st, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready!")
	s.Serve()
}

// TestAsUser runs the tests of mounts as an ordinary user.
func TestAsUser(t *testing.T) {
	testenv.Require(t, "fuse", "root", "user")
	u := testenv.User(t)
	dir := u.TempDir(t)
	program := filepath.Join(dir, "fs.test")
	in, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, in, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := testenv.RunAs(t, u, program, "-test.run=^TestMounted", "-test.timeout=120s", "-test.v")
	cmd.Env = append(cmd.Env, "TMPDIR="+dir, "PATH="+os.Getenv("PATH"), "LAYERFS_TEST_REQUIRE=fuse")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "--- PASS: TestMounted"); n < 10 {
		t.Errorf("only %d tests passed:\n%s", n, out)
	}
}

// TestMountedPassthrough reads through the kernel from the store's file, by several at once, and wants nothing to stay
// registered.
func TestMountedPassthrough(t *testing.T) {
	testenv.Require(t, "fuse", "root")
	st := newStore(t)
	loadFixture(t, st)
	s := mounted(t, st, &Options{Passthrough: true})
	path := filepath.Join(s.Mountpoint(), rootfs, "usr/bin/big")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if got, err := os.ReadFile(path); err != nil || string(got) != big {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	if got, err := os.ReadFile(filepath.Join(s.Mountpoint(), rootfs, "lower")); err != nil || string(got) != "#!shell" {
		t.Errorf("a small file: %q, %v", got, err)
	}
	if n := s.Stats().Requests["read"]; n > 4 {
		t.Errorf("%d reads came to the server", n)
	}
	soon(t, "release", func() bool {
		s.fs.backing.mu.Lock()
		defer s.fs.backing.mu.Unlock()
		return len(s.fs.backing.files) == 0
	})
}
