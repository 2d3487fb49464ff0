package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/internal/disk"
)

// ContainerDirectory returns a directory for whatever the caller wants to keep with
// a container; it goes when the container goes.
func (s *Store) ContainerDirectory(ctx context.Context, nameOrID string) (string, error) {
	c, err := s.Container(ctx, nameOrID)
	if err != nil {
		return "", err
	}
	return filepath.Join(s.containerDir(c.ID), userDir), nil
}

// ContainerRunDirectory returns, and makes, a directory that is gone after a reboot,
// and with the container. The store must have been opened with a RunRoot.
func (s *Store) ContainerRunDirectory(ctx context.Context, nameOrID string) (string, error) {
	c, err := s.Container(ctx, nameOrID)
	if err != nil {
		return "", err
	}
	if s.runRoot == "" {
		return "", fmt.Errorf("container %s: the store was opened without a directory for temporary things", c.Name())
	}
	if err := s.forgetOtherBoots(); err != nil {
		return "", fmt.Errorf("container %s: %w", c.Name(), err)
	}
	dir := s.runDir(c.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("container %s: %w", c.Name(), err)
	}
	return dir, nil
}

// runDir has the boot in its path, because runroot may lie on a disk.
func (s *Store) runDir(id string) string {
	return filepath.Join(s.runRoot, "containers", bootID(), id)
}

func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "boot" // without /proc; a runroot on tmpfs is still empty after a reboot
	}
	return strings.TrimSpace(string(raw))
}

// forgetOtherBoots removes what earlier boots have left.
func (s *Store) forgetOtherBoots() error {
	dir := filepath.Join(s.runRoot, "containers")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != bootID() {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

func (s *Store) removeRunDir(id string) error {
	if s.runRoot == "" {
		return nil
	}
	return os.RemoveAll(s.runDir(id))
}

// checkFileName keeps the name of a small file one name.
func checkFileName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") || disk.IsTemp(name) {
		return fmt.Errorf("%w: %q is no name of a file in a container's directory", ErrInvalidName, name)
	}
	return nil
}

// directoryOf returns one of the two directories of a container.
func (s *Store) directoryOf(ctx context.Context, nameOrID string, run bool) (string, error) {
	if run {
		return s.ContainerRunDirectory(ctx, nameOrID)
	}
	return s.ContainerDirectory(ctx, nameOrID)
}

// maxSmallFile limits what is read into memory at once.
const maxSmallFile = 16 << 20

// SetContainerFile writes a small file into the directory of a container, or with
// run into the one that is gone after a reboot: all of it or, after an error, none.
// What had the name before is replaced, also when it is a symbolic link.
func (s *Store) SetContainerFile(ctx context.Context, nameOrID string, run bool, name string, r io.Reader) error {
	if err := s.writable(); err != nil {
		return err
	}
	if err := checkFileName(name); err != nil {
		return err
	}
	dir, err := s.directoryOf(ctx, nameOrID, run)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxSmallFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxSmallFile {
		return fmt.Errorf("%w: a file of a container's directory has at most %d bytes; write larger ones to %s yourself", ErrTooLarge, maxSmallFile, dir)
	}
	return s.disk.WriteFile(filepath.Join(dir, name), data, 0o600)
}

// ContainerFile reads a small file from the directory of a container. What is no
// regular file, such as a symbolic link, is fs.ErrInvalid.
func (s *Store) ContainerFile(ctx context.Context, nameOrID string, run bool, name string) ([]byte, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	dir, err := s.directoryOf(ctx, nameOrID, run)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fs.ErrInvalid}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSmallFile))
}

// RemoveContainerFile removes a small file of a container.
func (s *Store) RemoveContainerFile(ctx context.Context, nameOrID string, run bool, name string) error {
	if err := s.writable(); err != nil {
		return err
	}
	if err := checkFileName(name); err != nil {
		return err
	}
	dir, err := s.directoryOf(ctx, nameOrID, run)
	if err != nil {
		return err
	}
	return s.disk.Remove(filepath.Join(dir, name))
}

// ContainerFiles lists the names in the directory of a container, in byte order.
func (s *Store) ContainerFiles(ctx context.Context, nameOrID string, run bool) ([]string, error) {
	dir, err := s.directoryOf(ctx, nameOrID, run)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	names := []string{}
	for _, e := range entries {
		if !disk.IsTemp(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}
