package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Mountpoint returns an empty directory of the account (nil: of the caller) and
// makes sure that nothing stays mounted on it when the test ends, not even a
// mount whose server hangs.
func Mountpoint(t testing.TB, a *Account) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "layerfs-mnt-")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Detach(dir)
		// Not RemoveAll: were the mount still there, it would go into it.
		os.Remove(dir)
		os.Remove(parent)
	})
	if a != nil && os.Geteuid() == 0 {
		for _, d := range []string{parent, dir} {
			if err := os.Chown(d, a.UID, a.GID); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// Detach unmounts dir lazily, whatever is left of its server; a directory with
// nothing mounted on it is left alone.
func Detach(dir string) {
	for range 8 {
		if os.Geteuid() == 0 {
			if unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != nil {
				return
			}
		} else if exec.Command("fusermount3", "-u", "-z", "-q", dir).Run() != nil {
			return
		}
	}
}
