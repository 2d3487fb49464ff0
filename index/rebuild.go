package index

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// Rebuilt says what a Rebuild had to go by.
type Rebuilt struct {
	// Journal says that the journal was there, and Whole that nothing was missing in
	// it: then every record is as it was.
	Journal, Whole bool
	// Records were taken over, from the journal or from what can still be read of the
	// old index.
	Records int
	// Lost are records and lines of the journal that cannot be read.
	Lost int
}

// Rebuild makes a new index from the journal and, where that is not whole, from
// what can be read of the old index. Then fn adds what they do not have, such as
// bodies, in as many transactions as it likes. The new index takes the place of the
// old one, which is renamed to aside; an empty aside removes it. Until the end
// everybody else waits.
func (db *DB) Rebuild(ctx context.Context, aside string, fn func(what *Rebuilt, update func(func(*Tx) error) error) error) (*Rebuilt, error) {
	release, err := db.lockExclusive(ctx, "rebuilding the index")
	if err != nil {
		return nil, err
	}
	defer release()
	fresh := &DB{path: db.path + ".rebuild.tmp", timeout: db.timeout}
	if err := os.Remove(fresh.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	defer func() { _ = os.Remove(fresh.path) }() // renamed, or of no use
	out := &Rebuilt{}
	err = fresh.use(&bolt.Options{NoSync: true, FreelistType: bolt.FreelistMapType}, func(b *bolt.DB) error {
		if err := db.refill(b, out); err != nil {
			return err
		}
		if err := fn(out, func(fn func(*Tx) error) error { return commit(b, &Tx{}, fn) }); err != nil {
			return err
		}
		if err := b.Sync(); err != nil {
			return err
		}
		return b.View(func(tx *bolt.Tx) error {
			root, err := rootOf(tx)
			if err != nil {
				return err
			}
			return db.writeBase(&Tx{root: root})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("rebuilding the index: %w", err)
	}
	return out, db.replace(fresh.path, aside)
}

// WriteJournal writes the journal anew from the index.
func (db *DB) WriteJournal(ctx context.Context) error {
	release, err := db.lockExclusive(ctx, "writing the journal")
	if err != nil {
		return err
	}
	defer release()
	return db.use(&bolt.Options{ReadOnly: true}, func(b *bolt.DB) error {
		return b.View(func(tx *bolt.Tx) error {
			root, err := rootOf(tx)
			if err != nil || root == nil {
				return err
			}
			return db.writeBase(&Tx{root: root})
		})
	})
}

// HasJournal reports whether there is a journal: a store of an older layerfs has
// none until it is changed.
func (db *DB) HasJournal() bool {
	_, err := os.Lstat(db.journalPath())
	return err == nil
}

// replace puts the new index into the place of the old one.
func (db *DB) replace(fresh, aside string) error {
	if aside != "" {
		if err := os.Rename(db.path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(fresh, db.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(db.path))
}

// refill takes all records over that can be found.
func (db *DB) refill(b *bolt.DB, out *Rebuilt) error {
	j, err := db.OpenJournal()
	if err == nil {
		defer j.Close()
		out.Journal, out.Whole, out.Lost = true, j.Whole, j.Lost
	} else if !noJournal(err) {
		return err
	}
	t := &Tx{}
	return commit(b, t, func(tx *Tx) error {
		if !out.Whole {
			db.salvage(tx, out)
		}
		if j == nil {
			return tx.afterSlots()
		}
		for _, name := range journaled {
			err := j.each(name, func(key, text []byte) error {
				if !out.Whole && tx.bucket(name).Get(key) != nil {
					return nil // what the index says itself is newer than a line that may not be the last
				}
				return tx.restore(name, key, text, out)
			})
			if err != nil {
				return err
			}
		}
		for name, slot := range j.slots {
			if slot > tx.counter([]byte(name)) {
				if err := tx.setCounter([]byte(name), slot); err != nil {
					return err
				}
			}
		}
		if j.generation > tx.Generation() {
			if err := tx.setCounter(keyGeneration, j.generation); err != nil {
				return err
			}
		}
		return tx.afterSlots()
	})
}

// restore puts back a record, given as the journal has it. One that cannot be
// understood is lost.
func (tx *Tx) restore(bucket, key, text []byte, out *Rebuilt) error {
	put := func(v any, fn func() error) error {
		if json.Unmarshal(text, v) != nil {
			out.Lost++
			return nil
		}
		if c, ok := v.(interface{ check() error }); ok && c.check() != nil {
			out.Lost++
			return nil
		}
		out.Records++
		err := fn()
		if errors.Is(err, ErrExists) { // two states of the index are mixed
			out.Lost++
			return nil
		}
		return err
	}
	switch string(bucket) {
	case string(bucketNames):
		var n Name
		return put(&n, func() error { return tx.PutName(n) })
	case string(bucketImages):
		var img Image
		return put(&img, func() error { return tx.PutImage(img) })
	case string(bucketLayers):
		var l Layer
		return put(&l, func() error { return tx.PutLayer(l) })
	case string(bucketContainers):
		var c Container
		return put(&c, func() error { return tx.PutContainer(c) })
	case string(bucketLayerRecords):
		var r LayerRecord
		return put(&r, func() error { return tx.PutLayerRecord(r) })
	}
	var raw []byte
	return put(&raw, func() error {
		tx.note(bucket, key, raw)
		return tx.bucket(bucket).Put(key, raw)
	})
}

// salvage takes over what can be read of a damaged index, bucket by bucket.
func (db *DB) salvage(tx *Tx, out *Rebuilt) {
	if _, err := os.Lstat(db.path); err != nil {
		return
	}
	for _, name := range journaled {
		_ = db.read(func(old *Tx) error { // where it breaks off, what follows is lost
			b := old.bucket(name)
			if b == nil {
				return nil
			}
			return b.ForEach(func(k, raw []byte) error {
				return tx.restore(name, bytes.Clone(k), journalValue(name, raw), out)
			})
		})
	}
	_ = db.read(func(old *Tx) error {
		for _, key := range append(slotKeys, keyGeneration) {
			if n := old.counter(key); n > tx.counter(key) && n <= MaxSlot {
				_ = tx.setCounter(key, n)
			}
		}
		return nil
	})
}

// slotGap is how many slots are passed over when nobody knows which were given.
const slotGap = 1 << 16

// afterSlots keeps slots from being given again: the counters are at least what the
// records have. Where the journal had no counters a mount may still know slots of
// removed things.
func (tx *Tx) afterSlots() error {
	least := map[string]uint64{}
	most := func(key []byte, slot uint32) { least[string(key)] = max(least[string(key)], uint64(slot)) }
	err := tx.EachName(func(n Name) error { most(keySlotView, n.Slot); return nil })
	if err == nil {
		err = tx.EachImage(func(img Image) error { most(keySlotView, img.Slot); return nil })
	}
	if err == nil {
		err = tx.EachLayer(func(l Layer) error { most(keySlotLayer, l.Slot); return nil })
	}
	if err == nil {
		err = tx.EachContainer(func(c Container) error { most(keySlotContainer, c.Slot); return nil })
	}
	for _, key := range slotKeys {
		n := tx.counter(key)
		if n == 0 {
			n = least[string(key)] + slotGap
		}
		if err == nil && n < least[string(key)] {
			n = least[string(key)]
		}
		if err == nil {
			err = tx.setCounter(key, n)
		}
	}
	return err
}
