package main

import (
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
)

// bigSize is the size of the file that is read from begin to end.
const bigSize = 1 << 30

// sequential reads a file of 1 GiB: through layerfs and fuse-overlayfs, with the
// disk cold, with the mount cold and again; with passthrough against the file
// system below.
func (b *bench) sequential() error {
	dir, err := b.dir("big")
	if err != nil {
		return err
	}
	plain := filepath.Join(dir, "big.bin")
	if err := writeNoise(plain, bigSize); err != nil {
		return err
	}
	s, err := b.newStore()
	if err != nil {
		return err
	}
	if _, err := b.script(`tar cf - -C "$1" . | "$2" --root "$3" --runroot "$4" import - localhost/big:1`, dir, b.binary, s.root, s.runroot); err != nil {
		return err
	}
	empty, err := b.dir("none")
	if err != nil {
		return err
	}
	r := &reading{b: b, store: s, plain: plain, layers: []string{empty, dir}}
	for _, c := range []struct {
		what     string
		coldDisk bool
		coldFUSE bool
	}{{"read 1 GiB, disk cold", true, true}, {"read 1 GiB, mount cold", false, true}, {"read 1 GiB, again", false, false}} {
		n := b.n
		if !c.coldFUSE { // cheap, and short enough to be disturbed by anything
			n *= 3
		}
		got, err := b.alternate(n, r.layerfs(c.coldDisk, c.coldFUSE), r.fuseOverlay(c.coldDisk, c.coldFUSE), r.layerfs(c.coldDisk, c.coldFUSE, "-o", "passthrough"), r.direct(c.coldDisk))
		if err != nil {
			return err
		}
		b.rate(c.what, "fuse-overlayfs", got[0], got[1], bigSize, bigSize, 1)
		b.rate(c.what+", passthrough", fsName(b.work), got[2], got[3], bigSize, bigSize, 0.9)
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

// reading is what the sides of sequential have in common.
type reading struct {
	b      *bench
	store  *store
	plain  string   // the file itself
	layers []string // for fuse-overlayfs
}

// prepare puts the backing files into the page cache or out of it, and reads the
// mounted file when it shall not be cold.
func (r *reading) prepare(backing, mounted string, coldDisk, coldFUSE bool) error {
	state := warm
	if coldDisk {
		state = forget
	}
	if err := state(backing); err != nil || coldFUSE {
		return err
	}
	_, err := r.b.helper("helper-seqread", mounted)
	return err
}

func (r *reading) layerfs(coldDisk, coldFUSE bool, flags ...string) side {
	var mnt, file string
	return side{
		name: "layerfs",
		before: func() (err error) {
			if mnt, err = r.store.mount(flags...); err != nil {
				return err
			}
			file = filepath.Join(mnt, "images/localhost/big@1/rootfs/big.bin")
			return r.prepare(filepath.Join(r.store.root, "objects"), file, coldDisk, coldFUSE)
		},
		run:   func() (sample, error) { return r.b.helper("helper-seqread", file) },
		after: func() error { return r.store.umount(mnt) },
	}
}

func (r *reading) fuseOverlay(coldDisk, coldFUSE bool) side {
	var mnt string
	return side{
		name: "fuse-overlayfs",
		before: func() (err error) {
			if mnt, err = r.b.fuseOverlay(r.layers); err != nil {
				return err
			}
			return r.prepare(r.plain, filepath.Join(mnt, "big.bin"), coldDisk, coldFUSE)
		},
		run:   func() (sample, error) { return r.b.helper("helper-seqread", filepath.Join(mnt, "big.bin")) },
		after: func() error { return r.b.unmount(mnt) },
	}
}

func (r *reading) direct(coldDisk bool) side {
	return side{
		name:   "file system",
		before: func() error { return r.prepare(r.plain, r.plain, coldDisk, true) },
		run:    func() (sample, error) { return r.b.helper("helper-seqread", r.plain) },
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
