package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// load compares loading an archive, durable on return, with unpacking its layers
// and with podman. overTar and overPodman are the targets.
func (b *bench) load(name string, overTar, overPodman float64) error {
	t, err := b.opened(name)
	if err != nil {
		return err
	}
	var s *store
	sides := []side{{
		name: "layerfs",
		before: func() (err error) {
			s, err = b.newStore()
			return errors.Join(err, warmArchive(t))
		},
		run:   func() (sample, error) { return s.run("load", "-q", "-i", t.archive) },
		after: func() error { return s.remove() },
	}, b.untar(t), {
		name: "floor",
		run: func() (sample, error) {
			return b.script(`for f; do gzip -dc "$f" | sha256sum; done`, t.blobs...)
		},
	}}
	if _, err := exec.LookPath("podman"); err == nil && os.Geteuid() == 0 {
		sides = append(sides, b.podman(t))
	} else {
		b.skip("load "+name, "no comparison with podman: it is not installed, or this is not root")
	}
	got, err := b.alternate(b.loads(), sides...)
	if err != nil {
		return err
	}
	what := "load " + b.label(name)
	b.ratio(what+", wall", "tar -xzf + sync", got[0], got[1], wall, overTar)
	if len(got) > 3 {
		b.ratio(what+", wall", "podman load", got[0], got[3], wall, overPodman)
	}
	b.ratio(what+", CPU", "gzip -dc|sha256sum", got[0], got[2], cpu, 1.3)
	peak, spread := got[0].median(rss)
	b.bound(what+", peak memory", peak, 150e6, megabytes, spread)
	return nil
}

// warmArchive puts the archive and the layout into the page cache.
func warmArchive(t *treesOf) error {
	return errors.Join(warm(filepath.Dir(t.blobs[0])), warm(t.archive))
}

// untar unpacks the layers, each into a directory, and syncs.
func (b *bench) untar(t *treesOf) side {
	var dir string
	return side{
		name: "tar",
		before: func() (err error) {
			dir, err = b.dir("untar")
			return err
		},
		run: func() (sample, error) {
			return b.script(`cd "$1"; shift; i=0
				for f; do i=$((i+1)); mkdir $i; tar -xzf "$f" -C $i; done; sync -f .`, append([]string{dir}, t.blobs...)...)
		},
		after: func() error {
			_, err := b.command("rm", "-rf", dir)
			_, err2 := b.command("sync")
			return errors.Join(err, err2)
		},
	}
}

// podman loads into a root of its own.
func (b *bench) podman(t *treesOf) side { return b.podmanDo(t, "load", "-q", "-i", t.archive) }

// podmanDo runs podman with a root of its own.
func (b *bench) podmanDo(t *treesOf, do ...string) side {
	var dir, runroot string
	args := func(more ...string) []string {
		return append([]string{"--root", dir + "/root", "--runroot", runroot, "--storage-driver", "overlay"}, more...)
	}
	return side{
		name: "podman",
		before: func() (err error) {
			if dir, err = b.dir("podman"); err != nil {
				return err
			}
			// podman allows it 50 characters.
			runroot, err = os.MkdirTemp("/tmp", "lfb-")
			return errors.Join(err, warmArchive(t))
		},
		run: func() (sample, error) { return b.command("podman", args(do...)...) },
		after: func() error {
			detach(dir + "/root/overlay")
			_, err := b.command("rm", "-rf", dir, runroot)
			_, err2 := b.command("sync")
			return errors.Join(err, err2)
		},
	}
}

// mountToLs measures from the start of the command that mounts a store with 1,000
// images to the end of the first listing of one image's root.
func (b *bench) mountToLs() error {
	t, err := b.walkImage()
	if err != nil {
		return err
	}
	archive, err := b.thousand()
	if err != nil {
		return err
	}
	many, err := b.newStore()
	if err != nil {
		return err
	}
	for _, a := range []string{t.archive, archive} {
		if _, err := many.load(a); err != nil {
			return err
		}
	}
	if _, err := b.command("sync"); err != nil {
		return err
	}
	sides := []side{
		{name: "one image", run: func() (sample, error) { return t.store.firstListing(t.name) }},
		{name: "1,001 images", run: func() (sample, error) { return many.firstListing(t.name) }},
	}
	if _, err := b.alternate(1, sides...); err != nil {
		return err
	}
	got, err := b.alternate(4*b.n, sides...)
	if err != nil {
		return err
	}
	for i, what := range []string{"mount to first ls, 1 image", "mount to first ls, 1,001 images"} {
		m, spread := got[i].median(wall)
		b.bound(what, m, 0.030, seconds, spread)
	}
	return nil
}

// firstListing mounts, lists the root of an image, and unmounts. The time is from
// the start of the command to the end of the listing.
func (s *store) firstListing(name string) (sample, error) {
	dir, err := s.b.dir("mnt")
	if err != nil {
		return sample{}, err
	}
	defer detach(dir)
	start := time.Now()
	if _, err := s.run("mount", dir); err != nil {
		return sample{}, err
	}
	if _, err := os.ReadDir(filepath.Join(dir, "images", name, "rootfs")); err != nil {
		return sample{}, err
	}
	took := time.Since(start)
	return sample{wall: took}, s.umount(dir)
}

// thousand writes a docker-archive with 1,000 small images.
func (b *bench) thousand() (string, error) {
	var list []manyImage
	shared := tarOf(map[string]string{"etc/os-release": "NAME=bench\n", "bin/sh": "x"})
	for i := range 1000 {
		own := tarOf(map[string]string{"app/version": strconv.Itoa(i)})
		list = append(list, manyImage{"localhost/many/image-" + strconv.Itoa(i) + ":1", [][]byte{shared, own}})
	}
	return b.dockerArchive("many.tar", list)
}
