package mounttest_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stressNames are the names of files and directories that stress works with, at each level.
var stressNames = []string{"a", "b", "c", "d", "e", "f", "g", "h"}

// pattern is what a file holds at an offset, whichever file it is and whoever has written it; or zeros, where nobody
// has.
func pattern(off int64, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = patternAt(off + int64(i))
	}
	return p
}

func patternAt(off int64) byte { return byte(off>>12) ^ byte(off*31) | 1 }

// A stress does random operations on few names, beside others that do the same. It cannot know which of them succeed;
// it knows which errors there are, and what files can hold.
type stress struct {
	rnd    *rand.Rand
	dir    string
	counts map[string]int
}

// runStress works until the time is over.
func runStress(job soakJob, counts map[string]int) error {
	w := &stress{rnd: rand.New(rand.NewPCG(job.Seed, 2)), dir: job.Dir, counts: counts}
	for end := time.Now().Add(job.For); time.Now().Before(end); {
		what, err := w.step()
		var errno unix.Errno
		switch {
		case err == nil:
			w.counts[what]++
		case errors.As(err, &errno) && expected[errno]:
			w.counts["refused"]++
		default:
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// expected are the errors that operations on names that others change, too, may meet.
var expected = map[unix.Errno]bool{
	unix.ENOENT: true, unix.EEXIST: true, unix.ENOTEMPTY: true, unix.ENOTDIR: true, unix.EISDIR: true, unix.ELOOP: true,
	unix.EINVAL:  true, // a directory cannot be moved into itself
	unix.ENODATA: true, // no such attribute
	unix.ENXIO:   true, // nobody reads a FIFO
	unix.EXDEV:   true, // the kernel does not rename directories of the image without redirect_dir
	unix.EPERM:   true, // links to directories, attributes of links
	unix.ESTALE:  true, // somebody has removed the directory meanwhile
}

// path is a random one of one to three levels.
func (w *stress) path() string {
	p := w.dir
	for range 1 + w.rnd.IntN(3) {
		p += "/" + stressNames[w.rnd.IntN(len(stressNames))]
	}
	return p
}

// step does one operation and returns its name.
func (w *stress) step() (string, error) {
	p := w.path()
	switch w.rnd.IntN(24) {
	case 0, 1:
		return "create", w.create(p)
	case 2, 3:
		return "mkdir", unix.Mkdir(p, 0o777)
	case 4:
		return "symlink", unix.Symlink(strings.Repeat("../", w.rnd.IntN(3))+stressNames[w.rnd.IntN(8)], p)
	case 5:
		return "link", unix.Linkat(unix.AT_FDCWD, p, unix.AT_FDCWD, w.path(), 0)
	case 6, 7, 8:
		flags := []uint{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[w.rnd.IntN(5)]
		return fmt.Sprint("rename", flags), unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, w.path(), flags)
	case 9:
		return "unlink", unix.Unlink(p)
	case 10:
		return "rmdir", unix.Rmdir(p)
	case 11:
		return "chmod", unix.Fchmodat(unix.AT_FDCWD, p, []uint32{0o755, 0o777, 0o1777, 0o700}[w.rnd.IntN(4)], 0)
	case 12:
		return "utimes", w.utimes(p)
	case 13:
		return "setxattr", unix.Lsetxattr(p, fmt.Sprint("user.k", w.rnd.IntN(4)), pattern(0, w.rnd.IntN(300)), []int{0, unix.XATTR_CREATE, unix.XATTR_REPLACE}[w.rnd.IntN(3)])
	case 14:
		return "xattrs", w.xattrs(p)
	case 15:
		return "mkfifo", unix.Mkfifo(p, 0o666)
	case 16:
		return "truncate", unix.Truncate(p, int64(w.rnd.IntN(100_000)))
	case 17, 18:
		return "list", w.list(p)
	case 19:
		return "remove all", w.removeAll(p)
	case 20:
		return "chown", unix.Lchown(p, os.Getuid(), os.Getgid())
	case 21:
		return "unlinked", w.unlinked(p)
	}
	return "read", w.read(p)
}

// create writes a piece of the pattern into a file, at any place, and reads it back.
func (w *stress) create(p string) error {
	flags := []int{unix.O_CREAT, unix.O_CREAT | unix.O_EXCL, unix.O_CREAT | unix.O_TRUNC, 0, unix.O_CREAT | unix.O_NOFOLLOW}[w.rnd.IntN(5)]
	fd, err := unix.Open(p, flags|unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), p)
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, f.Close())
	}
	off := int64(w.rnd.IntN(100_000))
	_, err = f.WriteAt(pattern(off, 1+w.rnd.IntN(20_000)), off)
	return errors.Join(err, w.content(f), f.Close())
}

// content wants nothing in a file but the pattern and zeros.
func (w *stress) content(f *os.File) error {
	p := make([]byte, 32<<10)
	for off := int64(0); ; {
		n, err := f.ReadAt(p, off)
		for i, b := range p[:n] {
			if b != 0 && b != patternAt(off+int64(i)) {
				return fmt.Errorf("%s: byte %d is %#x, want %#x or 0", f.Name(), off+int64(i), b, patternAt(off+int64(i)))
			}
		}
		off += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (w *stress) read(p string) error {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), p)
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = w.content(f)
	}
	return errors.Join(err, f.Close())
}

// unlinked writes into a file that has lost its name meanwhile.
func (w *stress) unlinked(p string) error {
	fd, err := unix.Open(p, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if err := unix.Unlink(p); err != nil {
		return err
	}
	if _, err := f.WriteAt(pattern(0, 5000), 0); err != nil {
		return err
	}
	return w.content(f)
}

func (w *stress) utimes(p string) error {
	ts := []unix.Timespec{{Sec: w.rnd.Int64N(2e9), Nsec: w.rnd.Int64N(1e9)}, {Sec: w.rnd.Int64N(2e9), Nsec: w.rnd.Int64N(1e9)}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// xattrs reads and removes attributes.
func (w *stress) xattrs(p string) error {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(p, list)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		value := make([]byte, 4096)
		size, err := unix.Lgetxattr(p, name, value)
		if name == "" || errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, "user.k") && string(value[:size]) != string(pattern(0, size)) {
			return fmt.Errorf("%s: %s has a value that nobody has set", p, name)
		}
		if w.rnd.IntN(4) == 0 {
			return unix.Lremovexattr(p, name)
		}
	}
	return nil
}

// list reads a directory and looks at all that is in it.
func (w *stress) list(p string) error {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // would wait at a FIFO otherwise
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), p)
	entries, err := dir.ReadDir(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, e := range entries {
		if seen[e.Name()] {
			// It happens, some times in a million operations, when the kernel gives up a list that it has kept
			// while one reads it, another begins to and a third changes the directory: the rest comes from a
			// new list, in which the places are others. The log has how often.
			w.counts["listed twice"]++
		}
		seen[e.Name()] = true
		if _, err := os.Lstat(filepath.Join(p, e.Name())); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// removeAll removes a tree of the lower levels now and then, so that they do not only fill.
func (w *stress) removeAll(p string) error {
	if strings.Count(strings.TrimPrefix(p, w.dir), "/") < 2 || w.rnd.IntN(8) > 0 {
		return nil
	}
	// RemoveAll opens the parent, and would wait when that has become a FIFO.
	fd, err := unix.Open(filepath.Dir(p), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return os.RemoveAll(fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(p)))
}
