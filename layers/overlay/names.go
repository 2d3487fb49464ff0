package overlay

import (
	"sort"
	"strings"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/layers/union"
)

// lowerName is one name of a file below: where it is in the merged tree.
type lowerName struct {
	dir  union.DirID
	name string
}

// lowerNames returns the names that the merged tree shows a file under. There is no
// map from files to names; but files are numbered in the order of their first names,
// so that of a file with one name is found by bisection.
func (f *FS) lowerNames(n union.Node) ([]lowerName, error) {
	t := f.below.Layer(n.Layer)
	a, err := t.Attr(n.Ino)
	if err != nil {
		return nil, err
	}
	_, extra, linked := f.below.Group(n)
	if a.Nlink == 1 && (!linked || extra == 0) {
		if i, ok, err := bisect(t, n.Ino); err != nil || ok {
			return f.shownNames(n, n.Layer, []uint32{i}, err)
		}
	}
	at, err := scan(t, n.Ino)
	names, err := f.shownNames(n, n.Layer, at, err)
	if err != nil || !linked {
		return names, err
	}
	for layer := n.Layer + 1; layer < f.below.Layers(); layer++ {
		at, err := scanLinks(f.below.Layer(layer))
		more, err := f.shownNames(n, layer, at, err)
		if err != nil {
			return nil, err
		}
		names = append(names, more...)
	}
	return names, nil
}

// bisect finds the only name of a file.
func bisect(t *tree.Tree, ino tree.Ino) (uint32, bool, error) {
	lo, hi := uint32(0), t.Names()
	for lo < hi {
		mid := lo + (hi-lo)/2
		i, at, ok, err := singleFrom(t, mid, hi)
		switch {
		case err != nil:
			return 0, false, err
		case !ok || at > ino:
			hi = mid
		case at == ino:
			return i, true, nil
		default:
			lo = i + 1
		}
	}
	return 0, false, nil
}

// singleFrom finds the first name from i on, before end, of a file that has only one.
func singleFrom(t *tree.Tree, i, end uint32) (uint32, tree.Ino, bool, error) {
	for ; i < end; i++ {
		d, err := t.Dirent(i)
		if err != nil {
			return 0, 0, false, err
		}
		if d.Kind == tree.KindDirectory || modeOf(d.Kind) == 0 {
			continue
		}
		a, err := t.Attr(d.Ino)
		if err != nil {
			return 0, 0, false, err
		}
		if a.Nlink == 1 {
			return i, d.Ino, true, nil
		}
	}
	return 0, 0, false, nil
}

// scan finds all names of a file in its layer.
func scan(t *tree.Tree, ino tree.Ino) ([]uint32, error) {
	var out []uint32
	for i := range t.Names() {
		d, err := t.Dirent(i)
		if err != nil {
			return nil, err
		}
		if d.Ino == ino && d.Kind != tree.KindDirectory && modeOf(d.Kind) != 0 {
			out = append(out, i)
		}
	}
	return out, nil
}

// scanLinks finds all names in a layer that are links to files of lower layers.
func scanLinks(t *tree.Tree) ([]uint32, error) {
	if !t.HasLowerLinks() {
		return nil, nil
	}
	var out []uint32
	for i := range t.Names() {
		d, err := t.Dirent(i)
		if err != nil {
			return nil, err
		}
		if d.Kind == tree.KindLink {
			out = append(out, i)
		}
	}
	return out, nil
}

// shownNames returns those of some dirents of a layer under which the merged tree
// shows the file.
func (f *FS) shownNames(n union.Node, layer int, at []uint32, err error) ([]lowerName, error) {
	var out []lowerName
	for _, i := range at {
		if err != nil {
			break
		}
		var name lowerName
		var ok bool
		if name, ok, err = f.shownName(n, f.below.Layer(layer), i); ok {
			out = append(out, name)
		}
	}
	return out, err
}

func (f *FS) shownName(n union.Node, t *tree.Tree, i uint32) (out lowerName, ok bool, err error) {
	d, err := t.Dirent(i)
	if err != nil {
		return out, false, err
	}
	path, err := pathOf(t, dirOfDirent(t, i))
	if err != nil {
		return out, false, err
	}
	parent, ok, err := f.below.Resolve(path)
	if err != nil || !ok || parent.Kind != kindDirectory {
		return out, false, err
	}
	out = lowerName{f.below.DirID(parent), string(d.Name)}
	got, ok, err := f.below.Lookup(out.dir, d.Name)
	return out, ok && got == n, err
}

// dirOfDirent returns the directory that a dirent is in: the dirents of directories
// follow each other.
func dirOfDirent(t *tree.Tree, i uint32) tree.Ino {
	after := sort.Search(int(t.Dirs()), func(k int) bool {
		first, _, err := t.Dir(tree.Ino(k))
		return err != nil || first > i
	})
	return tree.Ino(max(after-1, 0))
}

// pathOf returns the path of a directory in its layer.
func pathOf(t *tree.Tree, dir tree.Ino) (string, error) {
	var parts []string
	for dir != 0 {
		parent, name, err := t.Parent(dir)
		if err != nil {
			return "", err
		}
		parts = append(parts, string(name))
		dir = parent
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/"), nil
}

// lowerPath returns the path below of a node's file, from the root, for a redirect.
func (f *FS) lowerPath(n *node) (string, error) {
	if n.isDir() {
		path, err := pathOf(f.below.Layer(n.lower.Layer), n.lower.Ino)
		return "/" + path, err
	}
	names, err := f.lowerNames(n.lower)
	if err != nil || len(names) == 0 {
		return "", err
	}
	parent, _ := f.below.DirNode(names[0].dir)
	path, err := pathOf(f.below.Layer(parent.Layer), parent.Ino)
	if path != "" {
		path += "/"
	}
	return "/" + path + names[0].name, err
}
