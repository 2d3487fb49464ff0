package main

import (
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
)

// bigSize is the size of the file that is read from begin to end.
const bigSize = 1 << 30

// A bigFile is a large file in all the forms that a comparison needs.
type bigFile struct {
	*treesOf        // an image with it, and the layers of that
	plain    string // the file itself
}

// bigFile makes it once in a run.
func (b *bench) bigFile() (*bigFile, error) {
	if b.big != nil {
		return b.big, nil
	}
	dir, err := b.dir("big")
	if err != nil {
		return nil, err
	}
	empty, err := b.dir("none")
	if err != nil {
		return nil, err
	}
	f := &bigFile{&treesOf{name: "localhost/big@1", layers: []string{empty, dir}}, filepath.Join(dir, "big.bin")}
	if err := writeNoise(f.plain, bigSize); err != nil {
		return nil, err
	}
	if f.store, err = b.newStore(); err != nil {
		return nil, err
	}
	if _, err := b.script(`tar cf - --owner 0 --group 0 -C "$1" . | "$2" --root "$3" --runroot "$4" import - localhost/big:1`, dir, b.binary, f.store.root, f.store.runroot); err != nil {
		return nil, err
	}
	b.big = f
	return f, nil
}

// sequential reads a file of 1 GiB: through layerfs and fuse-overlayfs, with the
// disk cold, with the mount cold and again; with passthrough against the file
// system below.
func (b *bench) sequential() error {
	return b.readBig("read 1 GiB", func(r *reading, s state) []side {
		return []side{r.layerfs(s), r.fuseOverlay(s), r.layerfs(s, "-o", "passthrough"), r.direct(s)}
	})
}

// sequentialUser is sequential of an ordinary user, who has no passthrough.
func (b *bench) sequentialUser() error {
	return b.asUser(func(b *bench) error {
		return b.readBig("ordinary user: read 1 GiB", func(r *reading, s state) []side {
			return []side{r.layerfs(s), r.fuseOverlay(s)}
		})
	})
}

// A state is what is in the page cache before a read.
type state struct {
	what     string
	coldDisk bool
	coldFUSE bool
}

// readBig compares the sides in all states: the first with the second and the third,
// where there is one, with the fourth.
func (b *bench) readBig(what string, sides func(*reading, state) []side) error {
	f, err := b.bigFile()
	if err != nil {
		return err
	}
	r := &reading{b, f}
	for _, s := range []state{{"disk cold", true, true}, {"mount cold", false, true}, {"again", false, false}} {
		n := b.n
		if !s.coldFUSE { // cheap, and short enough to be disturbed by anything
			n *= 3
		}
		got, err := b.alternate(n, sides(r, s)...)
		if err != nil {
			return err
		}
		b.rate(what+", "+s.what, "fuse-overlayfs", got[0], got[1], bigSize, bigSize, 1)
		if len(got) > 2 {
			b.rate(what+", "+s.what+", passthrough", fsName(b.work), got[2], got[3], bigSize, bigSize, 0.9)
		}
	}
	return nil
}

func writeNoise(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		return err
	}
	return f.Sync()
}

// reading is what the sides of readBig have in common.
type reading struct {
	b *bench
	f *bigFile
}

// prepare puts the backing files into the page cache or out of it, and reads the
// mounted file when it shall not be cold.
func (r *reading) prepare(backing, mounted string, s state) error {
	do := warm
	if s.coldDisk {
		do = forget
	}
	if err := do(backing); err != nil || s.coldFUSE {
		return err
	}
	_, err := r.b.helper("helper-seqread", mounted)
	return err
}

func (r *reading) layerfs(s state, flags ...string) side {
	var mnt, file string
	return side{
		name: "layerfs",
		before: func() (err error) {
			if mnt, err = r.f.store.mount(flags...); err != nil {
				return err
			}
			file = filepath.Join(mnt, "images", r.f.name, "rootfs/big.bin")
			return r.prepare(filepath.Join(r.f.store.root, "objects"), file, s)
		},
		run:   func() (sample, error) { return r.b.helper("helper-seqread", file) },
		after: func() error { return r.f.store.umount(mnt) },
	}
}

func (r *reading) fuseOverlay(s state) side {
	var mnt string
	return side{
		name: "fuse-overlayfs",
		before: func() (err error) {
			if mnt, err = r.b.fuseOverlay(r.f.layers); err != nil {
				return err
			}
			return r.prepare(r.f.plain, filepath.Join(mnt, "big.bin"), s)
		},
		run:   func() (sample, error) { return r.b.helper("helper-seqread", filepath.Join(mnt, "big.bin")) },
		after: func() error { return r.b.unmount(mnt) },
	}
}

func (r *reading) direct(s state) side {
	s.coldFUSE = true // there is no mount to read before
	return side{
		name:   "file system",
		before: func() error { return r.prepare(r.f.plain, r.f.plain, s) },
		run:    func() (sample, error) { return r.b.helper("helper-seqread", r.f.plain) },
	}
}

// tarOut compares getting the tar of a layer out with packing its files again.
func (b *bench) tarOut() error {
	t, err := b.treesOf("debpy")
	if err != nil {
		return err
	}
	// The largest layer.
	best, size := 0, int64(0)
	for i, name := range t.image.Tars {
		if st, err := os.Stat(name); err == nil && st.Size() > size {
			best, size = i, st.Size()
		}
	}
	id := t.image.DiffIDs[best]
	var mnt string
	got, err := b.alternate(b.n, side{
		name:   "diff",
		before: func() error { return warm(t.store.root) },
		run: func() (sample, error) {
			return b.script(`"$1" --root "$2" --runroot "$3" diff "sha256:$4" | wc -c`, b.binary, t.store.root, t.store.runroot, id)
		},
	}, side{
		name: "layer.tar",
		before: func() (err error) {
			if err = warm(t.store.root); err == nil {
				mnt, err = t.store.mount()
			}
			return err
		},
		run: func() (sample, error) {
			return b.script(`cat "$1" | wc -c`, filepath.Join(mnt, "layers/sha256", id, "layer.tar"))
		},
		after: func() error { return t.store.umount(mnt) },
	}, side{
		name:   "tar -c",
		before: func() error { return warm(t.layers[best]) },
		run:    func() (sample, error) { return b.script(`tar cf - -C "$1" . | wc -c`, t.layers[best]) },
	})
	if err != nil {
		return err
	}
	b.rate("diff of a layer", "tar -c", got[0], got[2], size, size, 1)
	b.rate("layer.tar of a layer", "tar -c", got[1], got[2], size, size, 1)
	return nil
}
