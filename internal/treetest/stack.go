package treetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Stack gives the implied directories of layers, bottom first, the metadata of
// the directory that they are merged with in the layers below; where there is
// none they stay as they are. It changes the layers' directories.
func Stack(layers []*Layer) error {
	for i, l := range layers {
		for _, p := range l.Implied {
			from, err := below(layers[:i], p)
			if err != nil {
				return err
			}
			if from == "" {
				continue
			}
			if err := copyMeta(from, filepath.Join(l.Dir, p)); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	return nil
}

// below returns the directory that p is in the merged layers, or "".
func below(layers []*Layer, p string) (string, error) {
	for i := len(layers) - 1; i >= 0; i-- {
		full := filepath.Join(layers[i].Dir, p)
		st, err := os.Lstat(full)
		switch {
		case err == nil && st.IsDir():
			return full, nil
		case err == nil:
			return "", nil // a file or a whiteout
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
			return "", err
		}
		if hides(layers[i].Dir, p) {
			return "", nil
		}
	}
	return "", nil
}

// hides says whether a directory above p is opaque, or no directory, in a layer.
func hides(dir, p string) bool {
	for p != "." {
		p = Parent(p)
		full := filepath.Join(dir, p)
		st, err := os.Lstat(full)
		if err != nil {
			continue
		}
		if !st.IsDir() {
			return true
		}
		if v, err := getXattr(full, opaqueXattr); err == nil && string(v) == "y" {
			return true
		}
	}
	return false
}

// copyMeta copies owner, mode, extended attributes and time of a directory.
func copyMeta(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return err
	}
	names, err := listXattrs(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if Private(name) {
			continue
		}
		value, err := getXattr(from, name)
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(to, name, value, 0); err != nil {
			return err
		}
	}
	return setMeta(to, st.Mode&0o7777, int(st.Uid), int(st.Gid), time.Unix(st.Mtim.Unix()))
}

// OverlayMount mounts directories, bottom first, as a read-only kernel
// overlayfs below work and returns where, and how to unmount it. It needs root.
//
// All options of a mount share one page, so the directories are named by short
// symlinks from a working directory of the mounting thread: more than 500
// layers, the kernel's limit, fit.
func OverlayMount(dirs []string, work string) (string, func() error, error) {
	base, err := os.MkdirTemp(work, "ovl")
	if err != nil {
		return "", nil, err
	}
	target := filepath.Join(base, "merged")
	for _, d := range []string{target, filepath.Join(base, "empty")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", nil, err
		}
	}
	var lower []string
	hidden := false
	for i := len(dirs) - 1; i >= 0 && !hidden; i-- {
		// The kernel does not look at the mark on the root of a layer.
		v, err := getXattr(dirs[i], opaqueXattr)
		hidden = err == nil && string(v) == "y"
		name := strconv.FormatInt(int64(i), 36)
		if err := os.Symlink(dirs[i], filepath.Join(base, name)); err != nil {
			return "", nil, err
		}
		lower = append(lower, name)
	}
	if len(lower) == 1 {
		lower = append(lower, "empty") // overlayfs wants two
	}
	err = inDir(base, func() error {
		return unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":"))
	})
	if err != nil {
		return "", nil, fmt.Errorf("overlay mount of %d layers: %w", len(dirs), err)
	}
	return target, func() error { return unix.Unmount(target, unix.MNT_DETACH) }, nil
}

// inDir calls f on a thread that has its own working directory.
func inDir(dir string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- err
			return
		}
		if err := unix.Chdir(dir); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
