package layers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
	"github.com/layerfs/layerfs/index/tree"
)

// Answers are questions about images that the index and the trees of the layers
// answer: which layer made a path, which images hold a file, what differs between
// two images, what keeps a layer, where the space goes. None of them reads the
// content of a file, and none keeps more in memory than the layers' tables.

// An ImageRef is an image as it is named in an answer.
type ImageRef struct {
	ID    digest.Digest `json:"id"`
	Names []string      `json:"names"`
	// Store is the root of the additional store that has the image; empty for an image
	// of this one.
	Store string `json:"store,omitempty"`
}

// String returns the names of the image, or its ID when it has none.
func (r ImageRef) String() string {
	if len(r.Names) == 0 {
		return string(r.ID)
	}
	return strings.Join(r.Names, ", ")
}

// imageRefs returns all images by their IDs.
func imageRefs(tx *index.Tx) (map[digest.Digest]ImageRef, error) {
	refs := map[digest.Digest]ImageRef{}
	err := tx.EachRawImage(func(img index.Raw) error {
		refs[img.Digest()] = ImageRef{ID: img.Digest(), Names: []string{}}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return refs, tx.EachRawName(func(n index.Raw) error {
		id := descriptor(n.Image, 0).Digest
		if r, ok := refs[id]; ok {
			r.Names = append(r.Names, n.Key)
			refs[id] = r
		}
		return nil
	})
}

// A stackRef is an image with its layers, bottom first.
type stackRef struct {
	ImageRef
	layers []index.Sum
}

// stackRefs returns the images of the store and those of its additional stores that
// it does not have. A name counts where it is found first.
func (s *Store) stackRefs(ctx context.Context) ([]stackRef, error) {
	out, err := readStackRefs(ctx, s, "")
	if err != nil {
		return nil, err
	}
	places, names := map[digest.Digest]int{}, map[string]bool{}
	for _, st := range s.lowers() {
		more, err := readStackRefs(ctx, st, st.Root())
		if err != nil {
			return nil, fmt.Errorf("additional store %s: %w", st.Root(), err)
		}
		for i, r := range out {
			places[r.ID] = i
			for _, n := range r.Names {
				names[n] = true
			}
		}
		for _, r := range more {
			r.Names = slices.DeleteFunc(r.Names, func(n string) bool { return names[n] })
			if i, known := places[r.ID]; known {
				out[i].Names = append(out[i].Names, r.Names...)
				slices.Sort(out[i].Names)
			} else {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// readStackRefs returns the images of one store.
func readStackRefs(ctx context.Context, st lower, root string) (out []stackRef, err error) {
	err = st.view(ctx, func(tx *index.Tx) error {
		out = out[:0]
		refs, err := imageRefs(tx)
		if err != nil {
			return err
		}
		return tx.EachRawImage(func(img index.Raw) error {
			r := stackRef{ImageRef: refs[img.Digest()], layers: img.Layers}
			r.Store = root
			out = append(out, r)
			return nil
		})
	})
	return out, err
}

// A File describes one file of a layer in an answer.
type File struct {
	Kind   string        `json:"kind"` // as find -type has it: f d l c b p s
	Mode   uint32        `json:"mode"` // 07777
	UID    uint32        `json:"uid"`
	GID    uint32        `json:"gid"`
	Size   int64         `json:"size"`
	Mtime  time.Time     `json:"mtime"`
	Target string        `json:"target,omitempty"` // of a symbolic link
	Digest digest.Digest `json:"digest,omitempty"` // of the content of a regular file that is not sparse
}

// kindLetters are the letters of find -type.
var kindLetters = map[tree.Kind]string{
	tree.KindRegular: "f", tree.KindDirectory: "d", tree.KindSymlink: "l", tree.KindChar: "c",
	tree.KindBlock: "b", tree.KindFIFO: "p", tree.KindSocket: "s",
}

// emptyDigest is the digest of no bytes; a file without content has no body.
var emptyDigest = digest.FromBytes(nil)

// describeFile describes an inode of a tree, whose attributes may be those of another.
func describeFile(t *tree.Tree, ino tree.Ino, a tree.Attr) (File, error) {
	f := File{
		Kind: kindLetters[a.Kind], Mode: a.Mode, UID: a.UID, GID: a.GID, Size: a.Size,
		Mtime: time.Unix(a.MtimeSec, int64(a.MtimeNsec)).UTC(),
	}
	switch a.Kind {
	case tree.KindSymlink:
		target, err := t.Symlink(ino)
		f.Target = string(target)
		return f, treeError(err)
	case tree.KindRegular:
		if a.Sparse {
			return f, nil
		}
		b, ok, err := t.Body(ino)
		if ok {
			f.Digest = descriptor(b.Sum, 0).Digest
		} else if err == nil {
			f.Digest = emptyDigest
		}
		return f, treeError(err)
	}
	return f, nil
}

// stackOf finds an image and opens its stack.
func (s *Store) stackOf(ctx context.Context, nameOrID string) (*Image, *Stack, error) {
	img, err := s.Image(ctx, nameOrID)
	if err != nil {
		return nil, nil, err
	}
	stack, err := s.OpenStack(img.DiffIDs())
	return img, stack, err
}
