package control

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func TestCounted(t *testing.T) {
	r := NewRegistry(t.TempDir())
	c, err := r.Counted(t.Context(), "image x")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Users(); n != 0 || err != nil {
		t.Errorf("%d users, %v; want none", n, err)
	}
	dir, err := c.Dir()
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := r.Counted(short, "image x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two have it at once: %v", err)
	}
	other, err := r.Counted(t.Context(), "image y")
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	claim, err := r.Claim(record(dir))
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := c.Users(); n != 1 {
		t.Errorf("%d users, want 1: it lives", n)
	}
	if err := c.SetUsers(3); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if list, err := r.Mounts(); err != nil || len(list) != 1 || list[0].Users != 3 {
		t.Errorf("got %+v, %v; want 3 users", list, err)
	}
	if c, err = r.CountedAt(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if n, _ := c.Users(); n != 3 {
		t.Errorf("%d users, want 3", n)
	}
	c.Close()
	claim.file.Close() // the process is killed
	if c, err = r.Counted(t.Context(), "image x"); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, _ := c.Users(); n != 0 {
		t.Errorf("%d users of a dead mount", n)
	}
	for _, path := range []string{"/mnt", dir + "/x", os.TempDir() + "/counted/x/mnt"} {
		if _, err := r.CountedAt(t.Context(), path); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s: got %v, want ErrNotMounted", path, err)
		}
	}
}
