package fs

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/layers"
)

// TestRandomOperations does the same to a container and to kernel overlayfs over the same files, and wants the same
// errors and results from every single operation, the same trees after each batch, after the container was mounted
// again, and when the kernel reads the container's upper directory. LAYERFS_RANDOM_OPS and LAYERFS_RANDOM_SEED make
// it longer and another.
func TestRandomOperations(t *testing.T) {
	testenv.Require(t, "fuse", "root", "overlayfs")
	ops, seed := envInt(t, "LAYERFS_RANDOM_OPS", 6000), envInt(t, "LAYERFS_RANDOM_SEED", 1)
	const batch = 1500
	st := newStore(t)
	load(t, st, newImage(t, "random", randomLayer(t), randomTop(t)), "random:1")
	c, err := st.CreateContainer(context.Background(), &layers.ContainerOptions{Image: "random:1", Names: []string{"c"}})
	if err != nil {
		t.Fatal(err)
	}
	o := newKernelOverlay(t, st, "random:1")
	r := &randomWorld{t: t, rnd: rand.New(rand.NewSource(int64(seed)))}
	for done := 0; done < ops && !t.Failed(); done += batch {
		m := containersAt(t, func(dir string) (*Containers, error) {
			return MountContainer(st, "c", dir, &Options{Logger: quiet, Extra: []string{"dev,suid"}})
		})
		r.roots = [2]string{m.Mountpoint(), o.merged}
		if done > 0 {
			r.compareTrees("mounted again")
		}
		for i := 0; i < batch && !t.Failed(); i++ {
			r.step()
		}
		r.compareTrees("after a batch")
		r.closeFiles()
		unmount(t, m)
		o.readUpper(st, c, func(dir string) {
			r.roots = [2]string{dir, o.merged}
			r.compareTrees("read by the kernel", countedLinks)
		})
	}
	if t.Failed() {
		t.Logf("seed %d; the last operations:\n%s", seed, strings.Join(r.log, "\n"))
	}
}

// unmount unmounts. A namespace that somebody else has made meanwhile (unshare in a test of another package) holds all
// mounts of that moment for as long as it lives; the connection is ended then.
func unmount(t *testing.T, m *Containers) {
	t.Helper()
	err := m.Unmount()
	if err == nil {
		return
	}
	if errors.Is(err, ErrMountBusy) {
		t.Fatal(err)
	}
	if err := m.Detach(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.finished:
	case <-time.After(30 * time.Second):
		t.Fatalf("%v; and it does not end", err)
	}
}

func envInt(t *testing.T, name string, def int) int {
	v, ok := os.LookupEnv(name)
	if !ok {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// randomLayer holds files under the names that operations use.
func randomLayer(t testing.TB) []byte {
	xattrs := file("a/x", "with attributes")
	xattrs.PAXRecords = map[string]string{"SCHILY.xattr.user.k": "v", "SCHILY.xattr.trusted.k": "v"}
	owned := file("b/owned", "whose")
	owned.Uid, owned.Gid, owned.Mode = 33, 44, 0o4755
	return tarOf(t,
		dirMember("a"), dirMember("a/a"), dirMember("a/b"), file("a/c", "lower a/c"), xattrs, dirMember("b"), file("b/a", big), owned,
		file("a/a/a", "deep"), file("a/a/b", strings.Repeat("x", 70000)), special("a/d", tar.TypeLink, "a/c"), special("b/b", tar.TypeLink, "a/c"),
		special("b/d", tar.TypeSymlink, "../a/c"), special("c", tar.TypeSymlink, "a"), dirMember("d"), dirMember("d/a"), file("d/a/a", "in d"),
		special("d/b", tar.TypeFifo, ""), dirMember("e"), file("e/a", ""), file("e/b", "e"), special("e/c", tar.TypeLink, "e/b"),
	)
}

// randomTop changes some of them, so that directories are merged.
func randomTop(t testing.TB) []byte {
	return tarOf(t,
		dirMember("a"), file("a/e", "upper"), file("a/.wh.x", ""), dirMember("d"), file("d/.wh..wh..opq", ""), file("d/c", "new d"),
		dirMember("e"), special("e/d", tar.TypeLink, "a/a/a"),
	)
}

// A kernelOverlay is kernel overlayfs over a copy of an image.
type kernelOverlay struct {
	t                          testing.TB
	dir, lower, merged, second string
}

func newKernelOverlay(t testing.TB, st *layers.Store, image string) *kernelOverlay {
	t.Helper()
	o := &kernelOverlay{t: t, dir: t.TempDir()}
	o.lower, o.merged, o.second = filepath.Join(o.dir, "lower"), filepath.Join(o.dir, "merged"), filepath.Join(o.dir, "second")
	for _, d := range []string{"lower", "upper", "work", "merged", "second"} {
		if err := os.Mkdir(filepath.Join(o.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := serving(t, func() (*Server, error) {
		return MountImage(st, image, testenv.Mountpoint(t, nil), &Options{Logger: quiet})
	})
	if out, err := exec.Command("cp", "-a", s.Mountpoint()+"/.", o.lower).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=on,metacopy=on,index=on", o.lower, filepath.Join(o.dir, "upper"), filepath.Join(o.dir, "work"))
	if err := unix.Mount("overlay", o.merged, "overlay", 0, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(o.merged, unix.MNT_DETACH) })
	return o
}

// readUpper mounts the upper directory of a container with kernel overlayfs for the length of a call.
func (o *kernelOverlay) readUpper(st *layers.Store, c *layers.Container, fn func(dir string)) {
	data := fmt.Sprintf("lowerdir=%s:%s,redirect_dir=on,metacopy=on", st.UpperPath(c.ID), o.lower)
	if err := unix.Mount("overlay", o.second, "overlay", unix.MS_RDONLY, data); err != nil {
		o.t.Fatalf("the kernel cannot mount the upper directory: %v", err)
	}
	fn(o.second)
	if err := unix.Unmount(o.second, 0); err != nil {
		o.t.Fatal(err)
	}
}

// A randomWorld is two trees to which the same is done.
type randomWorld struct {
	t     *testing.T
	rnd   *rand.Rand
	roots [2]string
	files []openPair
	log   []string
	quiet bool // nothing is compared
}

// openPair is a file that is open in both.
type openPair struct {
	name string
	fd   [2]int
}

// path returns a path of the kind that operations use.
func (r *randomWorld) path() string {
	const names = "abcdefx"
	var parts []string
	for range 1 + r.rnd.Intn(3) {
		parts = append(parts, string(names[r.rnd.Intn(len(names))]))
	}
	return strings.Join(parts, "/")
}

// both does something in both trees and compares what comes out.
func (r *randomWorld) both(what string, fn func(i int, root string) (string, error)) {
	r.t.Helper()
	var text [2]string
	var err [2]error
	for i, root := range r.roots {
		text[i], err[i] = fn(i, root)
	}
	line := fmt.Sprintf("%s = %q %v", what, short(text[1]), err[1])
	r.log = append(r.log, line)
	if len(r.log) > 60 {
		r.log = r.log[1:]
	}
	if r.quiet {
		return
	}
	if text[0] != text[1] || errnoOf(err[0]) != errnoOf(err[1]) {
		r.t.Errorf("%s: %q %v, but overlayfs: %q %v", what, short(text[0]), err[0], short(text[1]), err[1])
	}
}

func short(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%x of %d bytes", sha256.Sum256([]byte(s)), len(s))
	}
	return s
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		return syscall.EPROTO
	}
	return errno
}

// step does one random thing.
func (r *randomWorld) step() {
	p, q := r.path(), r.path()
	steps := []func(p, q string){
		r.open, r.open, r.open, r.rename, r.rename, r.link, r.unlink, r.unlink, r.mkdir, r.rmdir, r.symlink, r.chmod, r.chown, r.truncate,
		r.times, r.xattr, r.mknod, r.stat, r.list, r.onFile, r.onFile, r.onFile, r.onFile, r.tmpfile, r.read, r.copyRange,
	}
	steps[r.rnd.Intn(len(steps))](p, q)
}

func (r *randomWorld) open(p, _ string) {
	flags := []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR}[r.rnd.Intn(3)]
	for _, f := range []int{os.O_CREATE, os.O_CREATE, os.O_EXCL, os.O_TRUNC, os.O_APPEND} {
		if r.rnd.Intn(3) == 0 {
			flags |= f
		}
	}
	mode := uint32([]int{0o644, 0o600, 0o4755, 0o2770}[r.rnd.Intn(4)])
	pair := openPair{name: p, fd: [2]int{-1, -1}}
	ok := 0
	r.both(fmt.Sprintf("open %s %#o %#o", p, flags, mode), func(i int, root string) (string, error) {
		fd, err := unix.Open(filepath.Join(root, p), flags|unix.O_CLOEXEC|unix.O_NONBLOCK, mode)
		if err != nil {
			return "", err
		}
		pair.fd[i] = fd
		ok++
		return "", nil
	})
	if ok == 2 {
		r.files = append(r.files, pair)
	} else {
		unix.Close(pair.fd[0]) // -1 is none
		unix.Close(pair.fd[1])
	}
	if len(r.files) > 8 {
		for _, fd := range r.files[0].fd {
			unix.Close(fd)
		}
		r.files = r.files[1:]
	}
}

func (r *randomWorld) closeFiles() {
	for _, f := range r.files {
		unix.Close(f.fd[0])
		unix.Close(f.fd[1])
	}
	r.files = nil
}

// onFile does something with a file that is open, whether it still has a name or not.
func (r *randomWorld) onFile(_, _ string) {
	if len(r.files) == 0 {
		return
	}
	f := r.files[r.rnd.Intn(len(r.files))]
	off, n := int64(r.rnd.Intn(90000)), r.rnd.Intn(20000)
	data := make([]byte, n)
	r.rnd.Read(data)
	kind := r.rnd.Intn(9)
	what := fmt.Sprintf("file %s: operation %d at %d, %d bytes", f.name, kind, off, n)
	r.both(what, func(i int, _ string) (string, error) {
		fd := f.fd[i]
		switch kind {
		case 0, 1:
			n, err := unix.Pwrite(fd, data, off)
			return strconv.Itoa(n), err
		case 2:
			n, err := unix.Write(fd, data)
			return strconv.Itoa(n), err
		case 3:
			buf := make([]byte, n)
			n, err := unix.Pread(fd, buf, off)
			return string(buf[:max(n, 0)]), err
		case 4:
			return "", unix.Ftruncate(fd, off)
		case 5:
			var st unix.Stat_t
			err := unix.Fstat(fd, &st)
			return describeStat(&st), err
		case 6:
			return "", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(n)+1)
		case 7:
			return "", unix.Fchmod(fd, 0o640)
		default:
			return "", unix.Fsync(fd)
		}
	})
}

func describeStat(st *unix.Stat_t) string {
	nlink := st.Nlink
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		nlink, size = 0, 0
	}
	return fmt.Sprintf("%o %d:%d %d links %d bytes %#x", st.Mode, st.Uid, st.Gid, nlink, size, st.Rdev)
}

func (r *randomWorld) rename(p, q string) {
	flags := []uint{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[r.rnd.Intn(5)]
	r.both(fmt.Sprintf("rename %s %s %d", p, q, flags), func(_ int, root string) (string, error) {
		return "", unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, p), unix.AT_FDCWD, filepath.Join(root, q), flags)
	})
}

func (r *randomWorld) link(p, q string) {
	r.both(fmt.Sprintf("link %s %s", p, q), func(_ int, root string) (string, error) {
		return "", unix.Link(filepath.Join(root, p), filepath.Join(root, q))
	})
}

func (r *randomWorld) unlink(p, _ string) {
	r.both("unlink "+p, func(_ int, root string) (string, error) { return "", unix.Unlink(filepath.Join(root, p)) })
}

func (r *randomWorld) mkdir(p, _ string) {
	mode := uint32([]int{0o755, 0o700, 0o1777, 0o2775}[r.rnd.Intn(4)])
	r.both(fmt.Sprintf("mkdir %s %#o", p, mode), func(_ int, root string) (string, error) {
		return "", unix.Mkdir(filepath.Join(root, p), mode)
	})
}

func (r *randomWorld) rmdir(p, _ string) {
	r.both("rmdir "+p, func(_ int, root string) (string, error) { return "", unix.Rmdir(filepath.Join(root, p)) })
}

func (r *randomWorld) symlink(p, q string) {
	r.both(fmt.Sprintf("symlink %s %s", p, q), func(_ int, root string) (string, error) {
		return "", unix.Symlink(p, filepath.Join(root, q))
	})
}

func (r *randomWorld) chmod(p, _ string) {
	mode := uint32([]int{0o644, 0o755, 0o4711, 0o2755, 0o1777, 0}[r.rnd.Intn(6)])
	r.both(fmt.Sprintf("chmod %s %#o", p, mode), func(_ int, root string) (string, error) {
		return "", unix.Chmod(filepath.Join(root, p), mode)
	})
}

func (r *randomWorld) chown(p, _ string) {
	uid, gid := r.rnd.Intn(3), r.rnd.Intn(3)-1
	r.both(fmt.Sprintf("lchown %s %d %d", p, uid, gid), func(_ int, root string) (string, error) {
		return "", unix.Lchown(filepath.Join(root, p), uid, gid)
	})
}

func (r *randomWorld) truncate(p, _ string) {
	size := int64(r.rnd.Intn(100000)) * int64(r.rnd.Intn(2))
	r.both(fmt.Sprintf("truncate %s %d", p, size), func(_ int, root string) (string, error) {
		return "", unix.Truncate(filepath.Join(root, p), size)
	})
}

func (r *randomWorld) times(p, _ string) {
	ts := []unix.Timespec{{Sec: 1, Nsec: 2}, {Sec: int64(r.rnd.Intn(1 << 30)), Nsec: 123456789}}
	r.both("utimes "+p, func(_ int, root string) (string, error) {
		path := filepath.Join(root, p)
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return "", err
		}
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		return fmt.Sprint(st.Mtim, st.Atim), err
	})
}

func (r *randomWorld) xattr(p, _ string) {
	name := []string{"user.k", "user.l", "trusted.k", "security.capability", "trusted.overlay.opaque"}[r.rnd.Intn(5)]
	value := []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	switch kind := r.rnd.Intn(4); kind {
	case 0, 1:
		if strings.HasPrefix(name, "trusted.overlay") {
			return // overlayfs keeps these under another name, we refuse them
		}
		flags := r.rnd.Intn(3)
		r.both(fmt.Sprintf("setxattr %s %s %d", p, name, flags), func(_ int, root string) (string, error) {
			return "", unix.Lsetxattr(filepath.Join(root, p), name, value, flags)
		})
	case 2:
		r.both(fmt.Sprintf("removexattr %s %s", p, name), func(_ int, root string) (string, error) {
			return "", unix.Lremovexattr(filepath.Join(root, p), name)
		})
	default:
		r.both(fmt.Sprintf("getxattr %s %s", p, name), func(_ int, root string) (string, error) {
			buf := make([]byte, 100)
			n, err := unix.Lgetxattr(filepath.Join(root, p), name, buf)
			return string(buf[:max(n, 0)]), err
		})
	}
}

func (r *randomWorld) mknod(p, _ string) {
	mode := []uint32{unix.S_IFIFO | 0o644, unix.S_IFSOCK | 0o600, unix.S_IFCHR | 0o666, unix.S_IFREG | 0o600}[r.rnd.Intn(4)]
	dev := int(unix.Mkdev(1, uint32(r.rnd.Intn(300)+1)))
	r.both(fmt.Sprintf("mknod %s %#o", p, mode), func(_ int, root string) (string, error) {
		return "", unix.Mknod(filepath.Join(root, p), mode, dev)
	})
}

func (r *randomWorld) stat(p, _ string) {
	r.both("stat "+p, func(_ int, root string) (string, error) {
		var st unix.Stat_t
		err := unix.Lstat(filepath.Join(root, p), &st)
		if err != nil {
			return "", err
		}
		return describeStat(&st), nil
	})
}

func (r *randomWorld) list(p, _ string) {
	r.both("list "+p, func(_ int, root string) (string, error) {
		list, err := os.ReadDir(filepath.Join(root, p))
		var names []string
		for _, e := range list {
			names = append(names, e.Name()+" "+e.Type().String())
		}
		slices.Sort(names)
		return strings.Join(names, ", "), err
	})
}

func (r *randomWorld) read(p, _ string) {
	r.both("read "+p, func(_ int, root string) (string, error) {
		fd, err := unix.Open(filepath.Join(root, p), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		buf := make([]byte, 1<<20)
		n, err := unix.Read(fd, buf)
		return string(buf[:max(n, 0)]), err
	})
}

func (r *randomWorld) tmpfile(p, q string) {
	r.both(fmt.Sprintf("tmpfile %s %s", p, q), func(_ int, root string) (string, error) {
		fd, err := unix.Open(filepath.Join(root, p), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o640)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, []byte("tmpfile "+p)); err != nil {
			return "", err
		}
		from := fmt.Sprintf("/proc/self/fd/%d", fd)
		return "linked", unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, filepath.Join(root, q), unix.AT_SYMLINK_FOLLOW)
	})
}

func (r *randomWorld) copyRange(_, _ string) {
	if len(r.files) < 2 {
		return
	}
	from, to := r.files[r.rnd.Intn(len(r.files))], r.files[r.rnd.Intn(len(r.files))]
	if from.fd == to.fd {
		return
	}
	off, dst := int64(r.rnd.Intn(5000)), int64(r.rnd.Intn(5000))
	r.both(fmt.Sprintf("copy_file_range %s %s", from.name, to.name), func(i int, _ string) (string, error) {
		in, out := off, dst
		n, err := unix.CopyFileRange(from.fd[i], &in, to.fd[i], &out, 10000, 0)
		return strconv.Itoa(n), err
	})
}

// TestParallelChanges lets several change the same files at once, and wants the tree after mounting again to be
// the one that was left. With the race detector it looks for unlocked memory. Only root can read all that is left.
func TestParallelChanges(t *testing.T) {
	testenv.Require(t, "fuse", "root")
	st := newStore(t)
	load(t, st, newImage(t, "random", randomLayer(t), randomTop(t)), "random:1")
	if _, err := st.CreateContainer(context.Background(), &layers.ContainerOptions{Image: "random:1", Names: []string{"c"}}); err != nil {
		t.Fatal(err)
	}
	mount := func(dir string) (*Containers, error) { return MountContainer(st, "c", dir, &Options{Logger: quiet}) }
	m := containersAt(t, mount)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			// Both roots are the same, and nobody compares: two things are done instead of one.
			r := &randomWorld{t: t, rnd: rand.New(rand.NewSource(int64(i))), roots: [2]string{m.Mountpoint(), m.Mountpoint()}, quiet: true}
			for range 400 {
				r.step()
			}
			r.closeFiles()
		})
	}
	wg.Wait()
	want := takeTree(t, m.Mountpoint())
	unmount(t, m)
	got := takeTree(t, containersAt(t, mount).Mountpoint())
	for p, w := range want {
		if got[p] != w {
			t.Errorf("%s is\n   %s, but was\n   %s", p, got[p], w)
		}
	}
	if len(got) != len(want) || len(want) < 5 {
		t.Errorf("%d paths, and %d before", len(got), len(want))
	}
}
