package mounttest_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
)

// TestLoadTwice: the second load of an image stores nothing.
func TestLoadTwice(t *testing.T) {
	s := newStore(t, nil)
	archive := filepath.Join(testenv.Shared(t), "images/mini-debian.oci.tar")
	s.load("-i", archive)
	before := s.snapshot()
	s.load("-i", archive)
	report(t, "second load", sameBodies(before, s.snapshot()))
	// Another name and another form of an image store no body either.
	images := filepath.Join(testenv.Shared(t), "images")
	s.load("-i", filepath.Join(images, "alpine.oci.tar"))
	before = s.snapshot()
	for _, name := range []string{"alpine.docker.tar", "alpine.docker25.tar", "alpine.zstd3.oci"} {
		s.load("--name", "localhost/other:1", "-i", filepath.Join(images, name))
		report(t, name, sameBodies(before, s.snapshot()))
	}
	s.checkClean()
}

// sameBodies compares what holds the content of files.
func sameBodies(before, after *treetest.Snapshot) []string {
	return treetest.Diff(before, after, &treetest.Options{
		Skip:  func(p string) bool { return p != "." && !bodies.MatchString(p) },
		Entry: func(_ string, want, got *treetest.Entry) { got.Mtime = want.Mtime },
	})
}

var bodies = regexp.MustCompile(`^(objects|packs|layers)(/|$)`)

// TestLoadAtOnce: the same image from several processes at once is stored once.
func TestLoadAtOnce(t *testing.T) {
	archive := filepath.Join(testenv.Shared(t), "images/mini-debian.oci.tar")
	once := newStore(t, nil)
	once.load("-i", archive)
	s := newStore(t, nil)
	const processes = 3
	results := make([]result, processes)
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() { results[i] = s.run("load", "-q", "-i", archive) })
	}
	wg.Wait()
	for _, r := range results {
		if r.code != 0 {
			t.Error(r)
		}
	}
	s.ok("gc")
	s.checkClean()
	a, b := once.usage(), s.usage()
	if a.objects != b.objects || b.blocks > a.blocks+a.blocks/50+256<<10 {
		t.Errorf("one load: %+v; %d at once: %+v", a, processes, b)
	}
	if n := len(strings.Fields(s.ok("images", "-q"))); n != 1 {
		t.Errorf("%d images, want 1", n)
	}
}

// A usage is what a store takes.
type usage struct {
	objects int   // files in objects/
	blocks  int64 // bytes on disk of objects/ and packs/
}

func (s *store) usage() usage {
	var u usage
	err := filepath.WalkDir(s.root, func(p string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(s.root, p)
		if err != nil || d.IsDir() || !strings.HasPrefix(rel, "objects/") && !strings.HasPrefix(rel, "packs/") {
			return err
		}
		if strings.HasPrefix(rel, "objects/") {
			u.objects++
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		u.blocks += st.Blocks * 512
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
	return u
}

// TestFullDisk loads into a file system that is too small, by more and more.
func TestFullDisk(t *testing.T) {
	testenv.Require(t, "root", "fuse")
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=20m"); err != nil {
		t.Skipf("tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := newStore(t, nil)
	s.root = filepath.Join(disk, "store")
	name := s.load("-i", filepath.Join(testenv.Shared(t), "images/alpine.oci.tar"))
	root := filepath.Join(imageDir(s.mount(), name), "rootfs")
	tree := s.take(root)
	before := s.snapshot()

	big := newTar()
	for i := range 300 {
		big.file(fmt.Sprintf("small/%d", i), noise(i, 20_000))
	}
	for i := range 10 {
		big.file(fmt.Sprintf("large/%d", i), noise(1000+i, 1_000_000))
	}
	archive := archiveOf(t, big)
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	used := int64(st.Blocks-st.Bfree) * st.Bsize
	full := 0
	for _, more := range []int64{4 << 10, 64 << 10, 1 << 20, 5 << 20, 12 << 20, 15500 << 10, 16 << 20} {
		if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+more)); err != nil {
			t.Fatal(err)
		}
		r := s.run("load", "-q", "-i", archive)
		if r.code == 0 {
			s.ok("rmi", "localhost/synthetic:1")
			s.ok("gc")
			continue
		}
		full++
		r.refused(t, 1)
		if !strings.Contains(r.stderr, "no space left") {
			t.Errorf("%d bytes left: the error does not say that the disk is full: %s", more, r.stderr)
		}
		s.unchanged(before)
		if lines := treetest.Diff(tree, s.take(root), nil); lines != nil {
			report(t, "old image", lines)
		}
	}
	if full < 4 {
		t.Errorf("the disk was full %d times, want at least 4", full)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	s.load("-i", archive)
	s.checkClean()
}

// TestReadOnlyStore: reading works on a read-only file system, writing is refused
// in a sentence.
func TestReadOnlyStore(t *testing.T) {
	testenv.Require(t, "root", "fuse")
	s := newStore(t, nil)
	archive := filepath.Join(testenv.Shared(t), "images/tiny-busybox.oci.tar")
	name := s.load("-i", archive)
	if err := unix.Mount(s.root, s.root, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("bind mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", s.root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"load", "-q", "-i", filepath.Join(testenv.Shared(t), "images/alpine.oci.tar")},
		{"tag", name, "localhost/x:1"},
		{"rmi", name},
		{"gc"},
	} {
		r := s.run(args...)
		r.refused(t, 1)
		if !strings.Contains(r.stderr, "read-only") {
			t.Errorf("the error does not say read-only: %v", r)
		}
	}
	for _, args := range [][]string{{"images"}, {"inspect", name}, {"layers"}, {"info"}, {"check", "-q"}} {
		s.ok(args...)
	}
	root := filepath.Join(imageDir(s.mount(), name), "rootfs")
	if n := len(s.take(root).Entries); n < 100 {
		t.Errorf("only %d paths in a read-only store's image", n)
	}
}

// TestStdin loads from a pipe, in every outer compression.
func TestStdin(t *testing.T) {
	testenv.Require(t, "gzip", "xz", "bzip2", "zstd")
	archive := filepath.Join(testenv.Shared(t), "images/tiny-busybox.docker.tar")
	var want string
	for _, program := range []string{"cat", "gzip -c", "xz -0c", "bzip2 -c", "zstd -qc"} {
		s := newStore(t, nil)
		data := shell(t, 0, program+` "$1"`, archive)
		cmd := s.command(context.Background(), "load", "-q")
		cmd.Stdin = strings.NewReader(data)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v: %s", program, err, stderr.String())
			continue
		}
		got := s.ok("images", "-q", "--no-trunc") + s.ok("layers", "-q", "--no-trunc")
		if want == "" {
			want = got
		} else if got != want {
			t.Errorf("%s: got %q, want %q", program, got, want)
		}
	}
}

// TestSaveLoad: what is saved loads again as the same image.
func TestSaveLoad(t *testing.T) {
	for _, format := range []string{"docker-archive", "oci-archive", "oci-dir"} {
		s, again := newStore(t, nil), newStore(t, nil)
		name := s.load("-i", filepath.Join(testenv.Shared(t), "images/tiny-busybox.oci.tar"))
		out := filepath.Join(t.TempDir(), "saved")
		s.ok("save", "--format", format, "-o", out, name)
		if got := again.load("-i", out); got != name {
			t.Errorf("%s: loaded as %q, want %q", format, got, name)
		}
		if a, b := s.ok("images", "-q", "--no-trunc"), again.ok("images", "-q", "--no-trunc"); a != b {
			t.Errorf("%s: image %q, want %q", format, b, a)
		}
		if a, b := s.ok("layers", "-q", "--no-trunc"), again.ok("layers", "-q", "--no-trunc"); a != b {
			t.Errorf("%s: layers %q, want %q", format, b, a)
		}
	}
}
