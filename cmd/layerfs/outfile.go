package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// writeOutput calls write with the file at path, or with out when path is empty or
// "-". A file appears under its name when all of it has been written; after an
// error what was there before is still there.
func writeOutput(path string, out io.Writer, write func(io.Writer) error) (err error) {
	if path == "" || path == "-" {
		return write(out)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return usagef("%s is a directory; name a file", path)
		}
		return writeDevice(path, write)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fileError(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(f.Close()), os.Remove(f.Name()))
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o666 &^ umask()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// writeDevice writes to what must not be replaced, such as /dev/null or a FIFO.
func writeDevice(path string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fileError(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
