package mounttest_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
)

// masked is ok under a umask.
func (s *store) masked(mask int, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, args...)
	cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`umask %03o; exec "$@"`, mask), "sh", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("layerfs %q with umask %03o: %v", args, mask, err)
	}
	return string(out)
}

// TestPrivateFiles works on a store with an open umask and wants every file of the store and of the runroot for its
// owner alone.
func TestPrivateFiles(t *testing.T) {
	eachAccount(t, func(t *testing.T, a *testenv.Account) {
		for _, mask := range []int{0, 0o22} {
			t.Run(fmt.Sprintf("umask %03o", mask), func(t *testing.T) {
				s := newStore(t, a)
				archive := s.readableImage("alpine.oci.tar")
				mnt, dir := testenv.Mountpoint(t, a), testenv.Mountpoint(t, a)
				for _, args := range [][]string{
					{"load", "-q", "--keep-blobs", "--name", "localhost/a:1", "-i", archive},
					{"create", "--name", "c", "localhost/a:1"},
					{"create", "--name", "d", "localhost/a:1"},
					{"mount", mnt},
					{"mount", "--container", "c", "--driver", "fuse", dir},
					{"bigdata", "set", "c", "key", archive},
					{"metadata", "set", "c", "text"},
					{"layer", "create", "--name", "l"},
				} {
					s.masked(mask, args...)
				}
				for _, d := range []string{dir, filepath.Join(mnt, "containers/d/rootfs")} {
					err := as(a, func() error { return os.WriteFile(filepath.Join(d, "new"), []byte("x"), 0o666) })
					if err != nil {
						t.Error(err)
					}
				}
				s.wantPrivate(mnt, dir)
				s.masked(mask, "umount", dir)
				s.masked(mask, "umount", mnt)
				for _, args := range [][]string{{"commit", "c", "localhost/b:1"}, {"rmi", "localhost/b:1"}, {"gc"}, {"check", "-q"}, {"du"}} {
					s.masked(mask, args...)
				}
				s.wantPrivate(mnt, dir)
			})
		}
	})
}

// wantPrivate looks at every file of the store and of the runroot. What is in a container's upper directory has the
// modes of the container: the directories above it keep others out.
func (s *store) wantPrivate(mounts ...string) {
	s.t.Helper()
	owner := uint32(os.Getuid())
	if s.account != nil {
		owner = uint32(s.account.UID)
	}
	seen := 0
	err := as(s.account, func() error {
		for _, top := range []string{s.root, s.runroot} {
			err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := e.Info()
				if err != nil {
					return err
				}
				seen++
				rel, _ := filepath.Rel(top, path)
				words := strings.Split(rel, "/")
				switch {
				case top == s.runroot && words[0] == "trees" && len(words) == 2:
					return fs.SkipDir // a mount, which its own options protect
				case top == s.root && words[0] == "containers" && len(words) == 3 && words[2] == "upper":
					return fs.SkipDir
				}
				allowed := fs.FileMode(0o700)
				if owner == 0 && top == s.runroot && (rel == "." || rel == "trees") {
					allowed = 0o711 // the way to the trees of containers, which others may look into
				}
				if info.Mode().Perm()&^allowed != 0 || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
					s.t.Errorf("%s has the mode %v", path, info.Mode())
				}
				if st := info.Sys().(*syscall.Stat_t); st.Uid != owner {
					s.t.Errorf("%s belongs to %d, want %d", path, st.Uid, owner)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || seen < 20 {
		s.t.Errorf("%d files seen: %v", seen, err)
	}
}

// TestStrangers lets an ordinary user do to root's store and mounts what only their owner may: read, change, unmount,
// end. Nothing happens.
func TestStrangers(t *testing.T) {
	testenv.Require(t, "root", "fuse", "fusermount3")
	account := testenv.User(t)
	archive, _ := imageOf(t, layersOf(newTar().dir(".", 0o755).file("f", "1"))...)
	s := newStore(t, nil)
	name := s.load("-i", archive)
	s.ok("create", "--name", "c", name)
	mnt := s.mount()
	pid := s.server(mnt)
	// The way there is open; the store and the runroot are not.
	for _, dir := range []string{filepath.Dir(s.root), filepath.Dir(filepath.Dir(s.root)), filepath.Dir(mnt)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before := s.snapshot()
	stranger := &store{t: t, root: s.root, runroot: s.runroot, account: &account}
	for _, args := range [][]string{
		{"images"},
		{"inspect", name},
		{"rmi", name},
		{"rm", "c"},
		{"gc"},
		{"check"},
		{"wipe", "--force"},
		{"bigdata", "ls", "c"},
		{"mounts"},
		{"umount", mnt},
		{"umount", "--all"},
		{"shutdown"},
		{"save", "-o", "/dev/null", name},
		{"export", "-o", "/dev/null", "c"},
	} {
		if r := stranger.run(args...); r.code == 0 || r.stdout != "" {
			t.Errorf("a stranger: %v", r)
		}
	}
	err := as(&account, func() error {
		for _, dir := range []string{s.root, filepath.Join(s.runroot, "mounts"), filepath.Join(s.runroot, "log"), s.runroot} {
			if list, err := os.ReadDir(dir); err == nil {
				t.Errorf("a stranger lists %s: %v", dir, list)
			}
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != syscall.EPERM {
			t.Errorf("a stranger ends the server: %v", err)
		}
		for _, path := range []string{filepath.Join(mnt, "containers/c/rootfs/f"), filepath.Join(imageDir(mnt, name), "rootfs/f")} {
			if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
				f.Close()
				t.Errorf("a stranger opens %s for writing", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if got := s.server(mnt); got != pid || !alive(pid) {
		t.Errorf("the mount is served by %d, was by %d", got, pid)
	}
	s.unchanged(before)
}
