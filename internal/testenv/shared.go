package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Shared returns the directory with the real images and tars, and skips the
// test (or fails it, see Require) when the machine has none.
func Shared(t testing.TB) string {
	t.Helper()
	Require(t, "shared")
	dir, err := sharedDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// ModuleRoot returns the directory that holds the module's go.mod.
func ModuleRoot(t testing.TB) string {
	t.Helper()
	dir, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func sharedDir() (string, error) {
	dir := os.Getenv("LAYERFS_TEST_SHARED")
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(filepath.Dir(root), "shared")
	}
	if _, err := os.Stat(filepath.Join(dir, "images")); err != nil {
		return "", fmt.Errorf("no test images at %s (set LAYERFS_TEST_SHARED)", dir)
	}
	return dir, nil
}

// moduleRoot walks up from the working directory, which go test sets to the
// package's.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
	}
}
