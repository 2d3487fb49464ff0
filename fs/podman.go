package fs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/layers"
)

// This file makes <mnt>/podman, which shows the store as a read-only graph root of
// containers/storage, so that podman, buildah, skopeo and CRI-O can use it as an additional image store:
//
//	overlay-images/images.json images.lock <image>/{manifest,=<base64 of a key>}
//	overlay-layers/layers.json layers.lock <layer>.tar-split.gz
//	overlay/<layer>/{diff,link,lower} overlay/l/<link>
//
// A layer there stands on one parent, so a layer of the store is shown once for every stack that it is in. Names of links are short, because the kernel takes all of a mount's options in one page, and
// never change, because containers on them remember them.
//
// The picture is made when somebody first looks into it, and then for each snapshot. The number of a file's node comes
// from its path and its content: a file never changes, another one takes its place. Those who hold the old one can
// still read it as long as one more change has not come.

// podmanView is the content of <mnt>/podman for one snapshot.
type podmanView struct {
	dirs  map[uint64]*dir
	files map[uint64]*podmanFile
	again map[uint32]*layer // the directories of the layers, which are shown a second time here
	older *podmanView       // of the snapshot before; its older is nil
}

// podmanFile is a file or a link, with exactly one of the contents.
type podmanFile struct {
	text  string             // also the target of a link
	link  bool               // text is a target
	blob  ocispec.Descriptor // a document of the store
	split *layer             // tar-split metadata of the layer
	time  time.Time
}

// podmanSource makes the view of a snapshot when it is needed.
type podmanSource struct{ made atomic.Pointer[podmanView] }

// podmanNode is the node of what lies at a path in the view; content is empty for a directory.
func podmanNode(path, content string) uint64 {
	return repoID[*dir]("\x00podman/"+path+"\x00"+content, nil)
}

// podmanTop is the directory itself, which is there before the view is made.
func podmanTop() *dir {
	d := &dir{node: podmanID, parent: rootID}
	for _, name := range []string{"overlay", "overlay-images", "overlay-layers"} {
		d.entries = append(d.entries, entry{name, podmanNode(name, ""), syscall.S_IFDIR})
	}
	return d
}

// podman returns the view of a snapshot. It is made of the newest catalogue, less what is not in the snapshot.
func (f *fileSystem) podman(s *snapshot) *podmanView {
	if v := s.podman.made.Load(); v != nil {
		return v
	}
	f.counters.at(figurePodman).Store(1)
	c, err := f.store.Catalogue(context.Background())
	if err != nil {
		f.report("podman: " + err.Error())
		return f.newPodmanView(s, &layers.Catalogue{}, nil) // the next one may have more luck
	}
	s.podman.made.CompareAndSwap(nil, f.newPodmanView(s, c, nil))
	return s.podman.made.Load()
}

// dir returns a directory of the view or of the one before.
func (v *podmanView) dir(node uint64) *dir {
	for ; v != nil; v = v.older {
		if d := v.dirs[node]; d != nil {
			return d
		}
	}
	return nil
}

// file returns a file of the view or of the one before.
func (v *podmanView) file(node uint64) *podmanFile {
	for ; v != nil; v = v.older {
		if p := v.files[node]; p != nil {
			return p
		}
	}
	return nil
}

// eachAgain calls fn for every layer of the view, if it has been made.
func (p *podmanSource) eachAgain(fn func(l *layer)) {
	if v := p.made.Load(); v != nil {
		for _, l := range v.again {
			fn(l)
		}
	}
}

// podmanBuilder makes one view.
type podmanBuilder struct {
	f    *fileSystem
	s    *snapshot
	old  *podmanView // nil for the first
	v    *podmanView
	byID map[string]bool // layers that are in it
	used map[string]bool // names of links
	time time.Time       // of what is new

	images []podmanImage
	layers []podmanLayer
}

// newPodmanView makes the view of a snapshot after that of an older one.
func (f *fileSystem) newPodmanView(s *snapshot, c *layers.Catalogue, old *podmanView) *podmanView {
	b := &podmanBuilder{
		f: f, s: s, old: old, time: f.started, byID: map[string]bool{}, used: map[string]bool{},
		v: &podmanView{dirs: map[uint64]*dir{}, files: map[uint64]*podmanFile{}, again: map[uint32]*layer{}},
	}
	if old != nil {
		b.time = time.Now()
		b.v.older = &podmanView{dirs: old.dirs, files: old.files}
	}
	for _, path := range []string{"overlay", "overlay-images", "overlay-layers"} {
		b.v.dirs[podmanNode(path, "")] = &dir{node: podmanNode(path, ""), parent: podmanID}
	}
	b.mkdir("overlay/l")
	names := map[int][]*layers.CatalogueName{}
	for i := range c.Names {
		names[c.Names[i].Image] = append(names[c.Names[i].Image], &c.Names[i])
	}
	for i := range c.Images {
		b.addImage(c, &c.Images[i], names[i])
	}
	b.linger()
	slices.SortFunc(b.layers, func(x, y podmanLayer) int { return cmp.Compare(x.ID, y.ID) })
	b.index("overlay-images/images", b.images)
	b.index("overlay-layers/layers", b.layers)
	b.finish()
	return b.v
}

// index adds a list of records and its lock. Programs that run for long read the list again when the lock has another
// content, so that is the digest of the list.
func (b *podmanBuilder) index(path string, records any) {
	text := podmanJSON(records)
	sum := sha256.Sum256([]byte(text))
	b.add(path+".json", &podmanFile{text: text}, text)
	b.add(path+".lock", &podmanFile{text: hex.EncodeToString(sum[:])}, text)
}

// mkdir adds a directory to one that is there.
func (b *podmanBuilder) mkdir(path string) {
	node := podmanNode(path, "")
	above, base := splitPath(path)
	parent := b.v.dirs[podmanNode(above, "")]
	parent.entries = append(parent.entries, entry{base, node, syscall.S_IFDIR})
	b.v.dirs[node] = &dir{node: node, parent: parent.node}
}

// add adds a file whose node is determined by its path and the content.
func (b *podmanBuilder) add(path string, p *podmanFile, content string) {
	node := podmanNode(path, "="+content)
	above, base := splitPath(path)
	parent := b.v.dirs[podmanNode(above, "")]
	mode := uint32(syscall.S_IFREG)
	if p.link {
		mode = syscall.S_IFLNK
	}
	parent.entries = append(parent.entries, entry{base, node, mode})
	p.time = b.time
	if was := b.old.file(node); was != nil {
		p.time = was.time
	}
	b.v.files[node] = p
}

// finish sorts the directories; those that have not changed keep their time.
func (b *podmanBuilder) finish() {
	for node, d := range b.v.dirs {
		slices.SortFunc(d.entries, func(x, y entry) int { return cmp.Compare(x.name, y.name) })
		d.time = b.time
		if was := b.old.dir(node); sameEntries(was, d) {
			d.time = was.time
		}
	}
}

// addImage adds an image, its documents and the layers of its stack.
func (b *podmanBuilder) addImage(c *layers.Catalogue, img *layers.CatalogueImage, names []*layers.CatalogueName) {
	top, ok := b.addStack(c, img)
	if !ok {
		return
	}
	manifests := []ocispec.Descriptor{img.Manifest}
	out := podmanImage{ID: img.ID.Encoded(), Digest: img.Manifest.Digest, Layer: top, Metadata: "{}", Created: img.Loaded}
	for _, n := range names {
		out.Names = append(out.Names, n.Name)
		if !slices.ContainsFunc(manifests, func(d ocispec.Descriptor) bool { return d.Digest == n.Manifest.Digest }) {
			manifests = append(manifests, n.Manifest)
		}
	}
	b.mkdir("overlay-images/" + out.ID)
	b.addData(&out, "manifest", img.Manifest)
	b.addData(&out, string(img.ID), img.Config)
	for _, m := range manifests {
		b.addData(&out, "manifest-"+string(m.Digest), m)
	}
	b.images = append(b.images, out)
}

// addData adds a document of an image under its key.
func (b *podmanBuilder) addData(img *podmanImage, key string, d ocispec.Descriptor) {
	b.add("overlay-images/"+img.ID+"/"+dataName(key), &podmanFile{blob: d}, string(d.Digest))
	img.addData(key, d)
}

// dataName is the name of the file of a document: its key, if that is a simple name, or the key in base64.
func dataName(key string) string {
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789.") == "" {
		return key
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte(key))
}

// addStack adds the layers of an image and returns the ID of the topmost, empty for an image without layers. It
// returns false when a layer is not shown.
func (b *podmanBuilder) addStack(c *layers.Catalogue, img *layers.CatalogueImage) (string, bool) {
	parent := ""
	var lower []string
	for _, i := range img.Layers {
		in := &c.Layers[i]
		l := b.s.layers[in.Slot]
		if l == nil || l.diffID != in.DiffID {
			return "", false
		}
		id := podmanLayerID(parent, in.DiffID)
		if !b.addLayer(id, parent, lower, in, l) {
			return "", false
		}
		lower = append([]string{"l/" + podmanLink(id)}, lower...)
		parent = id
	}
	return parent, true
}

// podmanLayerID is how containers/storage names a layer on a parent that came from a registry or an archive. With the
// same ID a layer that is pulled is found here and not stored again.
func podmanLayerID(parent string, d layers.DiffID) string {
	if parent == "" {
		return d.Hex()
	}
	return digest.FromString(parent + "+" + d.Hex()).Encoded()
}

// podmanLink is the short name of a layer.
func podmanLink(id string) string {
	sum := sha256.Sum256([]byte(id))
	return base32.StdEncoding.EncodeToString(sum[:])[:linkLen]
}

// linkLen is the length of a short name: 50 bits.
const linkLen = 10

// addLayer adds a layer unless it is there. It returns false when its record cannot be read, or its link is that of
// another layer.
func (b *podmanBuilder) addLayer(id, parent string, lower []string, in *layers.CatalogueLayer, l *layer) bool {
	if b.byID[id] {
		return true
	}
	link := podmanLink(id)
	blobs, err := in.Blobs()
	if err != nil || b.used[link] {
		return false
	}
	b.byID[id], b.used[link] = true, true
	b.layers = append(b.layers, newPodmanLayer(id, parent, in, blobs))
	b.mkdir("overlay/" + id)
	b.addDiff(id, l)
	b.add("overlay/"+id+"/link", &podmanFile{text: link}, link)
	if len(lower) > 0 {
		text := strings.Join(lower, ":")
		b.add("overlay/"+id+"/lower", &podmanFile{text: text}, text)
	}
	b.add("overlay/l/"+link, &podmanFile{text: "../" + id + "/diff", link: true}, id)
	b.add("overlay-layers/"+id+".tar-split.gz", &podmanFile{split: l}, id)
	return true
}

// addDiff adds the directory with the files of a layer.
func (b *podmanBuilder) addDiff(id string, base *layer) {
	top := b.v.dirs[podmanNode("overlay/"+id, "")]
	slot := b.slot(id, base)
	if b.v.again[slot] == nil {
		b.v.again[slot] = b.again(slot, base, top.node)
	}
	top.entries = append(top.entries, entry{"diff", nodeID(kindDiffDir, slot, 0), syscall.S_IFDIR})
}

// again returns what shows the directories of a layer a second time. After a handover nobody knows how many of them the
// kernel knows.
func (b *podmanBuilder) again(slot uint32, base *layer, above uint64) *layer {
	l := &layer{slot: slot, diffID: base.diffID, base: base, above: above, lookups: new(counter)}
	if b.f.resumed && b.old == nil {
		l.lookups.Store(unknown)
	}
	return l
}

// slot finds the slot of a layer's directories: that which they had before, or a free one above those that the index
// gives. It is computed from the ID, so that inode numbers are mostly the same in the next mount.
func (b *podmanBuilder) slot(id string, base *layer) uint32 {
	const half = (maxSlot + 1) / 2
	sum := sha256.Sum256([]byte(id))
	for n := binary.BigEndian.Uint32(sum[:]); ; n++ {
		slot := half + n%half
		var was *layer
		if b.old != nil {
			was = b.old.again[slot]
		}
		above := podmanNode("overlay/"+id, "")
		switch {
		case b.s.layers[slot] != nil, b.v.again[slot] != nil:
		case was == nil:
			return slot
		case was.base == base && was.above == above:
			b.v.again[slot] = was
			return slot
		}
	}
}

// linger keeps directories that are gone but which the kernel knows, such as those under a running container.
func (b *podmanBuilder) linger() {
	if b.old == nil {
		return
	}
	for slot, l := range b.old.again {
		if b.v.again[slot] == nil && l.lookups.Load() > 0 {
			b.v.again[slot] = l
		}
	}
}
