package layers

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// A nodeSet is every place on top of a stack of layers that can be named: the layer
// records, and all beginnings of the stacks of images, records and containers, which
// have their ChainID for an ID.
type nodeSet struct {
	records map[string]index.LayerRecord
	nodes   map[string]*node
}

// A node is one such place.
type node struct {
	id, parent string
	layers     []index.Sum // the stack
	record     bool        // there is a record
	diff       bool        // it adds a layer to its parent
	children   []string
	images     []digest.Digest // whose top it is
	containers []string        // IDs of those that stand on it
}

// readNodes computes all nodes from the heads of the records: some ten thousand in
// a few milliseconds.
func readNodes(tx *index.Tx) (*nodeSet, error) {
	ns := &nodeSet{records: map[string]index.LayerRecord{}, nodes: map[string]*node{}}
	err := tx.EachLayerRecord(func(r index.LayerRecord) error {
		ns.records[r.ID] = r
		n := ns.get(r.ID)
		n.record, n.parent, n.diff = true, r.Parent, r.DiffID != ""
		n.layers = sums(r.Layers)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range ns.records {
		if _, ok := ns.records[r.Parent]; ok {
			continue
		}
		below := sums(r.Layers)
		if r.DiffID != "" {
			below = below[:len(below)-1]
		}
		ns.chain(below)
	}
	err = tx.EachRawImage(func(raw index.Raw) error {
		top := ns.chain(raw.Layers)
		img, err := ns.topRecord(raw)
		if img != "" {
			top = img
		}
		if top != "" {
			n := ns.get(top)
			n.images = append(n.images, raw.Digest())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = tx.EachRawContainer(func(raw index.Raw) error {
		if top := ns.chain(raw.Layers); top != "" {
			n := ns.get(top)
			n.containers = append(n.containers, raw.Key)
		}
		return nil
	})
	for id, n := range ns.nodes {
		if p := ns.nodes[n.parent]; p != nil {
			p.children = append(p.children, id)
		}
	}
	for _, n := range ns.nodes {
		slices.Sort(n.children)
	}
	return ns, err
}

// topRecord returns the ID of the record that an image was created from. Only where
// there are records can there be one, and only then the image must be decoded.
func (ns *nodeSet) topRecord(raw index.Raw) (string, error) {
	if len(ns.records) == 0 {
		return "", nil
	}
	img, err := raw.DecodeImage()
	if _, ok := ns.records[img.TopLayer]; !ok || err != nil {
		return "", err
	}
	return img.TopLayer, nil
}

func (ns *nodeSet) get(id string) *node {
	n := ns.nodes[id]
	if n == nil {
		n = &node{id: id}
		ns.nodes[id] = n
	}
	return n
}

// chain adds the beginnings of a stack and returns the ID of the whole; that of the
// empty stack is empty.
func (ns *nodeSet) chain(stack []index.Sum) string {
	parent := ""
	var chain ChainID
	for i, sum := range stack {
		chain = chain.push(diffIDOf(sum))
		id := digest.Digest(chain).Encoded()
		n := ns.get(id)
		if n.layers == nil {
			n.layers, n.diff = stack[:i+1], true
			if !n.record {
				n.parent = parent
			}
		}
		parent = id
	}
	return parent
}

func sums(ids []digest.Digest) []index.Sum {
	out := make([]index.Sum, len(ids))
	for i, d := range ids {
		out[i] = sumOf(d)
	}
	return out
}

func digests(stack []index.Sum) []digest.Digest {
	out := make([]digest.Digest, len(stack))
	for i, sum := range stack {
		out[i] = digest.Digest(diffIDOf(sum))
	}
	return out
}

// find finds a node by its ID, by a name of its record, or by an abbreviation of its
// ID that only it has. exact says that it was no abbreviation. It returns
// ErrLayerUnknown or ErrAmbiguous.
func (ns *nodeSet) find(id string) (n *node, exact bool, err error) {
	hex := strings.TrimPrefix(id, "sha256:")
	if n := ns.nodes[hex]; n != nil {
		return n, true, nil
	}
	for _, r := range ns.records {
		if slices.Contains(r.Names, id) {
			return ns.nodes[r.ID], true, nil
		}
	}
	if isHex(hex) && len(hex) >= minPrefix {
		var found []string
		for k := range ns.nodes {
			if strings.HasPrefix(k, hex) {
				found = append(found, k)
			}
		}
		slices.Sort(found)
		switch {
		case len(found) == 1:
			return ns.nodes[found[0]], false, nil
		case len(found) > 1:
			return nil, false, ambiguous(hex, found[:min(len(found), maxCandidates)])
		}
	}
	return nil, false, &unknownError{ErrLayerUnknown, id, "`layerfs layers` lists those that are"}
}

// unused returns an error that says who needs the node.
func (ns *nodeSet) unused(n *node) error {
	short := func(ids []string) string {
		var out []string
		for _, id := range ids[:min(len(ids), maxCandidates)] {
			out = append(out, id[:12])
		}
		return strings.Join(out, ", ")
	}
	switch {
	case len(n.children) > 0:
		return fmt.Errorf("%w: %s is below %s", ErrLayerHasChildren, n.id[:12], short(n.children))
	case len(n.images) > 0:
		var ids []string
		for _, d := range n.images {
			ids = append(ids, d.Encoded())
		}
		return fmt.Errorf("%w: %s is the top of %s; remove the image first", ErrLayerUsedByImage, n.id[:12], short(ids))
	case len(n.containers) > 0:
		return fmt.Errorf("%w: %s is below %s; remove the container first", ErrLayerUsedByContainer, n.id[:12], short(n.containers))
	}
	if !n.record {
		return fmt.Errorf("%w: %s has no record of its own, but records stand on the same layers", ErrLayerHasChildren, n.id[:12])
	}
	return nil
}

// layersNamed returns the layers that an ID stands for: the stack of a layer record,
// whose ID it returns too, or of a ChainID, or one layer by its DiffID.
func (s *Store) layersNamed(ctx context.Context, id string) (record string, ids []DiffID, err error) {
	err = s.index.View(ctx, func(tx *index.Tx) error {
		ns, err := readNodes(tx)
		if err != nil {
			return err
		}
		n, _, nerr := ns.find(id)
		if nerr == nil {
			if n.record {
				record = n.id
			}
			for _, sum := range n.layers {
				ids = append(ids, diffIDOf(sum))
			}
			return nil
		}
		l, err := resolveLayer(tx, strings.TrimPrefix(id, "sha256:"))
		if errors.Is(err, index.ErrNotFound) {
			return nerr
		}
		ids = []DiffID{DiffID(l.DiffID)}
		return err
	})
	return record, ids, err
}

func unknownLayer(err error, id string) error {
	if errors.Is(err, index.ErrNotFound) {
		return &unknownError{ErrLayerUnknown, id, "`layerfs layers` lists those that are"}
	}
	return err
}

func newID() string {
	var raw [32]byte
	randRead(raw[:])
	return hex.EncodeToString(raw[:])
}
