package index

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestCompact fills an index, empties it and compacts it, while readers go on.
func TestCompact(t *testing.T) {
	db := open(t)
	const n = 40_000
	fill := func(add bool) {
		for from := 0; from < n; from += 10_000 {
			mustUpdate(t, db, func(tx *Tx) error {
				for i := from; i < from+10_000; i++ {
					sum := Sum{byte(i >> 16), byte(i >> 8), byte(i)}
					var err error
					if add {
						_, err = tx.AddBody(sum, Body{Pack: 1, Offset: int64(i), Size: 3})
					} else if i%100 != 0 {
						err = tx.DeleteBody(sum)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	mustUpdate(t, db, sample)
	fill(true)
	if freed, err := db.Compact(t.Context(), CompactMin); freed != 0 || err != nil {
		t.Fatalf("a full index was compacted by %d, %v", freed, err)
	}
	fill(false)
	before := size(t, db)
	want := dump(t, db)
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var worst time.Duration
		for {
			select {
			case <-stop:
				longest <- worst
				return
			default:
			}
			start := time.Now()
			if err := db.View(t.Context(), func(tx *Tx) error { _, err := tx.Name("docker.io/library/x:1"); return err }); err != nil {
				t.Error(err)
			}
			worst = max(worst, time.Since(start))
		}
	}()
	freed, err := db.Compact(t.Context(), CompactMin)
	close(stop)
	t.Logf("readers waited at most %v", <-longest)
	if err != nil || before-size(t, db) != freed || size(t, db) > before/10 {
		t.Fatalf("%d bytes became %d, freed %d, %v", before, size(t, db), freed, err)
	}
	if got := dump(t, db); got != want {
		t.Error("the compacted index says something else")
	}
	mustUpdate(t, db, func(tx *Tx) error {
		if s, err := tx.BodyStats(); err != nil || s.Packed != n/100+1 {
			t.Errorf("got %+v, %v", s, err)
		}
		return tx.DeleteName("docker.io/library/x:1")
	})
	if left, _ := os.ReadDir(strings.TrimSuffix(db.Path(), "/index.db")); len(left) != 3 { // the index, its lock, the journal
		t.Errorf("left behind: %v", left)
	}
}

func size(t *testing.T, db *DB) int64 {
	t.Helper()
	info, err := os.Stat(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func dump(t *testing.T, db *DB) string {
	t.Helper()
	var b strings.Builder
	if err := db.Dump(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
