package changes

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
)

// How the attributes of two directories compare.
type metaDiff int

const (
	metaSame    metaDiff = iota
	metaTouched          // only the time differs
	metaDiffers
)

// compareMeta compares the attributes of two directories.
func (p *pair) compareMeta(fx, fy *viewFile) (metaDiff, error) {
	mx, err := p.x.meta(fx)
	if err != nil {
		return metaSame, err
	}
	my, err := p.y.meta(fy)
	if err != nil {
		return metaSame, err
	}
	if mx.Mode != my.Mode || mx.UID != my.UID || mx.GID != my.GID {
		return metaDiffers, nil
	}
	same, err := p.sameXattrs(fx, fy)
	if err != nil || !same {
		return metaDiffers, err
	}
	if mx.MtimeSec != my.MtimeSec || mx.MtimeNsec != my.MtimeNsec {
		return metaTouched, nil
	}
	return metaSame, nil
}

func (p *pair) sameXattrs(fx, fy *viewFile) (bool, error) {
	xx, err := p.x.xattrs(fx)
	if err != nil {
		return false, err
	}
	xy, err := p.y.xattrs(fy)
	if err != nil {
		return false, err
	}
	return slices.EqualFunc(xx, xy, func(a, b tree.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }), nil
}

// sameDir says without looking into them that two directories hold the same: they
// are made up of the same directories of the same layers.
func (p *pair) sameDir(dx, dy *viewDir) (bool, error) {
	if dx.up != nil || dy.up != nil || !dx.hasLow || !dy.hasLow {
		return false, nil
	}
	if p.x.Stack == p.y.Stack {
		return dx.low == dy.low, nil
	}
	return p.x.Stack.Same(p.x.Stack.DirID(dx.low), p.y.Stack, p.y.Stack.DirID(dy.low))
}

// same says that two files, of which the first is no directory, are equal. Every
// file of a container's writable layer counts as a change to what is below it.
func (p *pair) same(fx, fy *viewFile) (bool, error) {
	if p.own && fx.up != nil || fy.isDir() {
		return false, nil
	}
	if fx.up == nil && fy.up == nil && fx.low.Ino == fy.low.Ino &&
		p.x.tree(fx.low) == p.y.tree(fy.low) {
		return true, nil
	}
	mx, err := p.x.meta(fx)
	if err != nil {
		return false, err
	}
	my, err := p.y.meta(fy)
	if err != nil {
		return false, err
	}
	mx.Nlink, my.Nlink = 0, 0
	if mx != my {
		return false, nil
	}
	if same, err := p.sameXattrs(fx, fy); err != nil || !same {
		return false, err
	}
	switch mx.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		tx, err1 := p.x.target(fx)
		ty, err2 := p.y.target(fy)
		return bytes.Equal(tx, ty), errors.Join(err1, err2)
	case unix.S_IFREG:
		return p.sameContent(fx, fy, mx.Size)
	}
	return true, nil
}

// sameContent compares by digest where the digests are of the same form, else by
// reading.
func (p *pair) sameContent(fx, fy *viewFile, size int64) (bool, error) {
	bx, okx, err := p.x.body(fx)
	if err != nil {
		return false, err
	}
	by, oky, err := p.y.body(fy)
	if err != nil {
		return false, err
	}
	if okx && oky {
		return bx.Sum == by.Sum, nil
	}
	cx, err := p.x.open(fx)
	if err != nil {
		return false, err
	}
	defer cx.Close()
	cy, err := p.y.open(fy)
	if err != nil {
		return false, err
	}
	defer cy.Close()
	return sameBytes(cx, cy, size)
}

// body returns the body of a file of the stack that has no holes.
func (v *View) body(f *viewFile) (tree.Body, bool, error) {
	if f.up != nil && !f.up.Metacopy {
		return tree.Body{}, false, nil
	}
	t := v.tree(f.low)
	a, err := t.Attr(f.low.Ino)
	if err != nil || a.Sparse {
		return tree.Body{}, false, err
	}
	return t.Body(f.low.Ino)
}

func sameBytes(x, y io.ReaderAt, size int64) (bool, error) {
	bx, by := make([]byte, 128<<10), make([]byte, 128<<10)
	for off := int64(0); off < size; {
		n := int(min(size-off, int64(len(bx))))
		nx, err := x.ReadAt(bx[:n], off)
		if err != nil && err != io.EOF {
			return false, err
		}
		ny, err := y.ReadAt(by[:n], off)
		if err != nil && err != io.EOF {
			return false, err
		}
		if nx != ny || !bytes.Equal(bx[:nx], by[:ny]) {
			return false, nil
		}
		if nx == 0 {
			break
		}
		off += int64(nx)
	}
	return true, nil
}
