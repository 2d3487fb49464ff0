package fs

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/layerfs/layerfs/layers"
)

// A snapshot is everything that is shown, at one moment. It never changes; what hangs on it (views, layers) changes
// only in ways that are safe for all who use it.
type snapshot struct {
	generation uint64
	images     map[uint32]*image // by the slot of the image
	views      map[uint32]*view  // live and lingering ones
	layers     map[uint32]*layer // likewise
	dirs       map[uint64]*dir   // the directories that exist once: fixed ones and repositories
	podman     *podmanSource     // what is below podman/
	oci        *ociSource        // what is below oci/

	goneViews  []*view // lingering: out of the catalogue, but the kernel knows files of them
	goneLayers []*layer
}

// A dir is a directory that is not part of an image.
type dir struct {
	node, parent uint64
	entries      []entry // in byte order
	time         time.Time
}

// An entry is a name in a dir; of the mode only the type counts.
type entry struct {
	name string
	node uint64
	mode uint32
}

// find returns the entry called name.
func (d *dir) find(name []byte) (entry, bool) {
	i, ok := slices.BinarySearchFunc(d.entries, name, func(e entry, name []byte) int {
		switch {
		case e.name < string(name):
			return -1
		case e.name > string(name):
			return 1
		}
		return 0
	})
	if !ok {
		return entry{}, false
	}
	return d.entries[i], true
}

// subdirs counts the directories in d.
func (d *dir) subdirs() uint32 {
	n := uint32(0)
	for _, e := range d.entries {
		if e.mode == syscall.S_IFDIR {
			n++
		}
	}
	return n
}

// sameEntries reports whether two directories list the same.
func sameEntries(a, b *dir) bool { return a != nil && b != nil && slices.Equal(a.entries, b.entries) }

// emptySnapshot is what there is before the first catalogue.
func emptySnapshot() *snapshot {
	return &snapshot{
		podman: &podmanSource{}, oci: &ociSource{},
		images: map[uint32]*image{}, views: map[uint32]*view{}, layers: map[uint32]*layer{}, dirs: map[uint64]*dir{},
	}
}

// newSnapshot makes the snapshot of a catalogue. What old knows already is taken over from it, and what is not in the
// catalogue any more lingers. The times of directories that differ from old become now.
func (f *fileSystem) newSnapshot(old *snapshot, c *layers.Catalogue, now time.Time) *snapshot {
	b := &builder{f: f, old: old, s: emptySnapshot()}
	b.s.generation = c.Generation
	for _, text := range c.Problems {
		f.report("not shown: " + text)
	}
	stacks := b.addLayers(c)
	b.addImages(c, stacks)
	b.addNames(c)
	b.addDirs(now)
	b.linger()
	return b.s
}

// builder makes one snapshot.
type builder struct {
	f      *fileSystem
	old, s *snapshot
	byID   []entry
	named  []*view
}

// addLayers adds the layers and returns them by their place in the catalogue, nil for those that cannot be shown.
func (b *builder) addLayers(c *layers.Catalogue) []*layer {
	all := make([]*layer, len(c.Layers))
	for i := range c.Layers {
		in := &c.Layers[i]
		if in.Slot > maxSlot {
			b.f.report("layer " + string(in.DiffID) + " is not shown: its slot is too large")
			continue
		}
		l := b.old.layers[in.Slot]
		if l == nil || l.diffID != in.DiffID {
			l = &layer{slot: in.Slot, diffID: in.DiffID, lookups: b.f.counters.at(nodeID(kindLayerObject, in.Slot, layerTop))}
		}
		l.describe(in)
		b.s.layers[in.Slot], all[i] = l, l
	}
	return all
}

// addImages adds the images and their views by ID.
func (b *builder) addImages(c *layers.Catalogue, all []*layer) {
	for i := range c.Images {
		in := &c.Images[i]
		img := b.old.images[in.Slot]
		if img == nil || img.id != in.ID {
			img = &image{id: in.ID, config: in.Config}
			for _, l := range in.Layers {
				img.layers = append(img.layers, all[l])
			}
		}
		if in.Slot > maxSlot || slices.Contains(img.layers, nil) {
			b.f.report("image " + string(in.ID) + " is not shown: the slot of it or of a layer is too large")
			continue
		}
		b.s.images[in.Slot] = img
		v := b.view(&view{
			slot: in.Slot, image: img, parent: byID, base: in.ID.Encoded(), depth: 2, manifest: in.Manifest, created: in.Loaded,
		})
		b.byID = append(b.byID, entry{v.base, nodeID(kindViewObject, v.slot, viewTop), syscall.S_IFDIR})
	}
}

// addNames adds the views by name.
func (b *builder) addNames(c *layers.Catalogue) {
	for i := range c.Names {
		in := &c.Names[i]
		img := b.s.images[c.Images[in.Image].Slot]
		path := layers.PathOfName(in.Name)
		if img == nil || in.Slot > maxSlot || !validPath(path) {
			b.f.report("name " + in.Name + " is not shown: its image is not, its slot is too large, or it makes no path")
			continue
		}
		dir, base := splitPath(path)
		b.named = append(b.named, b.view(&view{
			slot: in.Slot, image: img, dir: dir, base: base, name: in.Name, depth: 1 + strings.Count(path, "/"), manifest: in.Manifest, created: in.Created,
		}))
	}
}

// view puts v, or the same view of the old snapshot, into the new one. A name that got another manifest of the same
// image keeps its slot, and with it the count of what the kernel knows.
func (b *builder) view(v *view) *view {
	if was := b.old.views[v.slot]; was != nil && was.image == v.image {
		if was.manifest.Digest == v.manifest.Digest && was.base == v.base && was.dir == v.dir {
			v = was
		} else {
			v.lookups = was.lookups
		}
	}
	if v.lookups == nil {
		v.lookups = b.f.counters.at(nodeID(kindViewObject, v.slot, viewTop))
	}
	b.s.views[v.slot] = v
	return v
}

// addDirs makes the directories above the views.
func (b *builder) addDirs(now time.Time) {
	repos := b.repos()
	for _, v := range b.named {
		d := repos[v.dir]
		if v.parent != d.node {
			moved := *v // requests may be looking at v
			moved.parent = d.node
			v = &moved
			b.s.views[v.slot] = v
		}
		d.entries = append(d.entries, entry{v.base, nodeID(kindViewObject, v.slot, viewTop), syscall.S_IFDIR})
		d.time = later(d.time, v.created)
	}
	repos[""].entries = append(repos[""].entries, entry{"by-id", byID, syscall.S_IFDIR})
	sha := &dir{node: sha256ID, parent: layersID}
	for _, l := range b.s.layers {
		sha.entries = append(sha.entries, entry{l.diffID.Hex(), nodeID(kindLayerObject, l.slot, layerTop), syscall.S_IFDIR})
		sha.time = later(sha.time, l.created)
	}
	ids := &dir{node: byID, parent: imagesID, entries: b.byID}
	for _, e := range b.byID {
		ids.time = later(ids.time, b.s.viewAt(e.node).created)
	}
	b.put(now, slices.Collect(maps.Values(repos))...)
	b.put(now, sha, ids,
		b.rootDir(),
		podmanTop(),
		&dir{node: layersID, parent: rootID, entries: []entry{{"sha256", sha256ID, syscall.S_IFDIR}}},
		&dir{node: stateID, parent: rootID, entries: []entry{{statusName, statusID, syscall.S_IFREG}}},
	)
}

// rootDir is the root of the mount.
func (b *builder) rootDir() *dir {
	d := &dir{node: rootID, parent: rootID, entries: []entry{
		{"images", imagesID, syscall.S_IFDIR},
		{"layers", layersID, syscall.S_IFDIR},
		{".layerfs", stateID, syscall.S_IFDIR},
		{"podman", podmanID, syscall.S_IFDIR},
		{"oci", ociStoreID, syscall.S_IFDIR},
	}}
	if b.f.beside != nil {
		d.entries = append(d.entries, entry{"containers", treesID, syscall.S_IFLNK})
	}
	return d
}

// repos makes images/ and the directories of the repositories below it, by path, with each other as entries.
func (b *builder) repos() map[string]*dir {
	paths := map[string]struct{}{}
	for _, v := range b.named {
		for p := v.dir; p != ""; p, _ = splitPath(p) {
			paths[p] = struct{}{}
		}
	}
	all := map[string]*dir{"": {node: imagesID, parent: rootID}}
	taken := map[uint64]struct{}{}
	for _, p := range slices.Sorted(maps.Keys(paths)) { // parents come before what is in them
		above, base := splitPath(p)
		d := &dir{node: repoID(p, taken), parent: all[above].node}
		taken[d.node] = struct{}{}
		all[p] = d
		all[above].entries = append(all[above].entries, entry{base, d.node, syscall.S_IFDIR})
	}
	return all
}

// put sorts directories and adds them to the snapshot. Of two entries of the same name, which a repository called
// by-id could cause, the first stays.
func (b *builder) put(now time.Time, dirs ...*dir) {
	for _, d := range dirs {
		slices.SortStableFunc(d.entries, func(x, y entry) int { return cmp.Compare(x.name, y.name) })
		d.entries = slices.CompactFunc(d.entries, func(x, y entry) bool { return x.name == y.name })
		was := b.old.dirs[d.node]
		switch {
		case sameEntries(was, d):
			d.time = was.time
		case was != nil:
			d.time = now
		}
		if d.time.IsZero() {
			d.time = b.f.started
		}
		b.s.dirs[d.node] = d
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// linger keeps what the catalogue no longer has.
func (b *builder) linger() {
	for slot, v := range b.old.views {
		if b.s.views[slot] == nil {
			b.s.views[slot] = v
			b.s.goneViews = append(b.s.goneViews, v)
		}
	}
	for slot, l := range b.old.layers {
		if b.s.layers[slot] == nil {
			b.s.layers[slot] = l
			b.s.goneLayers = append(b.s.goneLayers, l)
		}
	}
}

// viewAt returns the view of a node of kind kindViewDir or kindViewObject.
func (s *snapshot) viewAt(node uint64) *view {
	_, slot, _ := splitID(node)
	return s.views[slot]
}

// forgotten returns the lingering views of which the kernel remembers nothing, and the lingering layers of which that
// is true and that no other view needs. Preconditions: no request works with an older snapshot.
func (s *snapshot) forgotten() (map[*view]bool, map[*layer]bool) {
	views, gone := map[*view]bool{}, map[*layer]bool{}
	for _, v := range s.goneViews {
		if v.lookups.Load() <= 0 {
			views[v] = true
		}
	}
	for _, l := range s.goneLayers {
		if l.lookups.Load() <= 0 {
			gone[l] = true
		}
	}
	s.podman.eachAgain(func(l *layer) {
		if l.lookups.Load() > 0 {
			delete(gone, l.base)
		}
	})
	for _, v := range s.views {
		if views[v] {
			continue
		}
		for _, l := range v.image.layers {
			delete(gone, l)
		}
	}
	return views, gone
}

// without returns the snapshot less lingering views and layers.
func (s *snapshot) without(views map[*view]bool, gone map[*layer]bool) *snapshot {
	n := *s
	n.views, n.layers = maps.Clone(s.views), maps.Clone(s.layers)
	maps.DeleteFunc(n.views, func(_ uint32, v *view) bool { return views[v] })
	maps.DeleteFunc(n.layers, func(_ uint32, l *layer) bool { return gone[l] })
	n.goneViews = slices.DeleteFunc(slices.Clone(s.goneViews), func(v *view) bool { return views[v] })
	n.goneLayers = slices.DeleteFunc(slices.Clone(s.goneLayers), func(l *layer) bool { return gone[l] })
	return &n
}
