package overlayfs

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
)

// TestMount mounts where the names have all that means something in options.
func TestMount(t *testing.T) {
	testenv.Require(t, "root", "overlayfs")
	for _, name := range []string{"plain", "co:lon", "com,ma", `back\slash`, "spa ce"} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), name)
			o := &Options{Lower: filepath.Join(root, "lower"), Upper: filepath.Join(root, "upper"), Work: filepath.Join(root, "work"), Flags: unix.MS_NODEV}
			dir := filepath.Join(root, "mnt")
			for _, d := range []string{o.Lower, o.Upper, o.Work, dir} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(o.Lower, "f"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Mount(dir, o); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(dir, unix.MNT_DETACH)
			if err := os.Rename(filepath.Join(dir, "f"), filepath.Join(dir, "g")); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(o.Upper, "g")); err != nil {
				t.Errorf("the change is not in the upper directory: %v", err)
			}
			if ours, err := Ours(dir); !ours || err != nil {
				t.Errorf("Ours: %v, %v", ours, err)
			}
			if dirs, err := Over(o.Upper); len(dirs) != 1 || err != nil {
				t.Errorf("Over: %q, %v", dirs, err)
			}
			wait(t, dir)
		})
	}
}

// wait unmounts while Wait waits.
func wait(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Wait(ctx, dir); err == nil {
		t.Error("Wait returned while it was mounted")
	}
	done := make(chan error, 1)
	go func() { done <- Wait(t.Context(), dir) }()
	if err := Unmount(dir, false); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if ours, _ := Ours(dir); ours {
		t.Error("it is still there")
	}
}

// TestDead tells a mount whose process lives by the lock beside its upper directory.
func TestDead(t *testing.T) {
	testenv.Require(t, "root", "overlayfs")
	root := t.TempDir()
	o := &Options{Lower: root + "/lower", Upper: root + "/upper", Work: root + "/work"}
	for _, d := range []string{o.Lower, o.Upper, o.Work, root + "/mnt"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Mount(root+"/mnt", o); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(root+"/mnt", unix.MNT_DETACH)
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if dead, err := Dead(root + "/mnt"); dead || err != nil {
		t.Errorf("alive: %v, %v", dead, err)
	}
	f.Close()
	if dead, err := Dead(root + "/mnt"); !dead || err != nil {
		t.Errorf("dead: %v, %v", dead, err)
	}
	if dirs, err := Over(o.Upper); len(dirs) != 1 || err != nil || dirs[0] != root+"/mnt" {
		t.Errorf("Over: %q, %v", dirs, err)
	}
}

// TestWaitIsTold unmounts often: each time the one who waits must hear of it.
func TestWaitIsTold(t *testing.T) {
	testenv.Require(t, "root", "overlayfs")
	root := t.TempDir()
	o := &Options{Lower: filepath.Join(root, "lower"), Upper: filepath.Join(root, "upper"), Work: filepath.Join(root, "work")}
	dir := filepath.Join(root, "mnt")
	for _, d := range []string{o.Lower, o.Upper, o.Work, dir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		if err := Mount(dir, o); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- Wait(context.Background(), dir) }()
		time.Sleep(5 * time.Millisecond) // so that it waits
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("Wait did not hear that the overlay was unmounted")
		}
	}
}
