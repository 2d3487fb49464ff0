package fs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
)

// TestOverlayAttributes wants the extended attributes of a container that the kernel's overlayfs shows to be as anywhere:
// one that is not there is ENODATA, also in an image that has none at all; they can be set and removed.
func TestOverlayAttributes(t *testing.T) {
	testenv.Require(t, "fuse", "root", "overlayfs")
	marked := file("d/marked", "with an attribute")
	marked.PAXRecords = map[string]string{"SCHILY.xattr.user.k": "v"}
	withSome := tarOf(t, dirMember("d"), file("d/0001", "x"), marked)
	for name, image := range map[string]*memSource{
		"without": newImage(t, "without", manyFiles(t, 200)),
		"with":    newImage(t, "with", withSome),
	} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			load(t, st, image, name+":1")
			ov := overlayOf(t, st, name+":1")
			dir := filepath.Join(ov.dir, "d")
			list, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				if _, err := e.Info(); err != nil {
					t.Fatal(err)
				}
			}
			if name == "with" {
				wantXattr(t, filepath.Join(dir, "marked"), "v", nil)
			}
			path := filepath.Join(dir, "0001")
			wantXattr(t, path, "", unix.ENODATA)
			if err := unix.Lsetxattr(path, "user.k", []byte("new"), 0); err != nil {
				t.Fatal(err)
			}
			wantXattr(t, path, "new", nil)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Error(err)
			}
			if err := unix.Lremovexattr(path, "user.k"); err != nil {
				t.Fatal(err)
			}
			wantXattr(t, path, "", unix.ENODATA)
		})
	}
}

func wantXattr(t *testing.T, path, want string, wantErr error) {
	t.Helper()
	buf := make([]byte, 10)
	n, err := unix.Lgetxattr(path, "user.k", buf)
	if got := string(buf[:max(n, 0)]); got != want || !errors.Is(err, wantErr) {
		t.Errorf("%s: attribute %q, %v; want %q, %v", path, got, err, want, wantErr)
	}
}

// overlayOf makes a container of an image and mounts it with the kernel's overlayfs.
func overlayOf(t *testing.T, st *layers.Store, image string) *Overlay {
	t.Helper()
	c, err := st.CreateContainer(context.Background(), &layers.ContainerOptions{Image: image, Names: []string{"c"}})
	if err != nil {
		t.Fatal(err)
	}
	ov, err := MountOverlay(st, c, testenv.Mountpoint(t, nil), &Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ov.Detach(); err != nil {
			t.Error(err)
		}
		if err := ov.Serve(); err != nil {
			t.Error(err)
		}
	})
	return ov
}
