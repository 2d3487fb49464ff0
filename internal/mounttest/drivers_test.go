package mounttest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// What is done in a container of the alpine image, one step after the other; each is
// done through another driver than the one before.
var containerSteps = []string{
	`mkdir -p a/b/c; echo one > a/one; ln a/one a/two; ln -s one a/sym; mkfifo a/fifo; printf 'x%.0s' $(seq 5000) > a/b/c/long`,
	`rm etc/motd; echo more >> etc/passwd; chmod 600 etc/group; chmod 2755 home; touch -d '2001-02-03 04:05:06.789 UTC' etc/hosts`,
	`mv usr/share usr/moved; mv a/b b; echo x > usr/moved/new`,
	`rm -r usr/moved/man; mv usr/moved usr/share; rm -rf var; mkdir var; echo v > var/v`,
	`mv b/c/long long; ln long etc/long; truncate -s 1M sparse; echo tail >> sparse; setfattr -n user.k -v v long`,
	`rm -rf lib; echo file > lib; mv etc conf; mkdir etc; echo e > etc/passwd; mv conf etc/conf`,
	`touch "$(printf 'new\nline')"; mkdir deep; cd deep; for i in 1 2 3 4 5 6 7 8 9; do mkdir $i; cd $i; done; echo d > d; mv d e; cd ../../..; mv 8 eight 2>/dev/null || true`,
	`rm a/two; echo changed > a/one; rm -r etc/conf/apk; mv etc/conf/passwd etc/old; rmdir home; mkdir home; chmod 700 home`,
}

// rootSteps are what only root can do.
var rootSteps = []string{
	`mknod a/null c 1 3; mknod a/disk b 7 1; chown 12:34 etc/passwd a/one; chown -h 5:6 a/sym; setfattr -n trusted.t -v q a/one`,
	`chmod 4755 bin/busybox; chown 8:8 bin; setcap cap_net_raw+ep bin/busybox; setfacl -m u:7:rx bin`,
}

// TestContainerDrivers works in a container through the kernel and through our own
// union in turn. After each step the other driver must show the same tree, and after
// some what export writes of the container, and of the image that commit makes of it.
func TestContainerDrivers(t *testing.T) {
	testenv.Require(t, "root", "fuse", "overlayfs", "shared")
	s := newStore(t, nil)
	image := s.load("-i", filepath.Join(testenv.Shared(t), "images/alpine.oci.tar"))
	s.ok("create", "--name", "c", image)
	drivers := []string{"overlay", "fuse"}
	steps := append(append([]string{}, containerSteps[:2]...), rootSteps...)
	steps = append(steps, containerSteps[2:]...)
	for i, step := range steps {
		want := s.work("c", drivers[i%2], step)
		got := s.work("c", drivers[(i+1)%2], "true")
		label := drivers[i%2] + ": " + step
		report(t, label+": other driver", treetest.Diff(want, got, containerOptions))
		if i%3 != 0 && i != len(steps)-1 {
			continue // the rest costs most of the time
		}
		report(t, label+": export", treetest.Diff(want, s.unpacked("c"), containerOptions))
		before := s.ok("changes", "c")
		s.ok("commit", "c", "new:1")
		if left := s.ok("changes", "c", "new:1"); left != "" {
			t.Errorf("%s: the commit differs from the container:\n%s", label, left)
		}
		report(t, label+": commit", treetest.Diff(want, s.unpacked("new:1"), containerOptions))
		if after := s.ok("changes", "new:1", image); after != before {
			t.Errorf("%s: changes of the container\n%s\nand of its image\n%s", label, before, after)
		}
	}
	s.checkClean()
}

// containerOptions leave out the number of links of what a kernel overlay counts in
// the image: a name that is gone is counted there.
var containerOptions = &treetest.Options{Opaque: true, Entry: sameLinks}

func sameLinks(_ string, want, got *treetest.Entry) {
	if want != nil && got != nil && want.Kind != treetest.Directory {
		got.Nlink = want.Nlink
	}
}

// work mounts a container, runs a script in it and returns what it shows then.
func (s *store) work(name, driver, script string) *treetest.Snapshot {
	s.t.Helper()
	dir := testenv.Mountpoint(s.t, s.account)
	s.ok("mount", "--container", name, "--driver", driver, dir)
	defer testenv.Detach(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
	if s.account != nil {
		s.account.Apply(cmd)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %s: %v\n%s", driver, script, err, out)
	}
	snap := s.take(dir)
	if driver == "overlay" {
		snap.Problems = nil // where directories were renamed the kernel lists other inode numbers than it shows
	}
	s.ok("umount", dir)
	return snap
}

// unpacked is the tree that export writes, unpacked by GNU tar as root.
func (s *store) unpacked(item string) *treetest.Snapshot {
	s.t.Helper()
	file := filepath.Join(filepath.Dir(s.root), "export.tar")
	s.ok("export", "-o", file, item)
	dir := s.t.TempDir()
	cmd := exec.Command("tar", "-xpf", file, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("tar: %v\n%s", err, out)
	}
	snap, err := treetest.Take(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return snap
}

// TestContainerKilled kills the serving process at any moment: what was written and
// acknowledged is there afterwards.
func TestContainerKilled(t *testing.T) {
	testenv.Require(t, "root", "fuse", "overlayfs", "shared")
	s := newStore(t, nil)
	image := s.load("-i", filepath.Join(testenv.Shared(t), "images/alpine.oci.tar"))
	for _, driver := range []string{"overlay", "fuse"} {
		s.ok("create", "--name", driver, image)
		for i := range 3 {
			dir := testenv.Mountpoint(t, nil)
			s.ok("mount", "--container", driver, "--driver", driver, dir)
			list := filepath.Join(t.TempDir(), "done")
			cmd := exec.Command("sh", "-c", `cd "$1"; for i in $(seq 2000); do mkdir -p w/$3/$i && echo $i > w/$3/$i/f && mv w/$3/$i/f w/$3/$i/g && echo $i >> "$2" || exit; done`,
				"sh", dir, list, string(rune('a'+i)))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(30+40*i) * time.Millisecond)
			s.kill(dir)
			if driver == "overlay" {
				_ = cmd.Process.Kill() // the kernel goes on without the process
			}
			_ = cmd.Wait()
			testenv.Detach(dir)
			s.ok("mount", "--container", driver, "--driver", driver, dir)
			done, _ := os.ReadFile(list)
			for _, n := range strings.Fields(string(done)) {
				if text, err := os.ReadFile(filepath.Join(dir, "w", string(rune('a'+i)), n, "g")); err != nil || string(text) != n+"\n" {
					t.Fatalf("%s: step %s was acknowledged and is lost: %q, %v", driver, n, text, err)
				}
			}
			s.ok("umount", dir)
		}
	}
	s.checkClean()
}
