package spool

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestWriteZeros checks what is used where fallocate does not work.
func TestWriteZeros(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeZeros(f, 1000, 600_000); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(got, make([]byte, 601_000)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
