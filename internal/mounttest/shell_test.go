package mounttest_test

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// shell runs a script with arguments and fails unless it ends with code and
// prints nothing to standard error.
func shell(t testing.TB, code int, script string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-o", "pipefail", "-ec", script, "bash"}, args...)...)
	cmd.Dir = "/"
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s: still running after %v", script, patience)
	}
	if got := cmd.ProcessState.ExitCode(); got != code || stderr.Len() > 0 {
		t.Errorf("%s %q: exit %d (%v), want %d\n%.2000s%.2000s", script, args, got, err, code, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// TestShell runs what people run over a mount.
func TestShell(t *testing.T) {
	testenv.Require(t, "root", "fuse", "tar")
	s := newStore(t, nil)
	name := s.load("-i", filepath.Join(testenv.Shared(t), "images/mini-debian.oci.tar"))
	mnt := s.mount()
	root := filepath.Join(imageDir(mnt, name), "rootfs")
	want := s.take(root)
	work := t.TempDir()

	t.Run("cp", func(t *testing.T) {
		shell(t, 0, `cp -a "$1" "$2"`, root, work+"/copy")
		report(t, "copy", treetest.Diff(want, s.take(work+"/copy"), nil))
	})
	t.Run("diff", func(t *testing.T) {
		// Of devices and FIFOs diff says that it cannot compare them.
		out := shell(t, 0, `{ diff -r --no-dereference "$1" "$2" || true; } | { grep -v 'while file .* is a' || true; }`, root, work+"/copy")
		if out != "" {
			t.Errorf("diff -r finds %q", out)
		}
	})
	t.Run("tar", func(t *testing.T) {
		shell(t, 0, `mkdir "$2" && tar --xattrs --xattrs-include='*' -C "$1" -cf - . | tar --xattrs --xattrs-include='*' -p --delay-directory-restore -C "$2" -xf -`, root, work+"/untarred")
		report(t, "tar", treetest.Diff(want, s.take(work+"/untarred"), &treetest.Options{Entry: wholeSeconds}))
		shell(t, 0, `tar -C "$1" -cf - . | wc -c`, root)
	})
	t.Run("grep", func(t *testing.T) {
		count := shell(t, 0, `grep -rlI --devices=skip root "$1"/etc "$1"/usr/share | wc -l`, root)
		if again := shell(t, 0, `grep -rlI --devices=skip root "$1"/etc "$1"/usr/share | wc -l`, work+"/copy"); count != again {
			t.Errorf("grep -r finds %q files, in a copy %q", count, again)
		}
	})
	t.Run("find", func(t *testing.T) {
		for _, how := range []string{"-print", "-type f", "-perm /6000", "-type f -links +1", "-newermt 2000-01-01", "-empty"} {
			script := `cd "$1" && find . ` + how + ` | sort | sha256sum`
			if a, b := shell(t, 0, script, root), shell(t, 0, script, work+"/copy"); a != b {
				t.Errorf("find %s differs from a copy", how)
			}
		}
	})
	t.Run("whole mount", func(t *testing.T) {
		shell(t, 0, `find "$1" -ls > /dev/null; find "$1"/.layerfs/ -type f -exec cat {} + > /dev/null; ls -laR "$1"/layers > /dev/null`, mnt)
		shell(t, 0, `cd "$1"/layers/sha256 && for d in *; do echo "$d  $d/layer.tar"; done | sha256sum -c --quiet`, mnt)
	})
	t.Run("read-only", func(t *testing.T) {
		for _, script := range []string{
			`touch "$1"/x`, `mkdir "$1"/x`, `rm "$1"/etc/passwd`, `mv "$1"/etc "$1"/x`, `ln "$1"/etc/passwd "$1"/x`, `ln -s a "$1"/x`, `chmod 0 "$1"/etc`,
			`chown 1 "$1"/etc`, `touch "$1"/etc/passwd`, `truncate -s 0 "$1"/etc/passwd`, `mknod "$1"/x p`, `setfattr -n user.x -v 1 "$1"/etc`,
		} {
			out := shell(t, 0, `{ `+script+` 2>&1 && echo done; true; }`, root)
			if !strings.Contains(out, "Read-only file system") {
				t.Errorf("%s: got %q, want a read-only file system", script, out)
			}
		}
	})
	t.Run("chroot", func(t *testing.T) {
		if out := shell(t, 0, `chroot "$1" /bin/sh -c 'echo hello' || chroot "$1" /bin/busybox echo hello`, root); out != "hello\n" {
			t.Errorf("got %q", out)
		}
	})
}

// wholeSeconds rounds times as the ustar headers of GNU tar do.
func wholeSeconds(_ string, want, got *treetest.Entry) {
	want.Mtime, got.Mtime = want.Mtime.Truncate(1e9), got.Mtime.Truncate(1e9)
}

// TestOverlayOverMount uses the layers of a mount as lower directories of kernel
// overlayfs: the union that the kernel makes of them is the one we show.
func TestOverlayOverMount(t *testing.T) {
	testenv.Require(t, "root", "fuse", "overlayfs")
	s := newStore(t, nil)
	name := s.load("-i", filepath.Join(testenv.Shared(t), "images/tiny-busybox.oci.tar"))
	mnt := s.mount()
	dir := imageDir(mnt, name)
	links, err := filepath.Glob(filepath.Join(dir, "layers", "*"))
	if err != nil || len(links) != 5 {
		t.Fatalf("layers: %q %v", links, err)
	}
	var lower []string
	for _, l := range links {
		lower = append(lower, filepath.Join(l, "diff"))
	}
	merged, umount, err := treetest.OverlayMount(lower, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer umount()
	byKernel := s.take(merged)
	byKernel.Problems = nil
	report(t, "overlay over the mount", treetest.Diff(s.take(filepath.Join(dir, "rootfs")), byKernel, &treetest.Options{
		Opaque: true, // user.overlay.opaque is nothing to an overlay of root, which passes it on
	}))
}
