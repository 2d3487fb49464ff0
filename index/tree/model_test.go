package tree

import (
	"maps"
	"slices"
	"strings"
)

// model is the semantics of Builder written down as naively as possible: nodes
// with pointers and maps.
type model struct {
	root *mnode
	sums map[Sum]int64
}

type mnode struct {
	kind     Kind
	meta     Meta
	implied  bool
	opaque   bool
	size     int64
	sum      Sum
	bodySize int64
	sparse   []Extent
	target   string // of a symlink, or the path in lower layers
	maj, min uint32
	parent   *mnode
	name     string
	names    map[string]*mname
}

type mname struct {
	node  *mnode // nil: a whiteout
	white bool
}

func newModel() *model {
	return &model{root: impliedDir(nil, ""), sums: map[Sum]int64{}}
}

func impliedDir(parent *mnode, name string) *mnode {
	return &mnode{
		kind: KindDirectory, implied: true, meta: Meta{Mode: 0o755}, parent: parent, name: name,
		names: map[string]*mname{},
	}
}

func (d *mnode) path() string {
	if d.parent == nil {
		return ""
	}
	return strings.TrimPrefix(d.parent.path()+"/"+d.name, "/")
}

// at returns the name entry, made if need be.
func (d *mnode) at(name string) *mname {
	if d.names[name] == nil {
		d.names[name] = &mname{}
	}
	return d.names[name]
}

// walk follows parts from d. Without create it returns the parts left at the
// first missing directory.
func (m *model) walk(d *mnode, parts []string, create bool, hops *int) (*mnode, []string, error) {
	for i, p := range parts {
		switch p {
		case "", ".":
			continue
		case "..":
			if d.parent != nil {
				d = d.parent
			}
			continue
		}
		e := d.names[p]
		switch {
		case e == nil || e.node == nil:
			if !create {
				return d, parts[i:], nil
			}
			next := impliedDir(d, p)
			d.at(p).node = next
			d = next
		case e.node.kind == KindDirectory:
			d = e.node
		case e.node.kind == KindSymlink:
			if *hops++; *hops > 40 {
				return nil, nil, ErrTooManyLinks
			}
			if strings.HasPrefix(e.node.target, "/") {
				d = m.root
			}
			rest := append(strings.Split(e.node.target, "/"), parts[i+1:]...)
			return m.walk(d, rest, create, hops)
		default:
			return nil, nil, ErrNotDirectory
		}
	}
	return d, nil, nil
}

func (m *model) parent(path string) (*mnode, string, error) {
	parts := strings.Split(path, "/")
	d, _, err := m.walk(m.root, parts[:len(parts)-1], true, new(int))
	return d, parts[len(parts)-1], err
}

func (m *model) put(path string, n *mnode) error {
	d, name, err := m.parent(path)
	if err != nil {
		return err
	}
	d.at(name).node = n
	return nil
}

func (m *model) dir(path string, meta Meta) error {
	if path == "" {
		m.root.meta, m.root.implied = meta, false
		return nil
	}
	d, name, err := m.parent(path)
	if err != nil {
		return err
	}
	e := d.at(name)
	if e.node == nil || e.node.kind != KindDirectory {
		e.node = impliedDir(d, name)
	}
	e.node.meta, e.node.implied = meta, false
	return nil
}

func (m *model) link(path, target string) error {
	if path == target {
		return nil
	}
	parts := strings.Split(target, "/")
	from, rest, err := m.walk(m.root, parts[:len(parts)-1], false, new(int))
	if err != nil {
		return err
	}
	last := parts[len(parts)-1]
	var n *mnode
	if rest == nil {
		if e := from.names[last]; e != nil && e.node != nil {
			n = e.node
		}
	}
	if n != nil && n.kind == KindDirectory {
		return ErrLinkToDirectory
	}
	lower := ""
	if n == nil {
		lower = strings.TrimPrefix(from.path()+"/"+strings.Join(append(rest, last), "/"), "/")
	}
	d, name, err := m.parent(path)
	if err != nil {
		return err
	}
	if n == nil || n.kind == KindLink {
		if n == nil {
			n = m.lower(lower)
		}
		if n.target == strings.TrimPrefix(d.path()+"/"+name, "/") {
			return nil
		}
	}
	d.at(name).node = n
	return nil
}

// lower returns the node that stands for a file of the lower layers.
func (m *model) lower(path string) *mnode {
	var found *mnode
	m.each(m.root, func(_ string, e *mname) {
		if e.node != nil && e.node.kind == KindLink && e.node.target == path {
			found = e.node
		}
	})
	if found == nil {
		found = &mnode{kind: KindLink, target: path}
	}
	return found
}

func (m *model) whiteout(path string) error {
	d, name, err := m.parent(path)
	if err == nil {
		d.at(name).white = true
	}
	return err
}

func (m *model) opaque(path string) error {
	d, _, err := m.walk(m.root, strings.Split(path, "/"), true, new(int))
	if err == nil {
		d.opaque = true
	}
	return err
}

// drop forgets a directory.
func (m *model) drop(path string) error {
	d, name, err := m.parent(path)
	if err != nil {
		return err
	}
	if e := d.names[name]; e != nil && e.node != nil && e.node.kind == KindDirectory {
		delete(d.names, name)
	}
	return nil
}

// each calls fn for all names below d, in order.
func (m *model) each(d *mnode, fn func(path string, e *mname)) {
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		e := d.names[name]
		if e.node == nil && !e.white {
			continue
		}
		fn(strings.TrimPrefix(d.path()+"/"+name, "/"), e)
		if e.node != nil && e.node.kind == KindDirectory {
			m.each(e.node, fn)
		}
	}
}

// nlinks counts the names of every node, and the stats.
func (m *model) nlinks() (map[*mnode]uint32, Stats) {
	links := map[*mnode]uint32{m.root: 2}
	st := Stats{Dirs: 1}
	if m.root.opaque {
		st.Opaques++
	}
	m.each(m.root, func(_ string, e *mname) {
		st.Entries++
		switch n := e.node; {
		case n == nil:
			st.Whiteouts++
		case n.kind == KindDirectory:
			st.Dirs++
			links[n] += 2
			links[n.parent]++
			if e.white {
				n.implied = false
			}
			if n.opaque || e.white {
				st.Opaques++
			}
		case n.kind == KindLink:
			st.LowerLinks++
			links[n]++
		default:
			links[n]++
			if links[n] > 1 {
				st.Links++
			} else if n.kind == KindRegular {
				st.Files++
				st.Bytes += n.size
			}
		}
	})
	for _, size := range m.sums {
		st.Bodies++
		st.BodyBytes += size
	}
	return links, st
}
