package layers

import (
	"cmp"
	"context"
	"slices"

	"github.com/layerfs/layerfs/internal/blob"
)

// sweepPacks removes packs without a live body and punches holes where dead ones
// lie in others. It goes by what is live, so that a killed collection is completed
// by the next.
//
// The order matters: a pack that is listed here belongs to an import that is still
// running, and then its lease says so when it is read next; or the import has ended,
// and then all its bodies are in the index when that is read last. What is dead in
// an old pack stays dead: an import puts bodies into its own pack only.
func (c *collection) sweepPacks(ctx context.Context) error {
	sizes := map[blob.PackID]int64{}
	err := c.s.blobs.WalkPacks(func(id blob.PackID, size int64) error {
		sizes[id] = size
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.holds.refresh(); err != nil {
		return err
	}
	for id := range c.holds.packs {
		delete(sizes, id)
	}
	err = c.eachBody(ctx, func(chunk []bodyAt) error { return c.addRanges(chunk, sizes) })
	if err != nil {
		return err
	}
	live := c.ranges.Slice()
	slices.SortFunc(live, func(a, b packRange) int {
		return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.off, b.off))
	})
	for id, size := range sizes {
		if err := ctx.Err(); err != nil {
			return err
		}
		first, _ := slices.BinarySearchFunc(live, id, func(r packRange, id blob.PackID) int { return cmp.Compare(r.pack, id) })
		if err := c.sweepPack(id, size, live[first:]); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) addRanges(chunk []bodyAt, packs map[blob.PackID]int64) error {
	for _, b := range chunk {
		id := blob.PackID(b.body.Pack)
		if _, ok := packs[id]; !ok {
			continue
		}
		if _, ok := c.live.Get(b.sum); c.dryRun && !ok {
			continue // it would be forgotten
		}
		if _, err := c.ranges.Append(packRange{id, b.body.Offset, b.body.Size}); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) sweepPack(id blob.PackID, size int64, live []packRange) error {
	if len(live) > 0 && live[0].pack == id {
		return c.punch(id, size, live)
	}
	n, err := c.s.blobs.PackUsage(id)
	if err != nil {
		return err
	}
	c.out.Packs++
	c.out.Bytes += n
	if c.dryRun {
		return nil
	}
	return c.s.blobs.RemovePack(id)
}

// punch frees the gaps between the live ranges of a pack.
func (c *collection) punch(id blob.PackID, size int64, live []packRange) error {
	var gaps []blob.Range
	var end int64
	for _, r := range live {
		if r.pack != id {
			break
		}
		if r.off > end {
			gaps = append(gaps, blob.Range{Offset: end, Length: r.off - end})
		}
		end = max(end, r.off+r.size)
	}
	if size > end {
		gaps = append(gaps, blob.Range{Offset: end, Length: size - end})
	}
	if len(gaps) == 0 {
		return nil
	}
	free := c.s.blobs.PunchPack
	if c.dryRun {
		free = c.s.blobs.PunchablePack
	}
	freed, err := free(id, gaps)
	c.out.Bytes += freed
	return err
}
