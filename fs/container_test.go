package fs

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"

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
