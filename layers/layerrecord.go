package layers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerfs/layerfs/index"
)

// A LayerNode is a place on top of a stack of layers. One that somebody created has a
// record, with names, metadata and flags, and an ID of its own; the others follow from
// the images and containers, and have the ChainID of their stack for an ID.
type LayerNode struct {
	index.LayerRecord
	// Record is false for a node that only follows from an image or a container.
	Record bool `json:"record"`
	// Size is the size of the layer's uncompressed tar; -1 when nothing was applied.
	Size       int64           `json:"size"`
	Children   []string        `json:"children"`   // IDs of the nodes on top of it
	Images     []digest.Digest `json:"images"`     // IDs of the images whose top it is
	Containers []string        `json:"containers"` // IDs of the containers that stand on it
}

// DiffIDs returns the stack, bottom first.
func (n *LayerNode) DiffIDs() []DiffID { return diffIDs(n.Layers) }

// CreateLayerOptions describe a layer record to create; nil means the defaults.
type CreateLayerOptions struct {
	ID       string   // 64 hexadecimal digits; empty: generated
	Names    []string // unique among layer records
	Parent   string   // ID or name of a record, or a ChainID; empty: on top of nothing
	Metadata string   // free to use
	Flags    map[string]string
}

// CreateLayer makes an empty layer record: a place to apply a tar to, or to make an
// image from. It returns ErrDuplicateID, ErrDuplicateName, ErrLayerUnknown for a parent
// that is not there and ErrParentIsContainer for one that is a container.
func (s *Store) CreateLayer(ctx context.Context, o *CreateLayerOptions) (*LayerNode, error) {
	if o == nil {
		o = &CreateLayerOptions{}
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	r, err := o.record()
	if err != nil {
		return nil, err
	}
	err = s.index.Update(ctx, "layer create", func(tx *index.Tx) error { return addRecord(tx, &r, o.Parent) })
	if err != nil {
		return nil, err
	}
	return &LayerNode{LayerRecord: r, Record: true, Size: -1, Children: []string{}, Images: []digest.Digest{}, Containers: []string{}}, nil
}

// record checks the options and makes the part of the record that they determine.
func (o *CreateLayerOptions) record() (index.LayerRecord, error) {
	r := index.LayerRecord{
		ID: o.ID, Metadata: o.Metadata, Flags: o.Flags, Created: time.Now().UTC().Round(0), Layers: []digest.Digest{},
	}
	if r.ID == "" {
		r.ID = newID()
	}
	names, err := layerNames(o.Names)
	r.Names = names
	return r, errors.Join(checkID(r.ID), err, checkMetadata(o.Metadata), checkFlags(o.Flags))
}

func randRead(p []byte) { _, _ = rand.Read(p) } // never fails (crypto/rand)

func checkID(id string) error {
	if !isHex(id) || len(id) != 64 {
		return fmt.Errorf("%w: %q is no ID; want 64 hexadecimal digits", ErrInvalidName, id)
	}
	return nil
}

// layerNames checks the names of a layer record and drops those that come twice.
func layerNames(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		if name == "" || len(name) > 255 || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, fmt.Errorf("%w: %q; the name of a layer is a text of at most 255 bytes without control characters", ErrInvalidName, name)
		}
		if isHex(name) && len(name) == 64 {
			return nil, fmt.Errorf("%w: %q has the form of an ID", ErrInvalidName, name)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// addRecord completes a new record with what its parent gives, and adds it.
func addRecord(tx *index.Tx, r *index.LayerRecord, parent string) error {
	ns, err := readNodes(tx)
	if err != nil {
		return err
	}
	if err := freeID(tx, ns, r.ID); err != nil {
		return err
	}
	for _, name := range r.Names {
		if old, err := tx.LayerRecordNamed(name); err == nil {
			return fmt.Errorf("%w: layer %.12s is called %q", ErrDuplicateName, old.ID, name)
		}
	}
	if parent != "" {
		p, err := findParent(tx, ns, parent)
		if err != nil {
			return err
		}
		r.Parent, r.Layers = p.id, digests(p.layers)
	}
	return tx.PutLayerRecord(*r)
}

// freeID returns ErrDuplicateID when an item of any kind has the ID.
func freeID(tx *index.Tx, ns *nodeSet, id string) error {
	what := ""
	if ns.nodes[id] != nil {
		what = "layer"
	} else if _, err := tx.Image(digest.NewDigestFromEncoded(digest.SHA256, id)); err == nil {
		what = "image"
	} else if _, err := tx.Container(id); err == nil {
		what = "container"
	}
	if what != "" {
		return fmt.Errorf("%w: %s %s", ErrDuplicateID, what, id)
	}
	return nil
}

func findParent(tx *index.Tx, ns *nodeSet, parent string) (*node, error) {
	n, _, err := ns.find(parent)
	if errors.Is(err, ErrLayerUnknown) {
		if c, cerr := resolveContainer(tx, parent); cerr == nil {
			return nil, fmt.Errorf("%w: %s is a container, which can still change; commit it, and use the image", ErrParentIsContainer, (&Container{c}).Name())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("parent: %w", err)
	}
	return n, nil
}

// LayerNode finds a node by its ID or ChainID, by the name of its record, or by an
// abbreviation of its ID. It returns ErrLayerUnknown or ErrAmbiguous.
func (s *Store) LayerNode(ctx context.Context, id string) (*LayerNode, error) {
	var out *LayerNode
	err := s.index.View(ctx, func(tx *index.Tx) error {
		ns, err := readNodes(tx)
		if err != nil {
			return err
		}
		n, _, err := ns.find(id)
		if err != nil {
			return err
		}
		out, err = ns.describe(tx, n)
		return err
	})
	return out, err
}

// LayerNodes returns all nodes in the order of their IDs; only those with a record
// when onlyRecords is set.
func (s *Store) LayerNodes(ctx context.Context, onlyRecords bool) ([]LayerNode, error) {
	var out []LayerNode
	err := s.index.View(ctx, func(tx *index.Tx) error {
		out = []LayerNode{}
		ns, err := readNodes(tx)
		if err != nil {
			return err
		}
		for _, n := range ns.nodes {
			if onlyRecords && !n.record {
				continue
			}
			d, err := ns.describe(tx, n)
			if err != nil {
				return err
			}
			out = append(out, *d)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b LayerNode) int { return strings.Compare(a.ID, b.ID) })
	return out, err
}

func (ns *nodeSet) describe(tx *index.Tx, n *node) (*LayerNode, error) {
	out := &LayerNode{LayerRecord: ns.record(n), Record: n.record, Size: -1}
	out.Children = append([]string{}, n.children...)
	out.Images = append([]digest.Digest{}, n.images...)
	out.Containers = append([]string{}, n.containers...)
	if out.DiffID == "" {
		return out, nil
	}
	l, err := tx.Layer(out.DiffID)
	if errors.Is(err, index.ErrNotFound) {
		return out, nil // a damaged store: the size is not known
	}
	out.Size = l.Size
	if !n.record {
		out.Created = l.Created
	}
	return out, err
}

// record returns the record of a node, or one as it would be.
func (ns *nodeSet) record(n *node) index.LayerRecord {
	if r, ok := ns.records[n.id]; ok {
		return r
	}
	r := index.LayerRecord{ID: n.id, Parent: n.parent, Layers: digests(n.layers)}
	r.DiffID = r.Layers[len(r.Layers)-1]
	return r
}

// LayersByDigest returns the layers whose uncompressed tar has the digest, which is
// one at most, or one of whose compressed forms has it.
func (s *Store) LayersByDigest(ctx context.Context, d digest.Digest) ([]LayerInfo, error) {
	if _, err := parseDigest(string(d)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidName, err)
	}
	out := []LayerInfo{}
	err := s.index.View(ctx, func(tx *index.Tx) error {
		users, err := layerUsers(tx)
		if err != nil {
			return err
		}
		return tx.EachLayer(func(l index.Layer) error {
			if l.DiffID == d || slices.ContainsFunc(l.Blobs, func(b ocispec.Descriptor) bool { return b.Digest == d }) {
				out = append(out, LayerInfo{Layer: l, Images: users[l.DiffID]})
			}
			return nil
		})
	})
	return out, err
}

// DeleteLayer removes a layer record, and its layer when nothing else needs it. It
// returns ErrLayerHasChildren, ErrLayerUsedByImage or ErrLayerUsedByContainer, or
// ErrInUse when a lease holds it. A node without a record only goes with the image or
// container that it follows from.
func (s *Store) DeleteLayer(ctx context.Context, id string, dryRun bool) (*Removed, error) {
	return s.remove(ctx, "layer rm", dryRun, 1, func(tx *index.Tx, h *holds, _ int) (*Removed, error) {
		ns, err := readNodes(tx)
		if err != nil {
			return nil, err
		}
		n, _, err := ns.find(id)
		if errors.Is(err, ErrLayerUnknown) {
			return nil, ns.whoHas(tx, id, err)
		}
		if err == nil {
			err = ns.unused(n)
		}
		if err != nil {
			return nil, err
		}
		if l := h.records[sumOf(digest.NewDigestFromEncoded(digest.SHA256, n.id))]; l != nil {
			return nil, fmt.Errorf("%w: layer %.12s is held by the lease of %s; wait for it, or end it", ErrInUse, n.id, l)
		}
		return dropRecord(tx, h, ns.records[n.id])
	})
}

// whoHas says who uses a layer that was named by its DiffID.
func (ns *nodeSet) whoHas(tx *index.Tx, id string, unknown error) error {
	l, err := resolveLayer(tx, strings.TrimPrefix(id, "sha256:"))
	if err != nil {
		return unknown
	}
	sum := sumOf(l.DiffID)
	var users []error
	for _, n := range ns.nodes {
		if !n.diff || len(n.layers) == 0 || n.layers[len(n.layers)-1] != sum {
			continue
		}
		err := ns.unused(n)
		if err == nil {
			err = fmt.Errorf("%w: it is the content of the layer record %.12s; remove that", ErrInUse, n.id)
		}
		users = append(users, err)
	}
	for _, kind := range []error{ErrLayerUsedByImage, ErrLayerUsedByContainer, ErrInUse} {
		for _, err := range users {
			if errors.Is(err, kind) {
				return err
			}
		}
	}
	return unknown
}

func dropRecord(tx *index.Tx, h *holds, r index.LayerRecord) (*Removed, error) {
	out := &Removed{Records: []string{r.ID}}
	if err := tx.DeleteLayerRecord(r.ID); err != nil {
		return nil, err
	}
	if err := tx.DeleteAllData(index.Owner{Kind: index.KindLayer, ID: r.ID}); err != nil {
		return nil, err
	}
	return out, dropLayers(tx, h, r.Layers, out)
}

// noRecords reports whether there is no layer record at all, as in most stores.
func noRecords(tx *index.Tx) (bool, error) {
	err := tx.EachHead(index.HeadLayerRecords, func([]byte, index.Head) error { return errStop })
	if errors.Is(err, errStop) {
		return false, nil
	}
	return true, err
}

// dropRecords removes, from the top down, the layer records that an image which has
// just been removed was made from and that nothing else needs.
func dropRecords(tx *index.Tx, h *holds, img index.Image, out *Removed) error {
	if none, err := noRecords(tx); none || err != nil {
		return err
	}
	ns, err := readNodes(tx)
	if err != nil {
		return err
	}
	top := img.TopLayer
	if top == "" {
		top = ns.chain(sums(img.Layers))
	}
	for n := ns.nodes[top]; n != nil; n = ns.nodes[top] {
		top = n.parent
		if !n.record {
			if len(n.children) > 0 {
				return nil
			}
			continue
		}
		if ns.unused(n) != nil || h.records[sumOf(digest.NewDigestFromEncoded(digest.SHA256, n.id))] != nil {
			return nil
		}
		r, err := dropRecord(tx, h, ns.records[n.id])
		if err != nil {
			return err
		}
		out.add(r)
		if ns, err = readNodes(tx); err != nil {
			return err
		}
	}
	return nil
}
