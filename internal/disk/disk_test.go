package disk_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/layerfs/layerfs/internal/disk"
)

// recorder notes the operations of a Disk.
type recorder struct {
	mu  sync.Mutex
	ops []string
}

func (r *recorder) disk() *disk.Disk {
	return &disk.Disk{Hook: func(op disk.Op, path string) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		name := filepath.Base(path)
		if disk.IsTemp(name) {
			name = "TEMP"
		}
		r.ops = append(r.ops, fmt.Sprintf("%s %s", op, name))
		return nil
	}}
}

// failing returns a Disk whose n-th operation fails with err, and a function
// that says whether it came to that.
func failing(n int, err error) (*disk.Disk, func() bool) {
	var mu sync.Mutex
	count := 0
	d := &disk.Disk{Hook: func(disk.Op, string) error {
		mu.Lock()
		defer mu.Unlock()
		if count++; count == n {
			return err
		}
		return nil
	}}
	return d, func() bool { mu.Lock(); defer mu.Unlock(); return count >= n }
}

func TestWriteFileOrder(t *testing.T) {
	var r recorder
	dir := t.TempDir()
	path := filepath.Join(dir, "format")
	for _, data := range []string{"old", "new"} {
		if err := r.disk().WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != data {
			t.Errorf("content %q, want %q", got, data)
		}
	}
	once := []string{"create TEMP", "write TEMP", "sync TEMP", "close TEMP", "rename format", "syncdir " + filepath.Base(dir)}
	if want := append(slices.Clone(once), once...); !slices.Equal(r.ops, want) {
		t.Errorf("operations:\n%s\nwant:\n%s", strings.Join(r.ops, "\n"), strings.Join(want, "\n"))
	}
}

func TestWriteNew(t *testing.T) {
	var r recorder
	path := filepath.Join(t.TempDir(), "blob")
	if err := r.disk().WriteNew(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := r.disk().WriteNew(path, []byte("y"), 0o600)
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("second WriteNew: %v, want ErrExist", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "x" {
		t.Errorf("content %q, want x", got)
	}
	if st, _ := os.Stat(path); st.Mode() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if i, j := slices.Index(r.ops, "sync blob"), slices.Index(r.ops, "link blob"); i < 0 || j < i {
		t.Errorf("not synced before linked: %q", r.ops)
	}
}

// TestWriteFaults fails each operation of a write once: the file has the old
// content or the new one, and nothing else is left in the directory.
func TestWriteFaults(t *testing.T) {
	write := map[string]func(d *disk.Disk, path string, data []byte) error{
		"WriteFile": func(d *disk.Disk, path string, data []byte) error { return d.WriteFile(path, data, 0o600) },
		"WriteNew":  func(d *disk.Disk, path string, data []byte) error { return d.WriteNew(path+"2", data, 0o600) },
	}
	for name, fn := range write {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC, fmt.Errorf("%w: %w", disk.ErrShort, syscall.ENOSPC)} {
			for n := 1; ; n++ {
				dir := t.TempDir()
				path := filepath.Join(dir, "file")
				if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
				d, hit := failing(n, fault)
				err := fn(d, path, []byte("new!"))
				if !hit() {
					if err != nil {
						t.Errorf("%s: no fault, and %v", name, err)
					}
					break
				}
				if !errors.Is(err, fault) {
					t.Errorf("%s, operation %d: error %v does not wrap %v", name, n, err, fault)
				}
				entries, _ := os.ReadDir(dir)
				for _, e := range entries {
					got, _ := os.ReadFile(filepath.Join(dir, e.Name()))
					if s := string(got); disk.IsTemp(e.Name()) || s != "old" && s != "new!" {
						t.Errorf("%s, operation %d: %s holds %q", name, n, e.Name(), got)
					}
				}
			}
		}
	}
}

func TestNilDisk(t *testing.T) {
	var d *disk.Disk
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	f, err := d.Create(a, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(a, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second create: %v", err)
	}
	steps := []func() error{
		func() error { _, err := f.WriteAt([]byte("hello"), 3); return err },
		func() error { return f.Truncate(4096) },
		func() error { f.StartWriteback(0, 0); return f.Sync() },
		f.Close,
		func() error { return d.Link(a, b) },
		func() error { return d.Rename(b, a+"2") },
		func() error { return d.Remove(a + "2") },
		func() error { return d.Mkdir(b, 0o700) },
		func() error { return d.MkdirAll(filepath.Join(b, "c", "d"), 0o700) },
		func() error { return d.MkdirAll(filepath.Join(b, "c", "d"), 0o700) },
		func() error { return d.RemoveAll(b) },
		func() error { return d.SyncDir(dir) },
		func() error { return d.SyncMany(dir, slices.Values([]string{a})) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
}

func TestPunch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 3*4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var d *disk.Disk
	ok, err := d.Punch(f, 4096, 4096)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("x", 3*4096)
	if ok {
		want = want[:4096] + strings.Repeat("\x00", 4096) + want[8192:]
	}
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Error("content differs")
	}
}

// TestSyncer checks the choice between syncfs and one fsync each, and that an
// error of any of them comes back.
func TestSyncer(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for i := range 50 {
		p := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	for _, c := range []struct {
		whole bool
		files int
		ops   int
	}{{true, 0, 0}, {true, 1, 1}, {true, 8, 8}, {true, 9, 1}, {true, 50, 1}, {false, 8, 8}, {false, 9, 9}, {false, 50, 50}} {
		var r recorder
		s, err := r.disk().OpenSyncer(dir)
		if err != nil {
			t.Fatal(err)
		}
		s.ForceSyncFS(c.whole)
		if err := s.Files(slices.Values(paths[:c.files])); err != nil {
			t.Error(err)
		}
		if len(r.ops) != c.ops {
			t.Errorf("%+v: %d operations: %q", c, len(r.ops), r.ops)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, whole := range []bool{true, false} {
		for n := 1; ; n++ {
			d, hit := failing(n, syscall.EIO)
			s, err := d.OpenSyncer(dir)
			if err != nil {
				t.Fatal(err)
			}
			s.ForceSyncFS(whole)
			err = s.Dirs(slices.Values(paths))
			s.Close()
			if errors.Is(err, syscall.EIO) != hit() {
				t.Errorf("syncfs %v, operation %d: %v", whole, n, err)
			}
			if !hit() {
				break
			}
		}
	}
}
