package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
)

// An ImageChange is one difference between two images.
type ImageChange struct {
	Kind string `json:"kind"` // ActionAdded, ActionChanged or ActionDeleted
	Path string `json:"path"`
	// What says what has changed: kind, content, target, mode, owner, mtime, xattrs,
	// links, device.
	What []string `json:"what,omitempty"`
	From *File    `json:"from,omitempty"` // nil when added
	To   *File    `json:"to,omitempty"`   // nil when deleted
}

// DiffImages calls fn for everything that must be added, changed or deleted to get
// from image a to image b, in the order of paths, until fn returns an error, which
// it returns. A deleted directory stands for all that was in it. Contents are
// compared by their digests; nothing is read.
func (s *Store) DiffImages(ctx context.Context, a, b string, fn func(*ImageChange) error) (err error) {
	_, from, err := s.stackOf(ctx, a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	_, to, err := s.stackOf(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	d := &differ{ctx: ctx, a: from, b: to, fn: fn, links: newLinkPairs()}
	if len(from.layers) == 0 || len(to.layers) == 0 {
		return d.withEmpty()
	}
	return treeError(d.both("", from.Root(), to.Root()))
}

// A differ compares two stacks.
type differ struct {
	ctx   context.Context
	a, b  *Stack
	fn    func(*ImageChange) error
	links linkPairs
	count int
}

// withEmpty compares when one of the stacks has no layers.
func (d *differ) withEmpty() error {
	if len(d.b.layers) > 0 {
		return treeError(d.below("", d.b, d.b.Root(), d.added))
	}
	if len(d.a.layers) > 0 {
		return treeError(d.each(d.a, d.a.Root(), func(name string, n union.Node) error { return d.deleted(name, n) }))
	}
	return nil
}

// both compares a directory that both images have.
func (d *differ) both(path string, a, b union.Node) error {
	if err := d.compare(path, a, b); err != nil {
		return err
	}
	if same, err := d.a.Same(d.a.DirID(a), d.b.Stack, d.b.DirID(b)); err != nil || same {
		return err
	}
	x, err := openSide(d.a, a)
	if err != nil {
		return err
	}
	y, err := openSide(d.b, b)
	if err != nil {
		return err
	}
	for x.ok || y.ok {
		if d.count++; d.count%1024 == 0 && d.ctx.Err() != nil {
			return d.ctx.Err()
		}
		if err := d.step(path, x, y); err != nil {
			return err
		}
	}
	return nil
}

// step takes the next name of one side or of both.
func (d *differ) step(path string, x, y *side) (err error) {
	order := bytes.Compare(x.name, y.name)
	if !x.ok || !y.ok {
		order = 1
		if x.ok {
			order = -1
		}
	}
	switch {
	case order < 0:
		err = d.deleted(joinPath(path, string(x.name)), x.node)
	case order > 0:
		err = d.below(joinPath(path, string(y.name)), d.b, y.node, d.added)
	case x.node.Kind == tree.KindDirectory && y.node.Kind == tree.KindDirectory:
		err = d.both(joinPath(path, string(x.name)), x.node, y.node)
	default:
		err = d.file(joinPath(path, string(x.name)), x.node, y.node)
	}
	if err == nil && order <= 0 {
		err = x.advance()
	}
	if err == nil && order >= 0 {
		err = y.advance()
	}
	return err
}

// file compares a path that both have and that is not a directory in both. What
// was a directory is gone with all that was in it; what becomes one is new below.
func (d *differ) file(path string, a, b union.Node) error {
	if err := d.compare(path, a, b); err != nil {
		return err
	}
	if b.Kind != tree.KindDirectory {
		return nil
	}
	return d.each(d.b, b, func(name string, n union.Node) error {
		return d.below(joinPath(path, name), d.b, n, d.added)
	})
}

// below calls fn for a file and, if it is a directory, for all in it.
func (d *differ) below(path string, s *Stack, n union.Node, fn func(string, union.Node) error) error {
	if path != "" {
		if err := fn(path, n); err != nil {
			return err
		}
	}
	if n.Kind != tree.KindDirectory {
		return nil
	}
	return d.each(s, n, func(name string, n union.Node) error {
		return d.below(joinPath(path, name), s, n, fn)
	})
}

// each calls fn for every name of a directory.
func (d *differ) each(s *Stack, dir union.Node, fn func(name string, n union.Node) error) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	x, err := openSide(s, dir)
	for err == nil && x.ok {
		if err = fn(string(x.name), x.node); err == nil {
			err = x.advance()
		}
	}
	return err
}

func (d *differ) added(path string, n union.Node) error {
	f, err := d.describe(d.b, n)
	if err != nil {
		return err
	}
	return d.fn(&ImageChange{Kind: ActionAdded, Path: "/" + path, To: f})
}

func (d *differ) deleted(path string, n union.Node) error {
	f, err := d.describe(d.a, n)
	if err != nil {
		return err
	}
	return d.fn(&ImageChange{Kind: ActionDeleted, Path: "/" + path, From: f})
}

func (d *differ) describe(s *Stack, n union.Node) (*File, error) {
	a, err := s.Attr(n)
	if err != nil {
		return nil, err
	}
	f, err := describeFile(s.Layer(n).Tree(), n.Ino, a)
	return &f, err
}

// compare reports what differs between two files at a path.
func (d *differ) compare(path string, a, b union.Node) error {
	if d.identical(a, b) {
		return nil
	}
	what, err := d.differences(a, b)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	if len(what) == 0 {
		return nil
	}
	from, err := d.describe(d.a, a)
	if err != nil {
		return err
	}
	to, err := d.describe(d.b, b)
	if err != nil {
		return err
	}
	return d.fn(&ImageChange{Kind: ActionChanged, Path: "/" + path, What: what, From: from, To: to})
}

// identical reports whether both are the same inode of the same layer. A directory
// may still have its attributes from elsewhere.
func (d *differ) identical(a, b union.Node) bool {
	if a.Ino != b.Ino || a.Kind == tree.KindDirectory || d.a.Layer(a).Tree() != d.b.Layer(b).Tree() {
		return false
	}
	return d.a.Groups() == 0 && d.b.Groups() == 0
}

// differences lists in what two files differ.
func (d *differ) differences(a, b union.Node) ([]string, error) {
	x, err := d.a.Attr(a)
	if err != nil {
		return nil, err
	}
	y, err := d.b.Attr(b)
	if err != nil {
		return nil, err
	}
	if x.Kind != y.Kind {
		return []string{"kind"}, nil
	}
	var what []string
	note := func(differs bool, word string) {
		if differs {
			what = append(what, word)
		}
	}
	content, err := d.content(a, b, x, y)
	if err != nil {
		return nil, err
	}
	note(content, map[bool]string{true: "target", false: "content"}[x.Kind == tree.KindSymlink])
	note(x.Major != y.Major || x.Minor != y.Minor, "device")
	note(x.Mode != y.Mode, "mode")
	note(x.UID != y.UID || x.GID != y.GID, "owner")
	note(x.MtimeSec != y.MtimeSec || x.MtimeNsec != y.MtimeNsec, "mtime")
	same, err := d.sameXattrs(a, b)
	note(!same, "xattrs")
	if err == nil && x.Kind != tree.KindDirectory {
		note(x.Nlink != y.Nlink || !d.links.pair(a, b, x.Nlink), "links")
	}
	return what, err
}

// content reports whether the contents of two files of one kind differ.
func (d *differ) content(a, b union.Node, x, y tree.Attr) (bool, error) {
	s, t := d.a.Layer(a).Tree(), d.b.Layer(b).Tree()
	switch x.Kind {
	case tree.KindSymlink:
		p, err := s.Symlink(a.Ino)
		if err != nil {
			return false, err
		}
		q, err := t.Symlink(b.Ino)
		return !bytes.Equal(p, q), err
	case tree.KindRegular:
		if x.Size != y.Size || x.Sparse != y.Sparse {
			return true, nil
		}
		p, _, err := s.Body(a.Ino)
		if err != nil {
			return false, err
		}
		q, _, err := t.Body(b.Ino)
		if err != nil || p.Sum != q.Sum || !x.Sparse {
			return p.Sum != q.Sum, err
		}
		m, err := s.Sparse(a.Ino)
		if err != nil {
			return false, err
		}
		n, err := t.Sparse(b.Ino)
		return !slices.Equal(m, n), err
	}
	return false, nil
}

// sameXattrs compares the extended attributes of two files.
func (d *differ) sameXattrs(a, b union.Node) (bool, error) {
	type pair struct{ name, value string }
	list := func(s *Stack, n union.Node) (out []pair, err error) {
		err = s.EachXattr(n, func(name, value []byte) bool {
			out = append(out, pair{string(name), string(value)})
			return true
		})
		return out, err
	}
	p, err := list(d.a, a)
	if err != nil {
		return false, err
	}
	q, err := list(d.b, b)
	return slices.Equal(p, q), err
}

// A side is one of two directories that are compared, at one of its names.
type side struct {
	list *union.Listing
	next int
	ok   bool
	name []byte
	node union.Node
}

func openSide(s *Stack, dir union.Node) (*side, error) {
	list, err := s.Open(s.DirID(dir))
	if err != nil {
		return nil, err
	}
	x := &side{list: list}
	return x, x.advance()
}

func (x *side) advance() (err error) {
	if x.ok = x.next < x.list.Len(); !x.ok {
		x.name = nil
		return nil
	}
	x.name, x.node, err = x.list.At(x.next)
	x.next++
	return err
}

// linkPairs remembers which file of one image stands for which of the other, among
// those with several links: when three names are two files, and are two others in
// the other image, only the pairs tell.
type linkPairs struct{ forth, back map[union.Node]union.Node }

// maxLinkPairs bounds what is remembered; beyond, only the numbers of links count.
const maxLinkPairs = 1 << 16

func newLinkPairs() linkPairs {
	return linkPairs{map[union.Node]union.Node{}, map[union.Node]union.Node{}}
}

// pair notes that a and b have the same path. It returns false when one of them
// was paired with another before.
func (p *linkPairs) pair(a, b union.Node, nlink uint32) bool {
	if nlink < 2 {
		return true
	}
	x, okA := p.forth[a]
	y, okB := p.back[b]
	if okA || okB {
		return okA && okB && x == b && y == a
	}
	if len(p.forth) < maxLinkPairs {
		p.forth[a], p.back[b] = b, a
	}
	return true
}
