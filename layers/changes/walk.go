package changes

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A step is what walk finds.
type step struct {
	kind Kind
	path string // relative; empty for the root
	file *viewFile
	// touched: of a directory only the time differs, or only what is in it.
	touched bool
	// opaque: everything that was in this directory is gone, and all that is in it now
	// follows.
	opaque bool
	// hidden: it was deleted together with others by an opaque directory.
	hidden bool
}

// A pair is two views that are compared.
type pair struct {
	ctx  context.Context
	x, y *View
	own  bool // y is the stack below the writable layer of x
	emit func(*step) error

	pending []step // directories that are changes only when something in them is
}

// walk calls fn for each difference.
func walk(ctx context.Context, x, y *View, fn func(*step) error) error {
	p := &pair{ctx: ctx, x: x, y: y, own: x.Upper != "" && y.Upper == "" && x.Stack == y.Stack, emit: fn}
	dx, fx, err := p.x.root()
	if err != nil {
		return err
	}
	defer dx.close()
	dy, fy, err := p.y.root()
	if err != nil {
		return err
	}
	defer dy.close()
	if !fx.hasLow && fx.up == nil || !fy.hasLow && fy.up == nil {
		return p.rootless(dx, dy, fx, fy)
	}
	return p.both("", dx, fx, dy, fy, false)
}

// rootless compares when one of the trees has not even a root.
func (p *pair) rootless(dx, dy *viewDir, fx, fy *viewFile) error {
	if fx.hasLow || fx.up != nil {
		if err := p.report(&step{kind: Added, file: fx}); err != nil {
			return err
		}
	}
	return p.dir("", dx, dy, false)
}

// report emits the directories on the way and then the change.
func (p *pair) report(c *step) error {
	for i := range p.pending {
		if err := p.emit(&p.pending[i]); err != nil {
			return err
		}
	}
	p.pending = p.pending[:0]
	return p.emit(c)
}

// both compares two directories of the same path. gone says that one above has
// hidden all that y has.
func (p *pair) both(path string, dx *viewDir, fx *viewFile, dy *viewDir, fy *viewFile, gone bool) error {
	c := step{kind: Modified, path: path, file: fx, touched: true}
	how, err := p.compareMeta(fx, fy)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	c.touched = how != metaDiffers
	c.opaque = p.own && !gone && path != "" && !p.plain(dx, dy)
	if c.opaque || c.path != "" && how == metaTouched || how == metaDiffers {
		err = p.report(&c)
	} else {
		p.pending = append(p.pending, c)
	}
	if err == nil {
		err = p.dir(path, dx, dy, gone || c.opaque)
	}
	// Unless something was reported, c is still the last one pending.
	if n := len(p.pending); n > 0 && p.pending[n-1].path == path {
		p.pending = p.pending[:n-1]
	}
	return err
}

// plain says that a directory of a container is merged with what is at its path in
// the stack, so that its own files are the only ones that can differ.
func (p *pair) plain(dx, dy *viewDir) bool {
	return p.own && dx.hasLow == dy.hasLow && dx.low == dy.low
}

// dir compares what is in two directories.
func (p *pair) dir(path string, dx, dy *viewDir, gone bool) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if p.plain(dx, dy) {
		return p.plainDir(path, dx, dy)
	}
	xs, err := dx.list()
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	ys, err := dy.list()
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	for i := range ys {
		if _, ok := find(xs, ys[i].name); !ok {
			if err := p.report(&step{kind: Deleted, path: joinPath(path, ys[i].name), hidden: gone}); err != nil {
				return err
			}
		}
	}
	for i := range xs {
		fy, ok := find(ys, xs[i].name)
		if !ok {
			fy = nil
		}
		if err := p.file(path, dx, &xs[i], dy, fy, gone); err != nil {
			return err
		}
	}
	return nil
}

// find looks for a name in a sorted list.
func find(files []viewFile, name string) (*viewFile, bool) {
	i, ok := slices.BinarySearchFunc(files, name, func(f viewFile, name string) int { return strings.Compare(f.name, name) })
	if !ok {
		return nil, false
	}
	return &files[i], true
}

// plainDir reports what the writable layer has of a directory.
func (p *pair) plainDir(path string, dx, dy *viewDir) error {
	files, deleted, err := dx.changed()
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	for _, name := range deleted {
		// A whiteout of what is not there deletes nothing.
		if _, ok, err := dy.lookup(name); err != nil {
			return err
		} else if ok {
			if err := p.report(&step{kind: Deleted, path: joinPath(path, name)}); err != nil {
				return err
			}
		}
	}
	for i := range files {
		fy, ok, err := dy.lookup(files[i].name)
		if err != nil {
			return err
		}
		below := &fy
		if !ok {
			below = nil
		}
		if err := p.file(path, dx, &files[i], dy, below, false); err != nil {
			return err
		}
	}
	return nil
}

// file compares a file of x with that of the same name in y, which is nil when
// there is none.
func (p *pair) file(dir string, dx *viewDir, fx *viewFile, dy *viewDir, fy *viewFile, gone bool) error {
	path := joinPath(dir, fx.name)
	if fx.up != nil && fx.up.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return nil // no layer can hold one, and it means nothing without its process
	}
	if fy != nil && !fx.isDir() {
		same, err := p.same(fx, fy)
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		if same && !gone {
			return nil
		}
		return p.report(&step{kind: Modified, path: path, file: fx})
	}
	if !fx.isDir() {
		return p.report(&step{kind: Added, path: path, file: fx})
	}
	sub, err := dx.open(fx)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	defer sub.close()
	if fy != nil && fy.isDir() {
		below, err := dy.open(fy)
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		defer below.close()
		if same, err := p.sameDir(sub, below); err != nil || same {
			return err
		}
		return p.both(path, sub, fx, below, fy, gone)
	}
	kind := Added
	if fy != nil {
		kind = Modified // it was no directory
	}
	if err := p.report(&step{kind: kind, path: path, file: fx}); err != nil {
		return err
	}
	return p.dir(path, sub, &viewDir{v: dy.v}, gone)
}

func joinPath(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}
