package layers

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// What a mount shows of a container is what the calls return.
func TestContainerShow(t *testing.T) {
	s := newStore(t)
	img := load(t, s, image(t, archive(t, file("old", "o"))), "app:1")
	c := create(t, s, ContainerOptions{Image: "app:1", Names: []string{"c"}})
	if err := os.WriteFile(filepath.Join(s.UpperPath(c.ID), "new"), []byte("n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := s.ChangesText(t.Context(), c.ID); err != nil || string(text) != "A /new\n" {
		t.Errorf("changes %q, %v", text, err)
	}
	var want bytes.Buffer
	if _, err := s.Diff(t.Context(), &want, "c", ""); err != nil {
		t.Fatal(err)
	}
	f, err := s.DiffFile(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("diff of %d bytes, %v", len(got), err)
	}
	config, err := s.Blob(img.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.ContainerConfig(c); err != nil || !bytes.Equal(got, config) {
		t.Errorf("config %q, %v", got, err)
	}
	if _, err := s.DiffFile(t.Context(), "absent"); err == nil {
		t.Error("a diff of nothing")
	}
}
