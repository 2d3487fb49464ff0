package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/layers"
)

// list returns the images that are to be shown, before their names are looked at.
func (o *imagesOptions) list(ctx context.Context, st *layers.Store) ([]layers.Image, error) {
	read := st.Images
	if o.layer != "" {
		read = func(ctx context.Context) ([]layers.Image, error) { return st.ImagesByTopLayer(ctx, o.layer) }
	}
	all, err := read(ctx)
	if err != nil || !o.heads {
		return all, err
	}
	f, err := st.Family(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(img layers.Image) bool { return !slices.Contains(f.Heads, img.ID) }), nil
}

// printTree shows every image below the one that it stands on. Where only some are
// to be shown they stand below the nearest of those.
func (o *imagesOptions) printTree(ctx context.Context, all []layers.Image, st *layers.Store) error {
	f, err := st.Family(ctx)
	if err != nil {
		return err
	}
	shown := map[digest.Digest]layers.Image{}
	for _, img := range all {
		if len(o.lines(img)) > 0 {
			shown[img.ID] = img
		}
	}
	children := map[digest.Digest][]layers.Image{}
	for _, img := range all {
		if _, ok := shown[img.ID]; !ok {
			continue
		}
		var parent digest.Digest
		for _, a := range f.Ancestors(img.ID) {
			if _, ok := shown[a]; ok {
				parent = a
				break
			}
		}
		children[parent] = append(children[parent], img)
	}
	return o.printBranch(children, "", "")
}

func (o *imagesOptions) printBranch(children map[digest.Digest][]layers.Image, id digest.Digest, indent string) error {
	list := children[id]
	for i, img := range list {
		stem, below := "├── ", "│   "
		if i == len(list)-1 {
			stem, below = "└── ", "    "
		}
		if id == "" {
			stem, below = "", ""
		}
		name := "<none>"
		for j, l := range o.lines(img) {
			if l.Repository == "<none>" {
				break
			}
			if j == 0 {
				name = ""
			} else {
				name += ", "
			}
			name += l.Repository + ":" + l.Tag
		}
		if _, err := fmt.Fprintf(o.out, "%s%s%s %s (%s, %s)\n", indent, stem, short(string(img.ID), o.noTrunc), printable(name),
			count(int64(len(img.Layers)), "layer"), size(img.Size)); err != nil {
			return err
		}
		if err := o.printBranch(children, img.ID, indent+below); err != nil {
			return err
		}
	}
	return nil
}
