package index

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// FuzzJournal reads a journal of any lines, which have a right checksum where the input asks for it, and all values
// that it claims to have.
func FuzzJournal(f *testing.F) {
	line := []byte(`{"slots":{"layers":3},"changes":[{"bucket":"images","key":"YQ==","value":{"a":1}},{"bucket":"names","key":"","value":null}]}`)
	f.Add([]byte("layerfs journal 1 0000000000000023\n"), line, uint64(1), true)
	f.Add([]byte("layerfs journal 1 ffffffffffffffff\n"), []byte(`{"changes":[{"bucket":"images"}]}`), uint64(1<<63), true)
	f.Add([]byte{}, []byte("\n\n"), uint64(0), false)
	f.Fuzz(func(t *testing.T, head, line []byte, generation uint64, sound bool) {
		text := bytes.Clone(head)
		for range 2 {
			part := bytes.Clone(line)
			if sound {
				part = fmt.Appendf(part, " %016x", generation)
				part = fmt.Appendf(part, " %08x\n", crc32.Checksum(part, castagnoli))
			}
			text = append(text, part...)
		}
		db := &DB{path: filepath.Join(t.TempDir(), "index.db")}
		if err := os.WriteFile(db.journalPath(), text, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := db.OpenJournal()
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v is no %v", err, ErrDamaged)
			}
			return
		}
		defer j.Close()
		for key, place := range j.places {
			value, err := j.value(place)
			if err != nil || !bytes.Contains(text, value) {
				t.Errorf("%v: %q, %v", key, value, err)
			}
		}
		if j.Lost == 0 && j.Whole && len(text) == 0 {
			t.Error("an empty journal is whole")
		}
	})
}
