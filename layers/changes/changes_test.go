package changes_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/storetest"
	"github.com/layerfs/layerfs/internal/testenv"
	"github.com/layerfs/layerfs/internal/treetest"
	"github.com/layerfs/layerfs/layers"
	"github.com/layerfs/layerfs/layers/changes"
)

// newStore makes an empty store, which must be sound at the end of the test.
func newStore(t *testing.T) *layers.Store {
	t.Helper()
	s, err := layers.Open(filepath.Join(t.TempDir(), "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r, err := s.Check(context.Background(), nil)
		if err != nil || len(r.Problems) > 0 {
			t.Errorf("check: %+v, %v", r, err)
		}
		s.Close()
	})
	return s
}

// create makes a container of the image.
func create(t *testing.T, s *layers.Store, name string) *layers.Container {
	t.Helper()
	c, err := s.CreateContainer(t.Context(), &layers.ContainerOptions{Image: "app:1", Names: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// unpack writes the merged tree of an item into a new directory.
func unpack(t *testing.T, s *layers.Store, item string) string {
	t.Helper()
	dir := t.TempDir()
	r, w := io.Pipe()
	go func() {
		_, err := s.Export(t.Context(), w, item)
		w.CloseWithError(err)
	}()
	cmd := exec.Command("tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", dir)
	cmd.Stdin = r
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return dir
}

// overlay mounts a container with the kernel's overlayfs over its unpacked stack.
func overlay(t *testing.T, s *layers.Store, c *layers.Container) string {
	t.Helper()
	low := t.TempDir()
	if c.ImageName != "" {
		low = unpack(t, s, c.ImageName)
	}
	mnt := t.TempDir()
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,metacopy=on,redirect_dir=on", low, s.UpperPath(c.ID), s.WorkPath(c.ID))
	if err := unix.Mount("none", mnt, "overlay", 0, options); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(mnt, unix.MNT_DETACH) })
	return mnt
}

func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sh: %v\n%s", err, out)
	}
}

func take(t *testing.T, dir string) *treetest.Snapshot {
	t.Helper()
	snap, err := treetest.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// diffBytes returns the tar of the changes, and checks its announced size.
func diffBytes(t *testing.T, s *layers.Store, x, y string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := s.Diff(t.Context(), &buf, x, y)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Torn) != 0 {
		t.Errorf("torn: %q", w.Torn)
	}
	n, err := s.DiffSize(t.Context(), x, y)
	if err != nil || n != int64(buf.Len()) {
		t.Errorf("diff %s has %d bytes, DiffSize says %d, %v", x, buf.Len(), n, err)
	}
	return buf.Bytes()
}

func changeLines(t *testing.T, s *layers.Store, x, y string) []string {
	t.Helper()
	var lines []string
	err := s.Changes(t.Context(), x, y, func(c changes.Change) error {
		lines = append(lines, c.String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// diffImage has what the scripts of TestContainerDiff change.
func diffImage(t *testing.T, s *layers.Store) {
	t.Helper()
	dir, file, big := storetest.Dir, storetest.File, strings.Repeat("0123456789abcdef", 20000)
	src := storetest.Image(t, "",
		storetest.Gzip(t, storetest.Tar(t, dir("d"), file("d/keep", "k"), file("d/mod", "old"), file("d/del", "x"), dir("d/sub"), file("d/sub/a", "a"), file("d/sub/b", "b"),
			dir("mv"), file("mv/one", "1"), dir("mv/two"), file("mv/two/3", "3"), storetest.Symlink("mv/link", "one"), storetest.Link("mv/hard", "mv/one"),
			file("big", big), dir("opq"), file("opq/x", "x"), file("opq/y", "y"), dir("todir"), file("todir/f", "f"), file("tofile", "t"), storetest.Symlink("sl", "d/keep"))),
		storetest.Gzip(t, storetest.Tar(t, dir("d"), file("d/second", "2"))),
	)
	if _, err := s.Load(t.Context(), src, &layers.LoadOptions{Names: []string{"app:1"}}); err != nil {
		t.Fatal(err)
	}
}

var diffCases = []struct {
	name, script string
	want         []string // nil: not compared
}{
	{"nothing", `true`, []string{}},
	{"create", `echo n > new; mkdir -p a/b; echo f > a/b/f`, []string{"A /a", "A /a/b", "A /a/b/f", "A /new"}},
	{"modify", `echo more >> d/mod; chmod 600 d/keep`, []string{"C /d", "C /d/keep", "C /d/mod"}},
	{"delete", `rm d/del; rm -r mv`, []string{"D /mv", "C /d", "D /d/del"}},
	{"deleted again", `echo n > new; rm new; rm d/del; echo x > d/del; rm d/del`, []string{"C /d", "D /d/del"}},
	{"metacopy", `chown 7:8 big; setfattr -n user.x -v y big`, []string{"C /big"}},
	{"opaque", `rm -r opq; mkdir opq; echo z > opq/z; echo 2 > opq/x`, []string{"C /opq", "D /opq/y", "C /opq/x", "A /opq/z"}},
	{"kinds", `rm -r todir; echo f > todir; rm tofile; mkdir tofile; echo i > tofile/in; rm sl; mkfifo sl`, []string{"C /sl", "C /todir", "C /tofile", "A /tofile/in"}},
	{"redirect", `mv mv moved; echo n > moved/new; rm moved/two/3; chmod 700 moved/two`, []string{"D /mv", "A /moved", "A /moved/hard", "A /moved/link", "A /moved/new", "A /moved/one", "A /moved/two"}},
	{"redirect deep", `mv mv/two d/two; mv d e; mkdir d; echo q > d/keep`, nil},
	{"redirect onto", `rm -r opq; mv mv opq`, []string{"D /mv", "C /opq", "D /opq/x", "D /opq/y", "A /opq/hard", "A /opq/link", "A /opq/one", "A /opq/two", "A /opq/two/3"}},
	{"redirected metacopy", `chmod 600 big; mv big d/big; chmod 640 d/big`, []string{"D /big", "C /d", "A /d/big"}},
	{"links", `echo l > l1; ln l1 l2; ln l1 d/l3; ln d/keep keep2`, []string{"C /d", "C /d/keep", "A /d/l3", "A /keep2", "A /l1", "A /l2"}},
	{"special", `mknod c c 5 1; mknod b b 7 200; mkfifo p; ln -s /nowhere s; chown -h 3:4 s; chown 5:6 c`, []string{"A /b", "A /c", "A /p", "A /s"}},
	{"odd names", `touch "$(printf 'a\nb\377')"; touch ` + strings.Repeat("n", 255) + `; mkdir -p ` + strings.Repeat("long/", 60) + `; touch ` + strings.Repeat("long/", 60) + `f`, nil},
	{"sparse and times", `truncate -s 3M sparse; echo x >> sparse; touch -d '1969-12-31 23:59:58.000000001 UTC' old; touch -d '2200-01-01 00:00:00.123456789 UTC' future`, []string{"A /future", "A /old", "A /sparse"}},
	{"xattrs", `echo x > f; setfattr -n user.a=b -v 1 f; setfattr -n user.bin -v 0x00ff00 f; setfattr -n trusted.t -v q f; setfacl -m u:5:rw f; chmod u+s f; setcap cap_net_raw+ep d/keep`, nil},
	{"root", `chmod 711 .; chown 9:9 .`, []string{"C /"}},
	{"touched root", `echo x > gone; rm gone`, []string{}},
	{"whiteout at the top and below", `rm -r d/sub; mkdir d/sub; echo a > d/sub/a; rm d/sub/a; rmdir d/sub`, []string{"C /d", "D /d/sub"}},
}

// TestContainerDiff writes through kernel overlayfs and then compares three trees:
// what the mount shows, what export writes, and the image that commit makes.
func TestContainerDiff(t *testing.T) {
	testenv.Require(t, "root", "overlayfs")
	for _, tt := range diffCases {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			diffImage(t, s)
			c := create(t, s, "c")
			mnt := overlay(t, s, c)
			sh(t, mnt, tt.script)
			want := take(t, mnt)
			if err := unix.Unmount(mnt, 0); err != nil {
				t.Fatal(err)
			}
			got := changeLines(t, s, "c", "")
			if tt.want != nil && !slices.Equal(got, tt.want) {
				t.Errorf("changes %q\nwant    %q", got, tt.want)
			}
			tar := diffBytes(t, s, "c", "")
			r, err := s.Commit(t.Context(), "c", &layers.CommitOptions{Names: []string{"new:1"}})
			if err != nil {
				t.Fatal(err)
			}
			if (r.Layer == "") != (len(tar) == 1024) {
				t.Errorf("layer %q of a tar of %d bytes", r.Layer, len(tar))
			}
			if r.Layer != "" {
				if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(tar)); sum != string(r.Layer) {
					t.Errorf("diff of the container %s, of the commit %s", sum, r.Layer)
				}
				if again := diffBytes(t, s, "new:1", ""); !bytes.Equal(again, tar) {
					t.Error("the diff of the image is not that of the container")
				}
			}
			if left := changeLines(t, s, "c", "new:1"); len(left) != 0 {
				t.Errorf("the image differs from the container: %q", left)
			}
			for _, item := range []string{"c", "new:1"} {
				for _, line := range treetest.Diff(want, take(t, unpack(t, s, item)), treeOptions(tt.name)) {
					t.Errorf("%s: %s", item, line)
				}
			}
		})
	}
}

// treeOptions leave out the time of a root in which nothing is, because no layer is
// made for it, and an attribute that GNU tar cannot unpack.
func treeOptions(name string) *treetest.Options {
	return &treetest.Options{Entry: func(path string, want, got *treetest.Entry) {
		if path == "." && name == "touched root" {
			want.Mtime = got.Mtime
		}
		if want != nil {
			delete(want.Xattrs, "user.a=b")
		}
	}}
}

// Changes and diffs between any two trees lead from one to the other.
func TestDiffOfImages(t *testing.T) {
	testenv.Require(t, "root", "overlayfs")
	s := newStore(t)
	diffImage(t, s)
	for i, tt := range diffCases {
		name := fmt.Sprintf("c%d", i)
		mnt := overlay(t, s, create(t, s, name))
		sh(t, mnt, tt.script)
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), name, &layers.CommitOptions{Names: []string{fmt.Sprintf("i%d:1", i)}}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range diffCases {
		y := (i + 3) % len(diffCases)
		for _, pair := range [][2]string{{fmt.Sprintf("i%d:1", i), fmt.Sprintf("i%d:1", y)}, {fmt.Sprintf("c%d", i), fmt.Sprintf("c%d", y)}, {"app:1", fmt.Sprintf("c%d", i)}} {
			tar := filepath.Join(t.TempDir(), "diff.tar")
			if err := os.WriteFile(tar, diffBytes(t, s, pair[0], pair[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			below := tarOf(t, s, pair[1])
			merged := filepath.Join(t.TempDir(), "merged")
			if err := treetest.Merge([]string{below, tar}, merged); err != nil {
				t.Fatal(err)
			}
			for _, line := range treetest.Diff(take(t, unpack(t, s, pair[0])), take(t, merged), &treetest.Options{Entry: ignoreLinks}) {
				t.Errorf("from %s to %s (%s): %s", pair[1], pair[0], diffCases[i].name, line)
			}
		}
	}
	if got := changeLines(t, s, "i3:1", "i3:1"); len(got) != 0 {
		t.Errorf("of itself: %q", got)
	}
}

// ignoreLinks leaves out which names are links to each other: new names of a file
// that both trees have become copies, as Diff says.
func ignoreLinks(path string, want, got *treetest.Entry) {
	if want != nil && got != nil {
		got.Nlink, got.Group = want.Nlink, want.Group
		if path == "." {
			got.Mtime = want.Mtime // alone it is no change
		}
	}
}

func tarOf(t *testing.T, s *layers.Store, item string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "tree.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := s.Export(t.Context(), f, item); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// A file that is being written all the time does not end a diff, and is named.
func TestDiffWhileWriting(t *testing.T) {
	s := newStore(t)
	diffImage(t, s)
	c := create(t, s, "c")
	f, err := os.Create(filepath.Join(s.UpperPath(c.ID), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8 << 20); err != nil { // large: it is not read again
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
				f.WriteAt([]byte("line\n"), i%(7<<20))
				if i%64 == 0 {
					f.Truncate(8<<20 - i%(1<<20))
				}
			}
		}
	}()
	var out bytes.Buffer
	w, err := s.Diff(t.Context(), &out, "c", "")
	close(stop)
	<-stopped
	if err != nil || !slices.Equal(w.Torn, []string{"log"}) {
		t.Fatalf("%+v, %v", w, err)
	}
	// The archive is sound all the same.
	cmd := exec.Command("tar", "-t")
	cmd.Stdin = &out
	if list, err := cmd.Output(); err != nil || !strings.Contains(string(list), "log\n") {
		t.Errorf("tar -t: %q, %v", list, err)
	}
}
