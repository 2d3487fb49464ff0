package index

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestReadersWaitForOneWriter: whatever number of writers there are, a reader waits
// no longer than for the one that is in, and a second one that was queued before it.
func TestReadersWaitForOneWriter(t *testing.T) {
	db := New(t.TempDir()+"/index.db", time.Minute)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var longest time.Duration
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ctx.Err() == nil; i++ {
				var start time.Time
				err := db.Update(context.Background(), "test", func(tx *Tx) error {
					start = time.Now()
					for j := range 512 {
						var sum Sum
						binary.BigEndian.PutUint32(sum[:], uint32(j*7919+i*4+w))
						if _, err := tx.AddBody(sum, Body{Pack: 1, Size: 1}); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				longest = max(longest, time.Since(start))
				mu.Unlock()
			}
		}()
	}
	var waited []time.Duration
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		start := time.Now()
		if err := db.View(t.Context(), func(*Tx) error { waited = append(waited, time.Since(start)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	var worst time.Duration
	for _, d := range waited {
		worst = max(worst, d)
	}
	t.Logf("%d reads, the longest wait %v; the longest write %v", len(waited), worst, longest)
	if len(waited) < 20 || worst > 2*longest+200*time.Millisecond {
		t.Errorf("%d reads within a second beside four writers; one waited %v, the longest write took %v", len(waited), worst, longest)
	}
}

// TestBusyNamesReader: also who only reads is named, when he does not let go.
func TestBusyNamesReader(t *testing.T) {
	db := New(t.TempDir()+"/index.db", 50*time.Millisecond)
	mustUpdate(t, db, sample)
	err := db.View(t.Context(), func(*Tx) error {
		return db.Update(context.Background(), "second", func(*Tx) error { return nil })
	})
	wantBusy(t, err, "(reading)")
	err = db.Exclude(t.Context(), "first", func(*Tx) error {
		return db.Settle(context.Background())
	})
	wantBusy(t, err, "(first)")
}

func wantBusy(t *testing.T, err error, who string) {
	t.Helper()
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) || !strings.Contains(err.Error(), who) {
		t.Errorf("got %v, want ErrBusy naming process %d %s", err, os.Getpid(), who)
	}
}
