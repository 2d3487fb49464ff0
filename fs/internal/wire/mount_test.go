package wire

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/fs/internal/mount"
	"github.com/layerfs/layerfs/internal/testenv"
)

// mountToy mounts a toy for the length of a test.
func mountToy(t testing.TB, y *toy, o Options) (string, *Conn) {
	t.Helper()
	testenv.Require(t, "fuse")
	dir := testenv.Mountpoint(t, nil)
	dev, err := mount.Mount(dir, mount.Options{Source: "toy", Subtype: "toy", MaxRead: MaxRead})
	if err != nil {
		t.Fatal(err)
	}
	c := New(dev, y, newRaw(y), o)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Probe(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.Unmount(dir, true); err != nil {
			t.Error(err)
		}
		select {
		case <-c.Done():
			if c.Err() != nil {
				t.Error(c.Err())
			}
		case <-time.After(10 * time.Second):
			t.Error("the workers did not end after the unmount")
		}
		c.Close()
	})
	return dir, c
}

func TestMounted(t *testing.T) {
	y := &toy{dirs: 20, files: 500, content: bytes.Repeat([]byte("0123456789abcdef"), 1000)}
	dir, c := mountToy(t, y, Options{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			n := 0
			filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err == nil {
					_, err = d.Info()
				}
				if err != nil {
					t.Error(err)
				}
				n++
				return nil
			})
			if n != 1+20+20*500 {
				t.Errorf("%d entries", n)
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(filepath.Join(dir, "d7", "f400"))
	if err != nil || !bytes.Equal(got, y.content) {
		t.Errorf("read: %d bytes, %v", len(got), err)
	}
	if n := c.Counts()["poll"]; n != 1 {
		t.Errorf("%d polls", n)
	}
	if _, err := os.Stat(filepath.Join(dir, probeName)); !os.IsNotExist(err) {
		t.Errorf("the probe is still there: %v", err)
	}
	before := fmt.Sprint(c.Counts())
	if _, err := os.Stat(filepath.Join(dir, "d7", "none")); !os.IsNotExist(err) {
		t.Error(err)
	}
	os.Stat(filepath.Join(dir, "d7", "none"))
	if c.Counts()["lookup"] == 0 || before == fmt.Sprint(c.Counts()) {
		t.Errorf("counts: %v", c.Counts())
	}
}

// TestUnreadableMapping hands out memory that cannot be read: EIO for the reader, and the connection lives on.
func TestUnreadableMapping(t *testing.T) {
	hole, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(hole)
	y := &toy{dirs: 1, files: 2, content: bytes.Repeat([]byte("x"), 10000), unreadable: hole}
	var said atomic.Int32
	dir, _ := mountToy(t, y, Options{Panicked: func(string, uint64, any) { said.Add(1) }})
	if _, err := os.ReadFile(filepath.Join(dir, "d0", "f0")); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, want EIO", err)
	}
	if said.Load() == 0 {
		t.Error("nothing was said about it")
	}
	if _, err := os.Stat(filepath.Join(dir, "d0", "f1")); err != nil {
		t.Error(err)
	}
}

// TestNotify changes the tree behind the kernel's back.
func TestNotify(t *testing.T) {
	y := &toy{dirs: 2, files: 3, content: []byte("one")}
	dir, c := mountToy(t, y, Options{})
	list := func() int {
		e, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	if n := list(); n != 2 {
		t.Fatal(n)
	}
	if _, err := os.Stat(filepath.Join(dir, "d2")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
	y.more.Store(1)
	if err := c.NotifyEntry(1, "d2"); err != nil {
		t.Error(err)
	}
	if err := c.NotifyInode(1); err != nil {
		t.Error(err)
	}
	if n := list(); n != 3 {
		t.Errorf("%d entries after the change", n)
	}
	if _, err := os.Stat(filepath.Join(dir, "d2")); err != nil {
		t.Error(err)
	}
	if err := c.NotifyEntry(4711, "unknown"); err != nil {
		t.Errorf("unknown node: %v", err)
	}
	c.Quiesce()
}

// BenchmarkGetattr measures the round trip: statx with AT_STATX_FORCE_SYNC always asks the server.
func BenchmarkGetattr(b *testing.B) {
	for _, workers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			dir, _ := mountToy(b, &toy{dirs: 2, files: 3}, Options{Workers: workers})
			var st unix.Statx_t
			for b.Loop() {
				if err := unix.Statx(unix.AT_FDCWD, dir+"/d0/f0", unix.AT_STATX_FORCE_SYNC, unix.STATX_ALL, &st); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
