package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
)

// WhichOptions change how a path is looked for; nil means the defaults.
type WhichOptions struct {
	// NoFollow takes the last name for itself when it is a symbolic link. Links on
	// the way to it are followed all the same.
	NoFollow bool
}

// An Origin says where a path of an image comes from.
type Origin struct {
	Image digest.Digest `json:"image"`
	// Path is the path that was asked for after symbolic links were followed as in a
	// container of the image; Links are those links.
	Path  string   `json:"path"`
	Links []string `json:"links"`
	// Exists is whether the image shows the path; if not, the first of Touches is
	// the layer that removed it.
	Exists bool `json:"exists"`
	// Touches are the layers that did something to the path, the topmost first.
	Touches []Touch `json:"touches"`
}

// What a layer does to a path.
const (
	ActionAdded   = "added"
	ActionChanged = "changed"
	ActionDeleted = "deleted"
)

// A Touch is what one layer did to a path.
type Touch struct {
	Index  int    `json:"index"` // place in the stack, from 1 at the bottom
	Step          // the layer and its history
	Action string `json:"action"`
	// Note says how, where that is not by an entry for the path itself.
	Note string `json:"note,omitempty"`
	File *File  `json:"file,omitempty"` // nil when deleted
}

// Which says which layers of an image made, changed or removed a path, without
// reading any content. The path may be written with or without its first slash. It
// returns an error that wraps fs.ErrNotExist when no layer ever had the path.
func (s *Store) Which(ctx context.Context, image, path string, o *WhichOptions) (_ *Origin, err error) {
	if o == nil {
		o = &WhichOptions{}
	}
	img, stack, err := s.stackOf(ctx, image)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stack.Close()) }()
	steps, err := s.layerSteps(img)
	if err != nil {
		return nil, err
	}
	out := &Origin{Image: img.ID, Links: []string{}}
	if len(stack.layers) > 0 {
		if err := out.resolve(stack, path, !o.NoFollow); err != nil {
			return nil, fmt.Errorf("image %s: %q: %w", image, path, err)
		}
		if err := out.trace(stack, steps); err != nil {
			return nil, fmt.Errorf("image %s: %w", image, err)
		}
	}
	if len(out.Touches) == 0 {
		return nil, fmt.Errorf("image %s: no layer has or had %q: %w", image, path, fs.ErrNotExist)
	}
	return out, nil
}

// maxLinks is the number of symbolic links followed on the way to a path, as in
// Linux.
const maxLinks = 40

// resolve follows the path through the merged tree. Where it ends early the rest is
// taken as it is written.
func (out *Origin) resolve(stack *Stack, path string, follow bool) error {
	type dir struct {
		name string
		id   union.DirID // of the directory that name leads to
	}
	dirs := []dir{{id: stack.DirID(stack.Root())}}
	join := func(more ...string) string {
		var parts []string
		for _, d := range dirs[1:] {
			parts = append(parts, d.name)
		}
		return "/" + strings.Join(append(parts, more...), "/")
	}
	for todo := split(path); len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if name == ".." {
			dirs = dirs[:max(1, len(dirs)-1)]
			continue
		}
		n, ok, err := stack.Lookup(dirs[len(dirs)-1].id, []byte(name))
		if err != nil {
			return treeError(err)
		}
		switch {
		case ok && n.Kind == tree.KindDirectory:
			dirs = append(dirs, dir{name, stack.DirID(n)})
		case ok && n.Kind == tree.KindSymlink && (follow || len(todo) > 0):
			target, err := stack.Layer(n).Tree().Symlink(n.Ino)
			if err != nil {
				return treeError(err)
			}
			if len(out.Links) == maxLinks {
				return fmt.Errorf("%w: too many symbolic links", fs.ErrNotExist)
			}
			out.Links = append(out.Links, join(name)+" -> "+string(target))
			if strings.HasPrefix(string(target), "/") {
				dirs = dirs[:1]
			}
			todo = append(split(string(target)), todo...)
		default:
			// ".." in a part that is not there cannot be followed.
			out.Path, out.Exists = join(append([]string{name}, split(strings.Join(todo, "/"))...)...), ok && len(todo) == 0
			return nil
		}
	}
	out.Path, out.Exists = join(), true
	return nil
}

// split returns the names of a path.
func split(path string) []string {
	parts := strings.Split(path, "/")
	return slices.DeleteFunc(parts, func(p string) bool { return p == "" || p == "." })
}

// trace asks every layer what it does to the path.
func (out *Origin) trace(stack *Stack, steps []Step) error {
	exists := false
	for i, l := range stack.layers {
		p, err := probe(l.tree, split(out.Path))
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.DiffID, treeError(err))
		}
		touch := Touch{Index: i + 1, Step: steps[i]}
		switch {
		case p.found && p.implied && exists:
			continue
		case p.found:
			touch.Action = ActionAdded
			if exists {
				touch.Action = ActionChanged
			}
			if touch.File, err = p.file(stack, i, out.Path); err != nil {
				return err
			}
		case p.hidden && exists:
			touch.Action = ActionDeleted
		default:
			continue
		}
		touch.Note, exists = p.note, p.found
		out.Touches = append(out.Touches, touch)
	}
	slices.Reverse(out.Touches)
	return nil
}

// A probed is what the tree of one layer says about a path.
type probed struct {
	found   bool
	implied bool // a directory that the layer only has for what is in it
	passes  bool // like implied, but it may hide what the directory holds below
	hidden  bool // what the layers below have at the path is not seen any more
	note    string
	dirent  tree.Dirent
}

// probe looks for a path in the tree of one layer.
func probe(t *tree.Tree, path []string) (p probed, err error) {
	var dir tree.Ino
	for i := 0; ; i++ {
		a, err := t.Attr(dir)
		if err != nil {
			return p, err
		}
		above := p.hidden
		if a.Opaque && !above {
			p.hidden, p.note = true, "opaque directory /"+strings.Join(path[:i], "/")
		}
		if i == len(path) { // a directory
			p.found, p.implied, p.passes = true, a.Implied && !a.Opaque, a.Implied && !above
			if a.Implied {
				p.note = "a directory without an entry of its own"
			}
			p.dirent = tree.Dirent{Kind: tree.KindDirectory, Ino: dir}
			return p, nil
		}
		d, ok, err := t.Lookup(dir, []byte(path[i]))
		if err != nil || !ok {
			return p, err
		}
		switch {
		case d.Kind == tree.KindDirectory:
			dir = d.Ino
		case d.Kind == tree.KindWhiteout:
			return probed{hidden: true, note: "whiteout of /" + strings.Join(path[:i+1], "/")}, nil
		case i < len(path)-1:
			return probed{hidden: true, note: "a " + d.Kind.String() + " at /" + strings.Join(path[:i+1], "/")}, nil
		default:
			p.found, p.dirent, p.note = true, d, ""
			return p, nil
		}
	}
}

// file describes what was found in layer i of the stack.
func (p *probed) file(stack *Stack, i int, path string) (*File, error) {
	t, ino := stack.layers[i].tree, p.dirent.Ino
	if p.dirent.Kind == tree.KindLink {
		target, err := t.LowerLink(uint32(ino))
		if err != nil {
			return nil, treeError(err)
		}
		p.note = "hard link to /" + string(target) + " of a lower layer"
		copied, ok, err := t.LowerCopy(uint32(ino))
		if err != nil || !ok {
			return nil, treeError(err)
		}
		ino = copied
	}
	a, err := t.Attr(ino)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, treeError(err))
	}
	f, err := describeFile(t, ino, a)
	return &f, err
}
