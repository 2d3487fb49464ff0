package main

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Every profile is written, as pprof reads it.
func TestProfiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "profiles")
	stop, err := startProfiles(dir, "load")
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"cpu"}, profiles...) {
		found, err := filepath.Glob(filepath.Join(dir, "load-*."+name+".pprof"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %q, %v", name, found, err)
		}
		f, err := os.Open(found[0])
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatalf("%s: %v", found[0], err)
		}
		if n, err := io.Copy(io.Discard, z); err != nil || n == 0 {
			t.Errorf("%s: %d bytes, %v", found[0], n, err)
		}
		f.Close()
	}
}

func TestVerbOf(t *testing.T) {
	known := func(s string) bool { return s == "load" || s == "mount" }
	for want, args := range map[string][]string{
		"load":    {"layerfs", "--root", "/x", "load", "-i", "mount"},
		"mount":   {"layerfs", "mount", "/x"},
		"layerfs": {"layerfs", "--version"},
	} {
		if got := verbOf(args, known); got != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
	if got := verbOf(nil, known); got != "layerfs" {
		t.Errorf("nothing: %q", got)
	}
}
