package tarsplit

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestLawStandardLibrary(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(runtime.GOROOT(), "src/archive/tar/testdata/*"))
	if len(files) == 0 {
		t.Skip("the Go toolchain has no source of archive/tar")
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			checkLaw(t, data)
		})
	}
}
