package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A playground is a fresh writable tree over an image; leave takes it away.
type playground struct {
	name  string
	enter func() (dir string, err error)
	leave func() error
}

// container makes a container of layerfs and mounts it with one of its drivers.
func (b *bench) container(t *treesOf, driver string) *playground {
	p := &playground{name: "layerfs " + driver}
	var dir string
	p.enter = func() (string, error) {
		if _, err := t.store.run("create", "--name", "bench", t.reference()); err != nil {
			return "", err
		}
		var err error
		dir, err = t.store.mount("--container", "bench", "--driver", driver)
		return dir, err
	}
	p.leave = func() error {
		err := t.store.umount(dir)
		_, rmErr := t.store.run("rm", "bench")
		return errors.Join(err, rmErr)
	}
	return p
}

// reference is the image as verbs name it.
func (t *treesOf) reference() string {
	if id, ok := strings.CutPrefix(t.name, "by-id/"); ok {
		return id
	}
	return strings.ReplaceAll(t.name, "@", ":")
}

// writable mounts the unpacked layers with an upper directory, by mount(8) options
// or with fuse-overlayfs.
func (b *bench) writable(t *treesOf, name string, mount func(options, dir string) error) *playground {
	p := &playground{name: name}
	var work string
	p.enter = func() (string, error) {
		var err error
		if work, err = b.dir("w"); err != nil {
			return "", err
		}
		for _, d := range []string{"u", "w", "m"} {
			if err := os.Mkdir(filepath.Join(work, d), 0o755); err != nil {
				return "", err
			}
		}
		var lower []string
		for i := len(t.layers) - 1; i >= 0; i-- {
			lower = append(lower, t.layers[i])
		}
		dir := filepath.Join(work, "m")
		b.cleanup = append(b.cleanup, func() { detach(dir) })
		return dir, mount(fmt.Sprintf("lowerdir=%s,upperdir=%s/u,workdir=%s/w", strings.Join(lower, ":"), work, work), dir)
	}
	p.leave = func() error {
		return errors.Join(b.unmount(filepath.Join(work, "m")), os.RemoveAll(work))
	}
	return p
}

func (b *bench) plainOverlay(t *treesOf) *playground {
	return b.writable(t, "overlayfs", func(options, dir string) error {
		return unix.Mount("none", dir, "overlay", 0, options+",metacopy=on,redirect_dir=on")
	})
}

// plain is an empty directory of the file system below.
func (b *bench) plain() *playground {
	p := &playground{name: "file system"}
	var dir string
	p.enter = func() (_ string, err error) {
		dir, err = b.dir("plain")
		return dir, err
	}
	p.leave = func() error { return os.RemoveAll(dir) }
	return p
}

func (b *bench) fuseOverlayWritable(t *treesOf) *playground {
	return b.writable(t, "fuse-overlayfs", func(options, dir string) error {
		_, err := b.command("fuse-overlayfs", "-o", options, dir)
		return err
	})
}

// A chore is something that people do in a container.
type chore struct {
	what         string
	prepare      string  // a script that is not measured
	script       string  // or
	helper       string  // of this program
	kernel, fuse float64 // at most this times the time of overlayfs, and of fuse-overlayfs
	disk         float64 // and of the file system below, where the kernel passes through; 0: not compared
}

// chores are called with the tree, a directory with sources and a large directory of
// the image.
var chores = []chore{
	{what: "untar of a source tree", script: `mkdir "$1/x"; tar -xf "$2/src.tar" -C "$1/x"`, kernel: 1.1, fuse: 0.8},
	{what: "cp -r of a directory", script: `cp -r "$1/$3" "$1/copy"`, kernel: 1.1, fuse: 0.8},
	{what: "rm -rf of new files", prepare: `cp -r "$1/$3" "$1/copy"`, script: `rm -rf "$1/copy"`, kernel: 1.1, fuse: 0.8},
	{what: "rm -rf of files of the image", script: `rm -rf "$1/$3"`, kernel: 1.1, fuse: 0.8},
	{what: "create and unlink 10,000 files", helper: "helper-create", kernel: 1.1, fuse: 0.8},
	{what: "rename 10,000 times", helper: "helper-rename", kernel: 1.1, fuse: 0.8},
	{what: "git clone", script: `git clone -q --no-hardlinks "$2/repo" "$1/clone"`, kernel: 1.1, fuse: 0.8},
	{what: "git status", prepare: `git clone -q --no-hardlinks "$2/repo" "$1/clone"; git -C "$1/clone" status >/dev/null`, script: `git -C "$1/clone" status | wc -l >/dev/null`, kernel: 1.1, fuse: 0.8},
	{what: "write 1 GiB", helper: "helper-seqwrite", kernel: 1.1, fuse: 0.9, disk: 1.2},
	{what: "random 4k writes, each with fsync", helper: "helper-randwrite", kernel: 1.1, fuse: 0.9, disk: 1.2},
	{what: "append 20,000 lines", helper: "helper-append", kernel: 1.1, fuse: 0.9, disk: 1.2},
	{what: "read of the image's files, again", prepare: `find "$1/$3" -type f -size -64k -print0 | xargs -0 cat | wc -c >/dev/null`, helper: "helper-readsub", kernel: 1.1, fuse: 1.0},
}

// containerRows are the rows about containers.
func containerRows() []row {
	needs := []string{"root", "fuse-overlayfs", "git"}
	rows := []row{{"containers", aboutContainers, needs, (*bench).containerVerbs}}
	for _, c := range chores {
		rows = append(rows, row{"container " + c.what, aboutContainers, needs, func(b *bench) error { return b.chore(&c) }})
	}
	return append(rows, row{"container chmod of a file of 1 GiB", aboutContainers, needs, (*bench).chmodBig})
}

// A workplace is what all chores have in common.
type workplace struct {
	t       *treesOf
	args    []string // of the scripts, behind the tree: sources, a large directory of the image
	grounds []*playground
}

// workplace prepares it once in a run.
func (b *bench) workplace() (*workplace, error) {
	if b.place != nil {
		return b.place, nil
	}
	t, err := b.walkImage()
	if err != nil {
		return nil, err
	}
	src, err := b.sources()
	if err != nil {
		return nil, err
	}
	sub, err := largeDirectory(t.merged)
	if err != nil {
		return nil, err
	}
	b.place = &workplace{t, []string{src, sub}, []*playground{
		b.container(t, "overlay"), b.plainOverlay(t), b.container(t, "fuse"), b.fuseOverlayWritable(t),
	}}
	return b.place, nil
}

// chore compares work in a container with kernel overlayfs, for the kernel's path,
// and with fuse-overlayfs, for our own union.
func (b *bench) chore(c *chore) error {
	w, err := b.workplace()
	if err != nil {
		return err
	}
	var sides []side
	for _, g := range w.grounds {
		sides = append(sides, b.doing(c, g, w.args))
	}
	if c.disk > 0 {
		sides = append(sides, b.doing(c, b.plain(), w.args))
	}
	got, err := b.alternate(b.n, sides...)
	if err != nil {
		return err
	}
	b.ratio(c.what+", kernel", "plain overlayfs", got[0], got[1], wall, c.kernel)
	b.ratio(c.what+", FUSE", "fuse-overlayfs", got[2], got[3], wall, c.fuse)
	if c.disk > 0 {
		b.ratio(c.what+", FUSE with passthrough", fsName(b.work), got[2], got[4], wall, c.disk)
	}
	return nil
}

// chmodBig changes the mode of a file of the image that has 1 GiB.
func (b *bench) chmodBig() error {
	f, err := b.bigFile()
	if err != nil {
		return err
	}
	c := &chore{helper: "helper-chmod"}
	var sides []side
	for _, g := range []*playground{b.container(f.treesOf, "overlay"), b.plainOverlay(f.treesOf), b.container(f.treesOf, "fuse")} {
		sides = append(sides, b.doing(c, g, []string{"big.bin"}))
	}
	got, err := b.alternate(2*b.n, sides...)
	if err != nil {
		return err
	}
	b.ratio("chmod of a file of 1 GiB, kernel", "plain overlayfs", got[0], got[1], wall, 1.1)
	m, spread := got[2].median(wall)
	b.bound("chmod of a file of 1 GiB, FUSE", m, 0.010, seconds, spread)
	return nil
}

// doing measures a chore in a fresh tree.
func (b *bench) doing(c *chore, g *playground, more []string) side {
	var dir string
	return side{
		name: g.name,
		before: func() (err error) {
			if dir, err = g.enter(); err == nil && c.prepare != "" {
				_, err = b.script(c.prepare, append([]string{dir}, more...)...)
			}
			unix.Sync() // what was written before is not to slow the work down
			return err
		},
		run: func() (sample, error) {
			args := append([]string{dir}, more...)
			if c.helper != "" {
				return b.helper(c.helper, args...)
			}
			return b.script(c.script, args...)
		},
		after: g.leave,
	}
}

// sources makes what the chores bring in: the module's dependencies or whatever
// source is at hand, as a tar and as a git repository.
func (b *bench) sources() (string, error) {
	dir, err := b.dir("src")
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath("git"); err != nil {
		return "", err
	}
	_, err = b.script(`cd "$1"; root=$(go env GOROOT)/src; mkdir repo; tar -C "$root" -cf - net go cmd/go encoding internal | tar -C repo -xf -
		cd repo; git init -q; git add -A; git -c user.name=bench -c user.email=bench@localhost commit -qm all; cd ..
		tar -cf src.tar -C repo --exclude=.git .`, dir)
	return dir, err
}

// largeDirectory finds the directory with the most files, but not too many to be
// copied again and again.
func largeDirectory(merged string) (sub string, err error) {
	const enough = 5000
	counts := map[string]int{}
	err = filepath.WalkDir(merged, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == merged {
			return err
		}
		rel := strings.TrimPrefix(p, merged+"/")
		for dir := filepath.Dir(rel); dir != "."; dir = filepath.Dir(dir) {
			counts[dir]++
		}
		return nil
	})
	for dir, n := range counts {
		if n <= enough && (n > counts[sub] || n == counts[sub] && dir < sub) {
			sub = dir
		}
	}
	return sub, err
}
