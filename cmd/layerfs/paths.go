package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/layerfs/layerfs/internal/config"
	"github.com/layerfs/layerfs/internal/control"
)

// storeRoot is the directory of the store: as configured, or the default.
func (e *env) storeRoot() (string, error) {
	if e.confErr != nil {
		return "", e.confErr
	}
	if dir := e.conf.Get(config.Root).Value(); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/layerfs", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "layerfs"), nil
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local/share/layerfs"), nil
	}
	return "", usagef("neither HOME nor XDG_DATA_HOME is set; say with --root where the store is")
}

// registry is the place of the mount records, below the runroot.
func (e *env) registry() (*control.Registry, error) {
	dir, err := e.runrootDir()
	if err != nil {
		return nil, err
	}
	return control.NewRegistry(dir), nil
}

// runrootDir is as configured, or the default.
func (e *env) runrootDir() (string, error) {
	if e.confErr != nil {
		return "", e.confErr
	}
	if dir := e.conf.Get(config.Runroot).Value(); dir != "" {
		return dir, nil
	}
	if os.Geteuid() == 0 {
		return "/run/layerfs", nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		if _, err := os.Stat(dir); err == nil {
			return filepath.Join(dir, "layerfs"), nil
		}
	}
	return privateTemp(fmt.Sprintf("%s/layerfs-%d", os.TempDir(), os.Geteuid()))
}

// privateTemp makes a directory in a place where everybody may write, and refuses
// one that somebody else has put there.
func privateTemp(dir string) (string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("runroot: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("runroot: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("runroot %s is not a directory of yours alone; choose another with --runroot", dir)
	}
	return dir, nil
}
