package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeTarLayer loads a layer with large bodies, small ones and one that occurs twice.
func writeTarLayer(t *testing.T, s *Store) ([]byte, *Layer) {
	t.Helper()
	big := strings.Repeat("0123456789abcdef", 200_000) // 3.2 MB: several pieces
	members := []member{file("small", "s"), file("big", big), file("medium", strings.Repeat("m", 100_000)), file("again", big), file("empty", "")}
	for i := range 3000 { // headers one after the other: more than one group of metadata
		members = append(members, link(fmt.Sprintf("link-%d", i), "small"))
	}
	tar := archive(t, members...)
	l, err := s.OpenLayer(load(t, s, image(t, tar), "x").DiffIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return tar, l
}

func TestWriteTar(t *testing.T) {
	s := newStore(t)
	want, l := writeTarLayer(t, s)
	var buf bytes.Buffer
	if err := l.WriteTar(t.Context(), &buf); err != nil || !bytes.Equal(buf.Bytes(), want) {
		t.Errorf("into memory: %v, %d bytes, want %d", err, buf.Len(), len(want))
	}
	name := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(l.WriteTar(t.Context(), f), f.Close())
	if got, _ := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("into a file: %v, %d bytes, want %d", err, len(got), len(want))
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- errors.Join(l.WriteTar(t.Context(), w), w.Close()) }()
	got, err := io.ReadAll(r)
	if err := errors.Join(err, <-done, r.Close()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("into a pipe: %v, %d bytes, want %d", err, len(got), len(want))
	}
}

// TestWriteTarStops: a reader that goes away and a context that ends are errors, and
// nothing waits for ever.
func TestWriteTarStops(t *testing.T) {
	s := newStore(t)
	_, l := writeTarLayer(t, s)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := l.WriteTar(t.Context(), w); err == nil {
		t.Error("writing into a closed pipe succeeded")
	}
	w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.WriteTar(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}

func TestWriteTarDamaged(t *testing.T) {
	for name, damage := range map[string]func(f *os.File) error{
		"a byte":    func(f *os.File) error { _, err := f.WriteAt([]byte{'X'}, 70_000); return err },
		"truncated": func(f *os.File) error { return f.Truncate(70_000) },
	} {
		s, err := Open(filepath.Join(t.TempDir(), "store"), nil) // not one that must be clean in the end
		if err != nil {
			t.Fatal(err)
		}
		_, l := writeTarLayer(t, s)
		err = filepath.WalkDir(filepath.Join(s.root, "objects"), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if err := os.Chmod(path, 0o600); err != nil {
				return err
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			return errors.Join(damage(f), f.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.WriteTar(t.Context(), io.Discard); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, want ErrDamaged", name, err)
		}
		l.Close()
		s.Close()
	}
}
