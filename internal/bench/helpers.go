package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// helpers are the measurements that run in a process of their own, so that
// starting it does not count: each prints nanoseconds. They use system calls, not
// package os, which adds some of its own to each open.
func helpers() map[string]func([]string) error {
	return map[string]func([]string) error{
		"helper-walk":     walk,
		"helper-readall":  readAll,
		"helper-randstat": randStat,
		"helper-seqread":  seqRead,

		"helper-create":    createFiles,
		"helper-rename":    renameFiles,
		"helper-seqwrite":  seqWrite,
		"helper-randwrite": randWrite,
		"helper-append":    appendLines,
		"helper-readsub":   readSub,
		"helper-chmod":     chmod,
	}
}

// walk stats every file below a directory.
func walk(args []string) error {
	start := time.Now()
	n := 0
	var st unix.Stat_t
	err := filepath.WalkDir(args[0], func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		return unix.Lstat(p, &st)
	})
	fmt.Println(time.Since(start).Nanoseconds(), n)
	return err
}

// paths lists what is below a directory: regular files of at most size bytes, or
// everything when size is negative.
func paths(dir string, size int64) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if size >= 0 {
			if !d.Type().IsRegular() {
				return nil
			}
			if st, err := d.Info(); err != nil || st.Size() > size {
				return err
			}
		}
		list = append(list, p)
		return nil
	})
	return list, err
}

// readAll opens, reads and closes every file of at most 64 KiB below a directory.
// Finding them is not measured.
func readAll(args []string) error {
	list, err := paths(args[0], 64<<10)
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	start := time.Now()
	for _, p := range list {
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: p, Err: err}
		}
		for {
			n, err := unix.Read(fd, buf)
			if err != nil {
				return &os.PathError{Op: "read", Path: p, Err: err}
			}
			if n == 0 {
				break
			}
		}
		unix.Close(fd)
	}
	fmt.Println(time.Since(start).Nanoseconds(), len(list))
	return nil
}

// randStat stats 20,000 files below a directory in an order that is always the
// same and has nothing to do with the tree. Their names come from a second
// directory with the same tree, so that the first is not looked at before.
func randStat(args []string) error {
	dir, names := args[0], args[1]
	list, err := paths(names, -1)
	if err != nil {
		return err
	}
	rand.New(rand.NewSource(1)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	list = list[:min(len(list), 20_000)]
	for i, p := range list {
		rel, err := filepath.Rel(names, p)
		if err != nil {
			return err
		}
		list[i] = filepath.Join(dir, rel)
	}
	var st unix.Stat_t
	start := time.Now()
	for _, p := range list {
		if err := unix.Lstat(p, &st); err != nil && !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "lstat", Path: p, Err: err}
		}
	}
	fmt.Println(time.Since(start).Nanoseconds(), len(list))
	return nil
}

// seqRead reads a file from begin to end, 1 MiB at a time.
func seqRead(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: args[0], Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 1<<20)
	total := 0
	start := time.Now()
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return &os.PathError{Op: "read", Path: args[0], Err: err}
		}
		if n == 0 {
			break
		}
		total += n
	}
	fmt.Println(time.Since(start).Nanoseconds(), total)
	return nil
}
