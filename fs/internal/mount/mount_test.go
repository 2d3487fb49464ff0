package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestClean(t *testing.T) {
	dir := t.TempDir()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".", dir+"/self"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/self/self": dir, dir + "/none": dir + "/none", dir + "/self/none/": dir + "/none", dir + "/./": dir,
	} {
		if got, err := Clean(path); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", path, got, err, want)
		}
	}
	if _, err := Clean(dir + "/none/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("parent missing: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	if _, err := Mount(dir+"/none", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Mount("/dev/null", Options{}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("no directory: %v", err)
	}
	if err := Unmount(dir, false); !errors.Is(err, ErrNotMounted) {
		t.Errorf("unmount of nothing: %v", err)
	}
	if cleaned, err := CleanDead(dir); cleaned || err != nil {
		t.Errorf("clean of nothing: %v, %v", cleaned, err)
	}
	if minor, ok := Device(dir); ok {
		t.Errorf("device %d of nothing", minor)
	}
	if _, ok := Device("/proc"); !ok {
		t.Error("no device of /proc")
	}
}

func TestHelperOptions(t *testing.T) {
	got := helperOptions(Options{Source: `/a,b\c`, Subtype: "x", AllowOther: true, NoExec: true, MaxRead: 7})
	if want := `ro,default_permissions,fsname=/a\,b\\c,subtype=x,allow_other,noexec,max_read=7`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestExplain has what fusermount3 3.14 says, and which error it is.
func TestExplain(t *testing.T) {
	for said, want := range map[string]error{
		"option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf": ErrPermission,
		"user has no write access to mountpoint /etc":                                    ErrPermission,
		"failed to access mountpoint /root/x: Permission denied":                         ErrPermission,
		"mount failed: Operation not permitted":                                          ErrPermission,
		"entry for /x not found in /etc/mtab":                                            ErrNotMounted,
		"failed to unmount /x: Device or resource busy":                                  ErrBusy,
		"failed to open /dev/fuse: No such file or directory":                            ErrNoDevice,
		"too many FUSE filesystems; mount_max=1000 can be set in /etc/fuse.conf":         ErrPermission,
	} {
		if got := explain(said); !errors.Is(got, want) {
			t.Errorf("%s: %v", said, got)
		}
	}
	if got := explain("something new"); !strings.Contains(got.Error(), "something new") {
		t.Error(got)
	}
}
