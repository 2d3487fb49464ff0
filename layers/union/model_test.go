package union

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/layerfs/layerfs/index/tree"
)

// model is a merged tree made the other way round than Stack does it: layers are
// applied from the bottom up to a map of paths, as image-spec layer.md tells an
// extracting tool to do.
type model struct {
	layers []*tree.Tree
	files  map[string]*mfile // by path; "" is the root
	extra  map[Node]uint32   // names that links to lower layers add
}

// mfile is a name of the merged tree.
type mfile struct {
	node   Node
	parts  int // contributors of a directory
	giver  Node
	target string // of a symlink
}

// newModel applies layers.
func newModel(layers []*tree.Tree) *model {
	m := &model{layers: layers, files: map[string]*mfile{}, extra: map[Node]uint32{}}
	for i := range layers {
		m.apply(i)
	}
	return m
}

// found is a name of a layer alone.
type found struct {
	path string
	tree.Dirent
}

// enumerate lists the names of a layer alone, directories before their names.
func enumerate(t *tree.Tree, dir tree.Ino, at string) (list []found) {
	first, count, err := t.Dir(dir)
	if err != nil {
		panic(err)
	}
	for i := first; i < first+count; i++ {
		d, err := t.Dirent(i)
		if err != nil {
			panic(err)
		}
		p := path.Join(at, string(d.Name))
		list = append(list, found{p, d})
		if d.Kind == tree.KindDirectory {
			list = append(list, enumerate(t, d.Ino, p)...)
		}
	}
	return list
}

// attr returns the attributes of an inode.
func (m *model) attr(n Node) tree.Attr {
	a, err := m.layers[n.Layer].Attr(n.Ino)
	if err != nil {
		panic(err)
	}
	return a
}

// remove deletes a path and everything below it.
func (m *model) remove(p string) {
	for q := range m.files {
		if q == p || strings.HasPrefix(q, p+"/") || p == "" {
			delete(m.files, q)
		}
	}
}

// apply applies one layer.
func (m *model) apply(layer int) {
	t := m.layers[layer]
	names := enumerate(t, 0, "")
	// Links mean what is below, before anything of this layer is applied.
	links := map[uint32]*Node{}
	for _, f := range names {
		if f.Kind == tree.KindLink {
			target, err := t.LowerLink(uint32(f.Ino))
			if err != nil {
				panic(err)
			}
			if n, ok := m.follow("", string(target), 0); ok && n.Kind != tree.KindDirectory {
				links[uint32(f.Ino)] = &n
			}
		}
	}
	m.directory("", Node{Layer: layer, Kind: tree.KindDirectory})
	for _, f := range names {
		n := Node{Layer: layer, Ino: f.Ino, Kind: f.Kind}
		switch f.Kind {
		case tree.KindDirectory:
			m.directory(f.path, n)
			continue
		case tree.KindLink:
			m.remove(f.path)
			if to := links[uint32(f.Ino)]; to != nil {
				m.extra[*to]++
				m.files[f.path] = m.file(*to)
			}
			continue
		}
		m.remove(f.path)
		if f.Kind != tree.KindWhiteout {
			m.files[f.path] = m.file(n)
		}
	}
}

// file returns the entry of a file.
func (m *model) file(n Node) *mfile {
	f := &mfile{node: n, giver: n}
	if n.Kind == tree.KindSymlink {
		p, err := m.layers[n.Layer].Symlink(n.Ino)
		if err != nil {
			panic(err)
		}
		f.target = string(p)
	}
	return f
}

// directory applies a directory.
func (m *model) directory(p string, n Node) {
	a, old := m.attr(n), m.files[p]
	if old != nil && old.node.Kind == tree.KindDirectory && !a.Opaque {
		old.node = n
		old.parts++
		if !a.Implied {
			old.giver = n
		} else if m.attr(old.giver).Implied {
			old.giver = n
		}
		return
	}
	giver := n
	if a.Implied && old != nil && old.node.Kind == tree.KindDirectory && !m.attr(old.giver).Implied {
		giver = old.giver // opaque hides what the directory holds, not the directory
	}
	m.remove(p)
	m.files[p] = &mfile{node: n, giver: giver, parts: 1}
}

// follow resolves a path from directory dir, following symlinks on the way.
func (m *model) follow(dir, p string, hops int) (Node, bool) {
	if hops > 40 {
		return Node{}, false
	}
	parts := strings.Split(p, "/")
	for i, part := range parts {
		switch part {
		case "", ".":
			continue
		case "..":
			if dir = path.Dir(dir); dir == "." {
				dir = ""
			}
			continue
		}
		next := path.Join(dir, part)
		rest := strings.Join(parts[i+1:], "/")
		f := m.files[next]
		switch {
		case f == nil:
			return Node{}, false
		case f.node.Kind == tree.KindDirectory:
			dir = next
		case strings.Trim(rest, "/") == "":
			return f.node, true
		case f.node.Kind == tree.KindSymlink:
			if strings.HasPrefix(f.target, "/") {
				dir = ""
			}
			return m.follow(dir, f.target+"/"+rest, hops+1)
		default:
			return Node{}, false
		}
	}
	return m.files[dir].node, true
}

// names returns the names in a directory, sorted.
func (m *model) names(dir string) (list []string) {
	for p := range m.files {
		if p != "" && strings.TrimPrefix(path.Dir("/"+p), "/") == dir {
			list = append(list, path.Base(p))
		}
	}
	slices.Sort(list)
	return list
}

// wantAttr returns the attributes that a path must have.
func (m *model) wantAttr(p string) tree.Attr {
	f := m.files[p]
	a := m.attr(f.giver)
	switch {
	case f.node.Kind != tree.KindDirectory:
		a.Nlink += m.extra[f.node]
	case p == "" || f.parts > 1:
		a.Nlink = 1
	default:
		a.Nlink = m.attr(f.node).Nlink
	}
	return a
}

// compare checks a stack against the model. fresh makes the same stack with an
// empty cache.
func (m *model) compare(s *Stack, fresh func() *Stack) error {
	for _, p := range slices.Sorted(maps.Keys(m.files)) {
		f := m.files[p]
		n, ok, err := s.Resolve(p)
		if err != nil || !ok || n != f.node {
			return fmt.Errorf("%q: got %+v, %v, %w, want %+v", p, n, ok, err, f.node)
		}
		for _, s := range []*Stack{s, fresh()} {
			a, err := s.Attr(n)
			if want := m.wantAttr(p); err != nil || a != want {
				return fmt.Errorf("%q: got %+v, %w, want %+v", p, a, err, want)
			}
			if got, err := s.Meta(n); err != nil || got != f.giver {
				return fmt.Errorf("%q: attributes of %+v, %w, want those of %+v", p, got, err, f.giver)
			}
		}
		if f.node.Kind != tree.KindDirectory {
			continue
		}
		for _, s := range []*Stack{s, fresh()} {
			if err := m.compareDir(s, p, fresh); err != nil {
				return fmt.Errorf("directory %q: %w", p, err)
			}
		}
	}
	return m.compareWalk(s)
}

// compareDir checks one directory.
func (m *model) compareDir(s *Stack, p string, fresh func() *Stack) error {
	id := s.DirID(m.files[p].node)
	if n, ok := s.DirNode(id); !ok || n != m.files[p].node {
		return fmt.Errorf("number %d: %+v", id, n)
	}
	up := strings.TrimPrefix(path.Dir("/"+p), "/")
	for _, s := range []*Stack{s, fresh()} {
		if got, err := s.Parent(id); err != nil || got != s.DirID(m.files[up].node) {
			return fmt.Errorf("parent %d: %w, want %d", got, err, s.DirID(m.files[up].node))
		}
	}
	l, err := s.Open(id)
	if err != nil {
		return err
	}
	want := m.names(p)
	if l.Len() != len(want) {
		return fmt.Errorf("%d names, want %q", l.Len(), want)
	}
	for i, name := range want {
		full := path.Join(p, name)
		got, n, err := l.At(i)
		if err != nil || string(got) != name || n != m.files[full].node {
			return fmt.Errorf("name %q: %+v, %w, want %q: %+v", got, n, err, name, m.files[full].node)
		}
		got, n, a, err := l.Attr(i)
		if err != nil || string(got) != name || n != m.files[full].node || a != m.wantAttr(full) {
			return fmt.Errorf("name %q: %+v, %+v, %w, want %q: %+v", got, n, a, err, name, m.wantAttr(full))
		}
	}
	for _, name := range append(want, "a", "b", "c", "d", "zz", "", "0123456789abcdef", "01234567") {
		n, ok, err := s.Lookup(id, []byte(name))
		f := m.files[path.Join(p, name)]
		if name == "" {
			f = nil
		}
		if err != nil || ok != (f != nil) || ok && n != f.node {
			return fmt.Errorf("lookup %q: %+v, %v, %w", name, n, ok, err)
		}
	}
	return nil
}

// compareWalk checks that a walk meets every path once.
func (m *model) compareWalk(s *Stack) error {
	seen := map[string]bool{}
	err := s.Walk(func(p []byte, n Node) error {
		if f := m.files[string(p)]; f == nil || f.node != n || seen[string(p)] {
			return fmt.Errorf("walk: %q: %+v", p, n)
		}
		seen[string(p)] = true
		return nil
	})
	if err == nil && len(seen) != len(m.files)-1 {
		err = fmt.Errorf("walk: %d paths, want %d", len(seen), len(m.files)-1)
	}
	return err
}
