package union

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/layerfs/layerfs/index/tree"
)

// Parent returns the directory that a directory lies in; the root is its own.
func (s *Stack) Parent(dir DirID) (DirID, error) {
	c, err := s.contrib(dir)
	if err != nil {
		return 0, err
	}
	if c.ino == 0 {
		return dir, nil
	}
	parent, _, err := s.layers[c.layer].Parent(c.ino)
	if err != nil {
		return 0, s.in(c, err)
	}
	up := contrib{c.layer, parent}
	if len(s.root.rest) == 0 || parent != 0 && s.inRecent(up) {
		return s.idOf(up), nil
	}
	if p, ok := s.cache.parent(s.key(dir)); ok {
		return p, nil
	}
	if single, err := s.findBorder(up); err != nil || single {
		return s.idOf(up), err
	}
	return s.parentOf(c, parent)
}

// parentOf returns the parent of directory c, whose parent in its own layer is
// ino, by coming down from the root.
func (s *Stack) parentOf(c contrib, ino tree.Ino) (DirID, error) {
	t := s.layers[c.layer]
	var names [][]byte
	for at := ino; at != 0; {
		parent, name, err := t.Parent(at)
		if err != nil {
			return 0, s.in(c, err)
		}
		names = append(names, name)
		at = parent
	}
	ch := s.root
	for i := len(names) - 1; i >= 0; i-- {
		h, ok, err := s.top(&ch, names[i])
		if err == nil && (!ok || h.kind != tree.KindDirectory) {
			err = fmt.Errorf("directory %d: %w", s.idOf(c), ErrStale)
		}
		if err == nil {
			ch, err = s.child(&ch, s.idOf(ch.first), &h, names[i])
		}
		if err != nil {
			return 0, err
		}
		if len(ch.rest) == 0 {
			// Everything below lies in one layer, as the table has it.
			if ch.first.layer != c.layer {
				return 0, fmt.Errorf("directory %d: %w", s.idOf(c), ErrStale)
			}
			return s.idOf(contrib{c.layer, ino}), s.setRecent(ch.first)
		}
	}
	return s.idOf(ch.first), nil
}

// Resolve finds a path. It follows no symbolic links: one on the way ends the
// search without a result, as a file does.
func (s *Stack) Resolve(path string) (Node, bool, error) {
	if len(s.layers) == 0 {
		return Node{}, false, nil
	}
	n := s.Root()
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." {
			continue
		}
		if n.Kind != tree.KindDirectory {
			return Node{}, false, nil
		}
		next, ok, err := s.Lookup(s.DirID(n), []byte(part))
		if err != nil || !ok {
			return Node{}, false, err
		}
		n = next
	}
	return n, true, s.err
}

// maxHops is the number of symbolic links followed on the way to a path, as in
// Linux.
const maxHops = 40

// Follow finds a path as a process whose root is the stack's would: symbolic links
// on the way are followed, the last name is not. It finds what the target of a
// hard link means.
func (s *Stack) Follow(path string) (Node, bool, error) {
	if len(s.layers) == 0 {
		return Node{}, false, nil
	}
	dirs := []Node{s.Root()} // the directories on the way, for ".."
	for hops := 0; ; {
		part, rest, more := strings.Cut(path, "/")
		at := dirs[len(dirs)-1]
		switch {
		case part == "" || part == ".":
		case part == "..":
			dirs = dirs[:max(1, len(dirs)-1)]
		default:
			n, ok, err := s.Lookup(s.DirID(at), []byte(part))
			if err != nil || !ok {
				return Node{}, false, err
			}
			last := strings.Trim(rest, "/") == ""
			switch {
			case n.Kind == tree.KindDirectory:
				dirs = append(dirs, n)
			case last:
				return n, true, nil
			case n.Kind == tree.KindSymlink && hops < maxHops:
				hops++
				target, err := s.layers[n.Layer].Symlink(n.Ino)
				if err != nil {
					return Node{}, false, err
				}
				if strings.HasPrefix(string(target), "/") {
					dirs = dirs[:1]
				}
				rest = string(target) + "/" + rest
			default:
				return Node{}, false, nil
			}
		}
		if path = rest; !more && path == "" {
			return dirs[len(dirs)-1], true, nil
		}
	}
}

// Walk calls fn for every file below the root, directories before what is in them
// and in the order of names. path is valid during the call only. When fn returns
// [fs.SkipDir] for a directory, what is below that is left out.
func (s *Stack) Walk(fn func(path []byte, n Node) error) error {
	type level struct {
		list *Listing
		next int
		path int // length of the directory's path
	}
	if s.err != nil {
		return s.err
	}
	root, err := s.Open(s.DirID(s.Root()))
	if err != nil {
		return err
	}
	var path []byte
	for stack := []level{{list: root}}; len(stack) > 0; {
		top := &stack[len(stack)-1]
		if top.next == top.list.Len() {
			stack = stack[:len(stack)-1]
			continue
		}
		name, n, err := top.list.At(top.next)
		if err != nil {
			return fmt.Errorf("directory %q: %w", path[:top.path], err)
		}
		top.next++
		path = path[:top.path]
		if len(path) > 0 {
			path = append(path, '/')
		}
		path = append(path, name...)
		if err = fn(path, n); err == fs.SkipDir {
			continue
		}
		if err != nil {
			return err
		}
		if n.Kind != tree.KindDirectory {
			continue
		}
		list, err := s.Open(s.DirID(n))
		if err != nil {
			return fmt.Errorf("directory %q: %w", path, err)
		}
		stack = append(stack, level{list: list, path: len(path)})
	}
	return nil
}
