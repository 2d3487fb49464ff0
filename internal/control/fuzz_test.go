package control

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzRecord lists records of mounts that say anything, of a living process and of a dead one.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"mountpoint":"/mnt","pid":1,"store":"/s","driver":"fuse","since":"2024-01-02T03:04:05Z","users":2}`), true)
	f.Add([]byte(`{"mountpoint":"../../x","pid":-1}`), true)
	f.Add([]byte(`[`), false)
	f.Fuzz(func(t *testing.T, raw []byte, alive bool) {
		r := NewRegistry(t.TempDir())
		path := r.path("/mnt")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if alive {
			owner, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer owner.Close()
			if err := unix.Flock(int(owner.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
		}
		list, err := r.Mounts()
		_, statErr := os.Stat(path)
		switch {
		case !alive && (err != nil || len(list) > 0 || statErr == nil):
			t.Errorf("of a dead process: %v, %v; the record is there: %v", list, err, statErr == nil)
		case alive && statErr != nil:
			t.Errorf("the record of a living process was removed: %v", statErr)
		case alive && err == nil && len(list) != 1:
			t.Errorf("%d records, want 1", len(list))
		}
	})
}
