package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// Verify reads all of index.db and compares it with the journal. It returns what is
// wrong as errors that wrap ErrDamaged, none when all is well; err says that it
// could not look.
func (db *DB) Verify(ctx context.Context) (problems []error, err error) {
	release, err := db.lockShared(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if info, err := os.Lstat(db.path); err != nil || info.Size() == 0 {
		return db.verifyAbsent()
	}
	err = db.use(&bolt.Options{ReadOnly: true, PreLoadFreelist: true}, func(b *bolt.DB) error {
		return b.View(func(tx *bolt.Tx) error {
			root, err := rootOf(tx)
			if err != nil {
				return err
			}
			t := &Tx{root: root}
			if err := t.verifyOrder(tx); err != nil {
				return err
			}
			// Only after all pages were read in this goroutine, which survives a fault.
			for err := range tx.Check() {
				problems = append(problems, fmt.Errorf("%w: %s: %w", ErrDamaged, db.path, err))
			}
			problems = append(problems, db.compareJournal(t)...)
			return nil
		})
	})
	if errors.Is(err, ErrDamaged) {
		return append(problems, err), nil
	}
	return problems, err
}

// verifyAbsent: an index that is not there is empty, unless the journal says
// otherwise.
func (db *DB) verifyAbsent() ([]error, error) {
	j, err := db.OpenJournal()
	if noJournal(err) {
		return nil, nil
	}
	if err != nil {
		return []error{fmt.Errorf("%w: %w", ErrDamaged, err)}, nil
	}
	defer j.Close()
	if len(j.places) == 0 {
		return nil, nil
	}
	return []error{fmt.Errorf("%w: %s is missing or empty, but the journal has %d records", ErrDamaged, db.path, len(j.places))}, nil
}

// verifyOrder reads every key and value and checks the order of the keys, on which
// look-ups rely, and that every record can be decoded.
func (tx *Tx) verifyOrder(btx *bolt.Tx) error {
	return btx.ForEach(func(_ []byte, b *bolt.Bucket) error { return verifyBucket(b) })
}

func verifyBucket(b *bolt.Bucket) error {
	var last []byte
	sum := byte(0)
	return b.ForEach(func(k, v []byte) error {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("%w: key %q is not in order", ErrDamaged, k)
		}
		last = append(last[:0], k...)
		for _, c := range v { // touches every byte
			sum ^= c
		}
		if v == nil {
			if sub := b.Bucket(k); sub != nil {
				return verifyBucket(sub)
			}
		}
		return nil
	})
}

// compareJournal compares every record with the journal's. A journal of another
// generation has been left behind by a killed writer and will be made good.
func (db *DB) compareJournal(tx *Tx) (problems []error) {
	j, err := db.OpenJournal()
	if noJournal(err) {
		return nil
	}
	if err != nil {
		return []error{fmt.Errorf("%w: %w: %w", ErrDamaged, ErrJournal, err)}
	}
	defer j.Close()
	if !j.Whole && !j.baseLost && j.boot != db.bootID() {
		// Lines that the last power failure has torn; the next change makes it good. The
		// index had every one of them on the disk before.
		return nil
	}
	if !j.Whole {
		return []error{fmt.Errorf("%w: %w: %d lines of it cannot be read", ErrDamaged, ErrJournal, j.Lost)}
	}
	if j.generation != tx.Generation() {
		if j.generation > tx.Generation() {
			problems = append(problems, fmt.Errorf("%w: index.db is older than index.journal: generation %d, not %d",
				ErrDamaged, tx.Generation(), j.generation))
		}
		return problems
	}
	seen := 0
	for _, name := range journaled {
		b := tx.bucket(name)
		if b == nil {
			continue
		}
		err := b.ForEach(func(k, raw []byte) error {
			seen++
			if err := j.same(name, k, raw); err != nil {
				problems = append(problems, err)
			}
			return nil
		})
		if err != nil {
			return append(problems, err)
		}
	}
	if len(problems) == 0 && seen != len(j.places) {
		problems = append(problems, fmt.Errorf("%w: index.db has %d records, but the journal %d", ErrDamaged, seen, len(j.places)))
	}
	return problems
}

// same compares a record with the journal's.
func (j *Journal) same(bucket, key, raw []byte) error {
	p, ok := j.places[journalKey{string(bucket), string(key)}]
	if !ok {
		return fmt.Errorf("%w: record %s/%s is not in the journal", ErrDamaged, bucket, printable(key))
	}
	text, err := j.value(p)
	if err != nil {
		return err
	}
	if !bytes.Equal(text, journalValue(bucket, raw)) {
		return fmt.Errorf("%w: record %s/%s is not what was written", ErrDamaged, bucket, printable(key))
	}
	if textual(bucket) {
		return sameHead(bucket, key, raw)
	}
	return nil
}

// sameHead compares the head of a record with what its text says.
func sameHead(bucket, key, raw []byte) (err error) {
	var want []byte
	switch string(bucket) {
	case string(bucketNames):
		var n Name
		err = decode(bucket, key, raw, &n)
		want = n.head().encode()
	case string(bucketImages):
		var img Image
		err = decode(bucket, key, raw, &img)
		want = img.head().encode()
	case string(bucketLayers):
		var l Layer
		err = decode(bucket, key, raw, &l)
		want = l.head().encode()
	case string(bucketContainers):
		var c Container
		err = decode(bucket, key, raw, &c)
		want = c.head().encode()
	case string(bucketLayerRecords):
		var r LayerRecord
		err = decode(bucket, key, raw, &r)
		want = r.head().encode()
	}
	if err == nil && !bytes.HasPrefix(raw, want) {
		err = fmt.Errorf("%w: record %s/%s: its head and its text differ", ErrDamaged, bucket, printable(key))
	}
	return err
}
