package main

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// createFiles makes 10,000 files of 100 bytes and removes them.
func createFiles(args []string) error {
	dir := filepath.Join(args[0], "bench-create")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	text := make([]byte, 100)
	start := time.Now()
	for i := range 10_000 {
		fd, err := unix.Open(fmt.Sprintf("%s/%d", dir, i), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, text); err != nil {
			return err
		}
		unix.Close(fd)
	}
	for i := range 10_000 {
		if err := unix.Unlink(fmt.Sprintf("%s/%d", dir, i)); err != nil {
			return err
		}
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return nil
}

// renameFiles renames one file 10,000 times.
func renameFiles(args []string) error {
	from, to := filepath.Join(args[0], "bench-a"), filepath.Join(args[0], "bench-b")
	if err := os.WriteFile(from, []byte("x"), 0o644); err != nil {
		return err
	}
	start := time.Now()
	for range 10_000 {
		if err := unix.Rename(from, to); err != nil {
			return err
		}
		from, to = to, from
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return nil
}

// seqWrite writes 1 GiB, 1 MiB at a time.
func seqWrite(args []string) error {
	f, err := os.Create(filepath.Join(args[0], "bench-seq"))
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	start := time.Now()
	for range 1024 {
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return nil
}

// randWrite writes 4 KiB at 500 places of a file of 16 MiB, each with an fsync.
func randWrite(args []string) error {
	f, err := os.Create(filepath.Join(args[0], "bench-rand"))
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 4<<10)
	const blocks = 4096
	if _, err := f.WriteAt(buf, blocks*4<<10); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	r := rand.New(rand.NewSource(1))
	start := time.Now()
	for range 500 {
		if _, err := f.WriteAt(buf, int64(r.Intn(blocks))*4<<10); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return nil
}

// appendLines appends 20,000 lines to a file, a write each.
func appendLines(args []string) error {
	f, err := os.OpenFile(filepath.Join(args[0], "bench-append"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	line := []byte("2026-01-02T03:04:05Z a line of a log file that is as long as such lines are, more or less\n")
	start := time.Now()
	for range 20_000 {
		if _, err := f.Write(line); err != nil {
			return err
		}
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return nil
}

// readSub is readAll of a directory in a tree.
func readSub(args []string) error { return readAll([]string{filepath.Join(args[0], args[2])}) }

// chmod changes the mode of one file.
func chmod(args []string) error {
	name := filepath.Join(args[0], args[1])
	start := time.Now()
	if err := unix.Chmod(name, 0o640); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return nil
}
