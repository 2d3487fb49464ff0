package main

import (
	"errors"
	"fmt"
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

func (b *bench) fuseOverlayWritable(t *treesOf) *playground {
	return b.writable(t, "fuse-overlayfs", func(options, dir string) error {
		_, err := b.command("fuse-overlayfs", "-o", options, dir)
		return err
	})
}

// A chore is something that people do in a container.
type chore struct {
	what         string
	prepare      string // a script that is not measured
	script       string // or
	helper       string // of this program, with the tree and the args
	args         []string
	kernel, fuse float64 // at most this times the peer's time; 0: not compared
}

// chores need a tree src below the work directory: sources, and a git repository.
func chores(src, sub string, big string) []chore {
	in := []string{src, sub, big}
	return []chore{
		{what: "untar of a source tree", script: `mkdir "$1/x"; tar -xf "$2/src.tar" -C "$1/x"`, args: in, kernel: 1.1, fuse: 0.8},
		{what: "cp -r of a large directory", script: `cp -r "$1/$3" "$1/copy"`, args: in, kernel: 1.1, fuse: 0.8},
		{what: "rm -rf of it", prepare: `cp -r "$1/$3" "$1/copy"`, script: `rm -rf "$1/copy"`, args: in, kernel: 1.1, fuse: 0.8},
		{what: "rm -rf of the image's", script: `rm -rf "$1/$3"`, args: in, kernel: 1.1, fuse: 0.8},
		{what: "create and unlink 10,000 files", helper: "helper-create", kernel: 1.1, fuse: 0.8},
		{what: "rename 10,000 times", helper: "helper-rename", kernel: 1.1, fuse: 0.8},
		{what: "git clone", script: `git clone -q --no-hardlinks "$2/repo" "$1/clone"`, args: in, kernel: 1.1, fuse: 0.8},
		{what: "git status", prepare: `git clone -q --no-hardlinks "$2/repo" "$1/clone"; git -C "$1/clone" status >/dev/null`, script: `git -C "$1/clone" status | wc -l >/dev/null`, args: in, kernel: 1.1, fuse: 0.8},
		{what: "write 1 GiB", helper: "helper-seqwrite", kernel: 1.1, fuse: 0.9},
		{what: "random 4k writes, each with fsync", helper: "helper-randwrite", kernel: 1.1, fuse: 0.9},
		{what: "append 20,000 lines", helper: "helper-append", kernel: 1.1, fuse: 0.9},
		{what: "read of the image's files, again", prepare: `find "$1/$3" -type f -size -64k -print0 | xargs -0 cat | wc -c >/dev/null`, helper: "helper-readsub", args: in, kernel: 1.1, fuse: 1.0},
		{what: "chmod of the largest file", script: `chmod 640 "$1/$4"`, args: in, kernel: 1.1, fuse: 1.0},
	}
}

// containers compares work in a container with kernel overlayfs, for the kernel's
// path, and with fuse-overlayfs, for our own union.
func (b *bench) containers() error {
	t, err := b.walkImage()
	if err != nil {
		return err
	}
	src, err := b.sources()
	if err != nil {
		return err
	}
	sub, big, err := landmarks(t.merged)
	if err != nil {
		return err
	}
	grounds := []*playground{b.container(t, "overlay"), b.plainOverlay(t), b.container(t, "fuse"), b.fuseOverlayWritable(t)}
	for _, c := range chores(src, sub, big) {
		var sides []side
		for _, g := range grounds {
			sides = append(sides, b.doing(&c, g))
		}
		got, err := b.alternate(b.n, sides...)
		if err != nil {
			b.skip(c.what, err.Error())
			continue
		}
		b.ratio(c.what+", kernel", "plain overlayfs", got[0], got[1], wall, c.kernel)
		b.ratio(c.what+", FUSE", "fuse-overlayfs", got[2], got[3], wall, c.fuse)
	}
	return b.containerVerbs(t, sub)
}

// doing measures a chore in a fresh tree.
func (b *bench) doing(c *chore, g *playground) side {
	var dir string
	return side{
		name: g.name,
		before: func() (err error) {
			if dir, err = g.enter(); err == nil && c.prepare != "" {
				_, err = b.script(c.prepare, append([]string{dir}, c.args...)...)
			}
			unix.Sync() // what was written before is not to slow the work down
			return err
		},
		run: func() (sample, error) {
			args := append([]string{dir}, c.args...)
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

// landmarks finds the directory with the most entries of its own depth below the
// root's directories, and the largest file.
func landmarks(merged string) (sub, big string, err error) {
	var most int
	var largest int64
	tops, err := filepath.Glob(merged + "/*/*")
	if err != nil {
		return "", "", err
	}
	for _, top := range tops {
		list, err := paths(top, -1)
		if err != nil {
			return "", "", err
		}
		rel, err := filepath.Rel(merged, top)
		if err != nil {
			return "", "", err
		}
		if st, err := os.Lstat(top); err == nil && st.IsDir() && len(list) > most && len(list) < 120_000 {
			most, sub = len(list), rel
		}
		for _, p := range list {
			if st, err := os.Lstat(p); err == nil && st.Mode().IsRegular() && st.Size() > largest {
				largest = st.Size()
				if big, err = filepath.Rel(merged, p); err != nil {
					return "", "", err
				}
			}
		}
	}
	return sub, big, nil
}
