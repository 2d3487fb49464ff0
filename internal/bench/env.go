package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dir makes a directory of its own below the work directory.
func (b *bench) dir(prefix string) (string, error) {
	dir, err := os.MkdirTemp(b.work, prefix+"-")
	if err == nil && b.as != nil {
		err = os.Chown(dir, b.as.uid, b.as.gid)
	}
	return dir, err
}

// A store is a store of layerfs, with where its mounts are recorded.
type store struct {
	b             *bench
	root, runroot string
}

func (b *bench) newStore() (*store, error) {
	dir, err := b.dir("store")
	if err != nil {
		return nil, err
	}
	return &store{b, filepath.Join(dir, "s"), filepath.Join(dir, "r")}, nil
}

func (s *store) args(args ...string) []string {
	return append([]string{"--root", s.root, "--runroot", s.runroot}, args...)
}

// run measures a verb of layerfs.
func (s *store) run(args ...string) (sample, error) {
	return s.b.command(s.b.binary, s.args(args...)...)
}

// load loads an archive and returns the names, as paths below images/.
func (s *store) load(archive string) ([]string, error) {
	_, out, err := s.b.output(s.b.binary, s.args("load", "-q", "-i", archive)...)
	if err != nil {
		return nil, err
	}
	var names []string
	for l := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), "Loaded image: "); ok {
			names = append(names, imagePath(name))
		} else if id, ok := strings.CutPrefix(strings.TrimSpace(l), "Loaded image ID: sha256:"); ok {
			names = append(names, "by-id/"+id)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("load %s printed no image: %q", archive, out)
	}
	return names, nil
}

// imagePath is where an image is below images/.
func imagePath(name string) string { return strings.ReplaceAll(name, ":", "@") }

// mount mounts the store anew and returns where.
func (s *store) mount(flags ...string) (string, error) {
	dir, err := s.b.dir("mnt")
	if err != nil {
		return "", err
	}
	if _, err := s.run(append(append([]string{"mount"}, flags...), dir)...); err != nil {
		return "", err
	}
	s.b.cleanup = append(s.b.cleanup, func() { detach(dir) })
	return dir, nil
}

// umount ends a mount of this store.
func (s *store) umount(dir string) error {
	_, err := s.run("umount", dir)
	return errors.Join(err, os.Remove(dir))
}

// server returns the process behind a mount.
func (s *store) server(dir string) (int, error) {
	_, out, err := s.b.output(s.b.binary, s.args("mounts", "--format", "json")...)
	if err != nil {
		return 0, err
	}
	var list []struct {
		Mountpoint string
		PID        int
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return 0, err
	}
	for _, m := range list {
		if m.Mountpoint == dir {
			return m.PID, nil
		}
	}
	return 0, fmt.Errorf("%s is not among the mounts", dir)
}

// remove deletes the store, outside of any measurement.
func (s *store) remove() error {
	err := os.RemoveAll(filepath.Dir(s.root))
	unix.Sync()
	return err
}

// detach unmounts whatever hangs on dir.
func detach(dir string) {
	if os.Geteuid() == 0 {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	} else {
		_ = exec.Command("fusermount3", "-uzq", dir).Run()
	}
}

// detachAll unmounts what still hangs below the work directory: an interrupted run
// cannot ask podman any more, and removing files must not go through mounts.
func (b *bench) detachAll() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.note(err)
		return
	}
	lines := strings.Split(string(data), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // what was mounted last, first
		if f := strings.Fields(lines[i]); len(f) > 4 && strings.HasPrefix(f[4], b.work+"/") {
			detach(f[4])
		}
	}
}

// fuseOverlay mounts directories, bottom first, with fuse-overlayfs.
func (b *bench) fuseOverlay(dirs []string) (string, error) {
	dir, err := b.dir("fo")
	if err != nil {
		return "", err
	}
	var lower []string
	for i := len(dirs) - 1; i >= 0; i-- {
		lower = append(lower, dirs[i])
	}
	if _, err := b.command("fuse-overlayfs", "-o", "ro,lowerdir="+strings.Join(lower, ":"), dir); err != nil {
		return "", err
	}
	b.cleanup = append(b.cleanup, func() { detach(dir) })
	return dir, nil
}

// unmount ends a mount of another program and waits until it has let go.
func (b *bench) unmount(dir string) error {
	for range 100 {
		err := b.umount(dir)
		if err == nil {
			return os.Remove(dir)
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("umount %s: %w", dir, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("umount %s: still busy", dir)
}

// umount tries it once.
func (b *bench) umount(dir string) error {
	if b.as == nil {
		return unix.Unmount(dir, 0)
	}
	if _, err := b.command("fusermount3", "-u", dir); err != nil {
		return fmt.Errorf("%w: %w", unix.EBUSY, err)
	}
	return nil
}

// warm reads all files below a directory, so that the page cache has them.
func warm(dir string) error {
	buf := make([]byte, 1<<20)
	return eachFile(dir, func(f *os.File) error {
		for {
			if _, err := f.Read(buf); err != nil {
				return nil
			}
		}
	})
}

// forget drops the files below a directory, or one file, from the page cache.
func forget(path string) error {
	unix.Sync()
	return eachFile(path, func(f *os.File) error {
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

// eachFile opens the regular files below a directory, or the one file, one after the
// other.
func eachFile(path string, fn func(*os.File) error) error {
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		return fn(f)
	})
}

// usage is what a directory takes on disk.
func usage(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		total += st.Blocks * 512
		return nil
	})
	return total, err
}
