package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

const (
	find = `find "$1" | wc -l`
	lslR = `ls -lR "$1" | wc -l`
)

// again compares walks of what has been seen before with kernel overlayfs, and
// counts the requests that reach the server in them.
func (b *bench) again() error {
	t, err := b.walkImage()
	if err != nil {
		return err
	}
	mnt, rootfs, err := t.rootfs()
	if err != nil {
		return err
	}
	defer func() { b.note(t.store.umount(mnt)) }()
	shell := func(script, dir string) func() (sample, error) {
		return func() (sample, error) { return b.script(script, dir) }
	}
	read := func(dir string) func() (sample, error) {
		return func() (sample, error) { return b.helper("helper-readall", dir) }
	}
	for _, c := range []struct {
		what         string
		ours, theirs func() (sample, error)
	}{
		{"second find", shell(find, rootfs), shell(find, t.merged)},
		{"second ls -lR", shell(lslR, rootfs), shell(lslR, t.merged)},
		{"second open-read-close of small files", read(rootfs), read(t.merged)},
	} {
		// Once to know it, once more because the kernel asks about some things
		// at the second look only.
		for range 2 {
			if _, err := c.ours(); err != nil {
				return err
			}
			if _, err := c.theirs(); err != nil {
				return err
			}
		}
		got, err := b.alternate(b.n, side{name: "layerfs", run: c.ours}, side{name: "overlayfs", run: c.theirs})
		if err != nil {
			return err
		}
		b.ratio(c.what, "kernel overlayfs", got[0], got[1], wall, 1)
	}
	return b.countRequests(mnt, rootfs)
}

// countRequests walks a tree that is known to the kernel and counts what reaches
// the server, without what reading the counter itself costs. Inodes
// that the kernel forgets meanwhile are no requests of the walk. The programs find
// and ls ask a few things once per run that no kernel remembers: fstatfs, and for
// access lists until the answer tells them that there are none.
func (b *bench) countRequests(mnt, rootfs string) error {
	for _, c := range []struct {
		what   string
		target float64
		walk   func() (sample, error)
	}{
		{"requests of a second readdir + lstat walk", 0, func() (sample, error) { return b.helper("helper-walk", rootfs) }},
		{"requests of a second find, all in all", 4, func() (sample, error) { return b.script(find, rootfs) }},
		{"requests of a second ls -lR, all in all", 4, func() (sample, error) { return b.script(lslR, rootfs) }},
	} {
		sum := int64(-1)
		// The least of some: the kernel may drop a page or an inode in between.
		for range 5 {
			n, err := extraRequests(mnt, c.walk)
			if err != nil {
				return err
			}
			if sum < 0 || n < sum {
				sum = n
			}
		}
		b.bound(c.what, float64(sum), c.target, number, 0)
	}
	return nil
}

// extraRequests counts the requests of a walk.
func extraRequests(mnt string, walk func() (sample, error)) (int64, error) {
	var counts [3]map[string]int64
	for i := range counts {
		if i == 2 {
			if _, err := walk(); err != nil {
				return 0, err
			}
		}
		var err error
		if counts[i], err = requests(mnt); err != nil {
			return 0, err
		}
	}
	var sum int64
	for op, n := range counts[2] {
		more := (n - counts[1][op]) - (counts[1][op] - counts[0][op])
		if !strings.Contains(strings.ToUpper(op), "FORGET") {
			sum += max(0, more)
		}
	}
	return sum, nil
}

// requests returns the counters of a mount.
func requests(mnt string) (map[string]int64, error) {
	data, err := os.ReadFile(filepath.Join(mnt, ".layerfs/status.json"))
	if err != nil {
		return nil, err
	}
	var status struct{ Requests map[string]int64 }
	if err := json.Unmarshal(data, &status); err != nil {
		return nil, err
	}
	if len(status.Requests) == 0 {
		return nil, errors.New("status.json counts no requests")
	}
	return status.Requests, nil
}

// note reports an error that ends nothing.
func (b *bench) note(err error) {
	if err != nil {
		b.progress("%v", err)
	}
}

// first compares the first walk of a fresh mount with fuse-overlayfs.
func (b *bench) first() error {
	t, err := b.walkImage()
	if err != nil {
		return err
	}
	for _, d := range t.layers {
		if err := warm(d); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		what   string
		target float64
		run    func(dir string) (sample, error)
	}{
		{"first find", 0.3, func(d string) (sample, error) { return b.script(find, d) }},
		{"first ls -lR", 0.6, func(d string) (sample, error) { return b.script(lslR, d) }},
		{"first random stat", 0.7, func(d string) (sample, error) { return b.helper("helper-randstat", d, t.merged) }},
		{"first tar cf - | wc -c", 0.6, func(d string) (sample, error) { return b.script(`tar cf - -C "$1" . | wc -c`, d) }},
	} {
		got, err := b.alternate(b.n, b.freshLayerfs(t, c.run), b.freshFuseOverlay(t, c.run))
		if err != nil {
			return err
		}
		b.ratio(c.what, "fuse-overlayfs", got[0], got[1], wall, c.target)
	}
	return nil
}

// freshLayerfs measures a walk on a mount of its own.
func (b *bench) freshLayerfs(t *treesOf, run func(string) (sample, error)) side {
	var mnt, rootfs string
	return side{
		name: "layerfs",
		before: func() (err error) {
			mnt, rootfs, err = t.rootfs()
			return err
		},
		run:   func() (sample, error) { return run(rootfs) },
		after: func() error { return t.store.umount(mnt) },
	}
}

func (b *bench) freshFuseOverlay(t *treesOf, run func(string) (sample, error)) side {
	var mnt string
	return side{
		name: "fuse-overlayfs",
		before: func() (err error) {
			mnt, err = b.fuseOverlay(t.layers)
			return err
		},
		run:   func() (sample, error) { return run(mnt) },
		after: func() error { return b.unmount(mnt) },
	}
}

// hundred compares walks through 100 layers with walks of the same tree as one.
func (b *bench) hundred() error {
	t, err := b.treesOf("layers100")
	if err != nil {
		return err
	}
	flat, err := b.flatten(t)
	if err != nil {
		return err
	}
	walk := func(d string) (sample, error) { return b.script(find, d) }
	got, err := b.alternate(b.n, b.freshLayerfs(t, walk), b.freshLayerfs(flat, walk))
	if err != nil {
		return err
	}
	b.ratio("100 layers, first find", "one layer", got[0], got[1], wall, 1.5)
	long := func(d string) (sample, error) { return b.script(lslR, d) }
	if got, err = b.alternate(b.n, b.freshLayerfs(t, long), b.freshLayerfs(flat, long)); err != nil {
		return err
	}
	b.ratio("100 layers, first ls -lR", "one layer", got[0], got[1], wall, 1.5)
	var sides []side
	for _, x := range []*treesOf{t, flat} {
		mnt, rootfs, err := x.rootfs()
		if err != nil {
			return err
		}
		defer func() { b.note(x.store.umount(mnt)) }()
		for range 2 {
			if _, err := long(rootfs); err != nil {
				return err
			}
		}
		sides = append(sides, side{name: x.name, run: func() (sample, error) { return long(rootfs) }})
	}
	if got, err = b.alternate(2*b.n, sides...); err != nil {
		return err
	}
	// "As with one layer": within what such a short measurement can tell.
	b.ratio("100 layers, second ls -lR", "one layer", got[0], got[1], wall, 1.1)
	return nil
}

// flatten imports the tree of an image as one layer.
func (b *bench) flatten(t *treesOf) (*treesOf, error) {
	mnt, rootfs, err := t.rootfs()
	if err != nil {
		return nil, err
	}
	defer func() { b.note(t.store.umount(mnt)) }()
	flat := &treesOf{name: "localhost/flat@1"}
	if flat.store, err = b.newStore(); err != nil {
		return nil, err
	}
	_, err = b.script(`tar cf - -C "$1" . | "$2" --root "$3" --runroot "$4" import - localhost/flat:1`, rootfs, b.binary, flat.store.root, flat.store.runroot)
	return flat, err
}
