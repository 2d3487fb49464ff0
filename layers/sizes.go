package layers

import (
	"encoding/hex"

	"github.com/opencontainers/go-digest"

	"github.com/layerfs/layerfs/index"
)

// Sizes are what the layers of a store take, as their records say: the contents of
// their files, trees and split metadata. A content that two layers have is counted
// with both, but for Stored.
type Sizes struct {
	Layers      int64 `json:"layers"`      // of all layers
	Shared      int64 `json:"shared"`      // of those that several images have
	Unique      int64 `json:"unique"`      // of those that one image has
	Reclaimable int64 `json:"reclaimable"` // of those that only images without a name and a container have, or nobody
	Stored      int64 `json:"stored"`      // file contents counted once, trees and split metadata
}

// layerUse says what needs a layer.
type layerUse struct {
	images int  // images that have it
	kept   bool // by an image with a name or a container, a layer record or a container
}

// readUse computes what needs the layers, from the heads of the records.
func readUse(tx *index.Tx) (map[index.Sum]layerUse, error) {
	named := map[index.Sum]bool{}
	err := tx.EachHead(index.HeadNames, func(_ []byte, n index.Head) error { named[n.Image] = true; return nil })
	if err != nil {
		return nil, err
	}
	use := map[index.Sum]layerUse{}
	keep := func(_ []byte, h index.Head) error {
		for _, sum := range h.Layers {
			u := use[sum]
			u.kept = true
			use[sum] = u
		}
		named[h.Image] = true
		return nil
	}
	if err := tx.EachHead(index.HeadContainers, keep); err != nil {
		return nil, err
	}
	if err := tx.EachHead(index.HeadLayerRecords, keep); err != nil {
		return nil, err
	}
	return use, tx.EachHead(index.HeadImages, func(key []byte, img index.Head) error {
		for i, sum := range img.Layers {
			if contains(img.Layers[:i], sum) {
				continue
			}
			u := use[sum]
			u.images++
			u.kept = u.kept || named[idSum(key)]
			use[sum] = u
		}
		return nil
	})
}

// idSum returns the bytes of the hexadecimal key of a record.
func idSum(key []byte) (sum index.Sum) {
	_, _ = hex.Decode(sum[:], key) // the keys of images are digests
	return sum
}

func contains(sums []index.Sum, sum index.Sum) bool {
	for _, s := range sums {
		if s == sum {
			return true
		}
	}
	return false
}

func (i *Info) addSizes(tx *index.Tx) error {
	use, err := readUse(tx)
	if err != nil {
		return err
	}
	stats, err := tx.BodyStats()
	if err != nil {
		return err
	}
	i.Objects, i.ObjectBytes, i.PackedFiles, i.PackBytes = stats.Objects, stats.ObjectBytes, stats.Packed, stats.PackedBytes
	i.Sizes.Stored = stats.ObjectBytes + stats.PackedBytes
	return tx.EachRawLayer(func(l index.Raw) error {
		f, err := l.Figures()
		if err != nil {
			return err
		}
		i.Layers++
		i.Entries += f.Entries
		i.TarBytes += l.Size
		i.MetaBytes += f.MetaBytes
		n := f.BodyBytes + f.MetaBytes
		i.Sizes.Layers += n
		i.Sizes.Stored += f.MetaBytes
		u := use[sumOf(l.Digest())]
		switch {
		case u.images > 1:
			i.Sizes.Shared += n
		case u.images == 1:
			i.Sizes.Unique += n
		}
		if !u.kept {
			i.Sizes.Reclaimable += n
		}
		return nil
	})
}

// addShares says how much of an image is its own.
func (img *Image) addShares(sizes map[digest.Digest]int64, use map[index.Sum]layerUse) {
	for i, d := range img.Layers {
		img.Size += sizes[d]
		switch {
		case use[sumOf(d)].images > 1:
			img.Shared += sizes[d]
		case !contains(sums(img.Layers[:i]), sumOf(d)):
			img.Unique += sizes[d]
		}
	}
}
