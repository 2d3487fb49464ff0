package fs

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// This file makes <mnt>/oci: one OCI image layout over the whole store, in which images have their full names. Its blobs
// are the files of the layouts of the images (oci.go). The picture is made when somebody first looks into it, and then
// for each snapshot. index.json has another number whenever it has another content; who holds the old one can read it
// until one more change has come.

// Nodes of the layout of the whole store.
const (
	ociStoreID       = 32
	ociStoreBlobsID  = 33
	ociStoreSha256ID = 34
	ociStoreLayoutID = 35

	ociIndexSlot = 2 // of kindFixed; the number comes from the content
)

// ociStore is the layout of the whole store for one snapshot.
type ociStore struct {
	dirs  map[uint64]*dir
	index ociIndexFile
	older ociIndexFile
}

type ociIndexFile struct {
	node uint64
	text []byte
	time time.Time
}

// ociSource makes the layout of a snapshot when it is needed.
type ociSource struct{ made atomic.Pointer[ociStore] }

// ociStore returns the layout of a snapshot.
func (f *fileSystem) ociStore(s *snapshot) *ociStore {
	if o := s.oci.made.Load(); o != nil {
		return o
	}
	f.counters.at(figureOCI).Store(1)
	s.oci.made.CompareAndSwap(nil, f.newOCIStore(s, nil))
	return s.oci.made.Load()
}

// live returns the views that do not linger, in the order of their slots.
func (s *snapshot) live() []*view {
	gone := make(map[*view]bool, len(s.goneViews))
	for _, v := range s.goneViews {
		gone[v] = true
	}
	var list []*view
	for _, slot := range slices.Sorted(maps.Keys(s.views)) {
		if v := s.views[slot]; !gone[v] {
			list = append(list, v)
		}
	}
	return list
}

// newOCIStore makes the layout of a snapshot after an older one, which may be nil.
func (f *fileSystem) newOCIStore(s *snapshot, old *ociStore) *ociStore {
	views := s.live()
	named := map[*image]bool{}
	for _, v := range views {
		named[v.image] = named[v.image] || v.name != ""
	}
	var manifests []ocispec.Descriptor
	var blobs []entry
	for _, v := range views {
		img, err := f.ociOf(v)
		if err != nil {
			f.report("oci: " + err.Error())
			continue
		}
		blobs = append(blobs, ociEntries(v, img)...)
		if v.name != "" || !named[v.image] {
			manifests = append(manifests, ociEntry(img, v.name))
		}
	}
	slices.SortFunc(manifests, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(a.Annotations[ocispec.AnnotationRefName], b.Annotations[ocispec.AnnotationRefName]), cmp.Compare(a.Digest, b.Digest))
	})
	text := indexText(manifests)
	o := &ociStore{index: ociIndexFile{node: ociIndexNode(text), text: text, time: f.started}}
	o.dirs = map[uint64]*dir{
		ociStoreID: {node: ociStoreID, parent: rootID, entries: []entry{
			{"blobs", ociStoreBlobsID, syscall.S_IFDIR}, {"index.json", o.index.node, syscall.S_IFREG}, {"oci-layout", ociStoreLayoutID, syscall.S_IFREG},
		}},
		ociStoreBlobsID:  {node: ociStoreBlobsID, parent: ociStoreID, entries: []entry{{"sha256", ociStoreSha256ID, syscall.S_IFDIR}}},
		ociStoreSha256ID: {node: ociStoreSha256ID, parent: ociStoreBlobsID, entries: uniqueEntries(blobs)},
	}
	o.follow(old, f.started)
	return o
}

// follow takes over from the layout before what has not changed.
func (o *ociStore) follow(old *ociStore, started time.Time) {
	now := time.Now()
	for node, d := range o.dirs {
		d.time = started
		if old != nil && !sameEntries(old.dirs[node], d) {
			d.time = now
		} else if old != nil {
			d.time = old.dirs[node].time
		}
	}
	switch {
	case old == nil:
	case old.index.node == o.index.node:
		o.index, o.older = old.index, old.older
	default:
		o.index.time, o.older = now, old.index
	}
}

// ociIndexNode is the node of an index.json.
func ociIndexNode(text []byte) uint64 {
	sum := sha256.Sum256(text)
	return nodeID(kindFixed, ociIndexSlot, binary.BigEndian.Uint32(sum[:]))
}

// file returns a text of the layout.
func (o *ociStore) file(node uint64) (ociIndexFile, bool) {
	switch node {
	case o.index.node:
		return o.index, true
	case o.older.node:
		return o.older, o.older.text != nil
	case ociStoreLayoutID:
		return ociIndexFile{node, []byte(layoutText), o.dirs[ociStoreBlobsID].time}, true
	}
	return ociIndexFile{}, false
}

// isOCIStore reports whether a node belongs to the layout of the whole store.
func isOCIStore(node uint64) bool {
	k, slot, _ := splitID(node)
	return k == kindFixed && slot == ociIndexSlot || node >= ociStoreID && node <= ociStoreLayoutID
}

// uniqueEntries sorts entries and leaves of each name the first.
func uniqueEntries(list []entry) []entry {
	slices.SortStableFunc(list, func(x, y entry) int { return cmp.Compare(x.name, y.name) })
	return slices.CompactFunc(list, func(x, y entry) bool { return x.name == y.name })
}

// notifyOCI tells of the changes of the layouts that somebody has looked at.
func (s *Server) notifyOCI(old, now *snapshot) {
	if was, is := old.oci.made.Load(), now.oci.made.Load(); was != nil && is != nil {
		for node, d := range was.dirs {
			s.notifyDir(d, is.dirs[node])
		}
	}
	for slot, v := range now.views {
		was := old.views[slot]
		if was == nil || was.manifest.Digest == v.manifest.Digest {
			continue
		}
		if img := shownOCI(was); img != nil {
			s.notifyImageOCI(was, v, img.Layers)
		}
	}
}

// notifyImageOCI tells that a view's layout has another manifest of the same image.
func (s *Server) notifyImageOCI(was, now *view, layers []ocispec.Descriptor) {
	for _, number := range []uint32{ociIndex, ociBlob, ociConfig} {
		s.say(s.conn.NotifyInode(nodeID(kindViewObject, now.slot, number)))
	}
	for i := range layers {
		s.say(s.conn.NotifyInode(nodeID(kindViewObject, now.slot, ociLayer+uint32(i))))
	}
	before, errno1 := s.fs.ociDir(was, ociSha256)
	after, errno2 := s.fs.ociDir(now, ociSha256)
	if errno1 != 0 || errno2 != 0 {
		return
	}
	for _, e := range append(before.entries, after.entries...) {
		s.say(s.conn.NotifyEntry(after.node, e.name))
	}
	s.say(s.conn.NotifyInode(after.node))
}
