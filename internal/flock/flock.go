// Package flock takes flock(2) locks. Such a lock belongs to the open file: it is gone
// when that is closed, and with the process.
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pause is how long Wait lets others be between two tries.
const pause = 5 * time.Millisecond

// Try takes the lock for the caller alone; false means that somebody else has it.
func Try(f *os.File) (bool, error) { return try(f, unix.LOCK_EX|unix.LOCK_NB) }

// TryShared takes the lock together with others; false means that somebody has it alone.
func TryShared(f *os.File) (bool, error) { return try(f, unix.LOCK_SH|unix.LOCK_NB) }

// Lock waits for the lock and takes it for the caller alone. It is for locks that are
// held for a moment: nothing but a signal that ends the process ends the waiting.
func Lock(f *os.File) error {
	_, err := try(f, unix.LOCK_EX)
	return err
}

// Shared is Lock together with others.
func Shared(f *os.File) error {
	_, err := try(f, unix.LOCK_SH)
	return err
}

// Unlock gives the lock back, also when other descriptors of the open file are left,
// here or in another process.
func Unlock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// Wait is Lock until the context ends, whose error it then returns.
func Wait(ctx context.Context, f *os.File) error {
	for {
		if ok, err := Try(f); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// TryAt is Try for a file that others may remove or replace: it reports whether the lock
// is the caller's and the file still what lies at path. Only then is the lock worth
// anything.
func TryAt(f *os.File, path string) bool {
	ok, err := Try(f)
	return ok && err == nil && IsAt(f, path)
}

// IsAt reports whether an open file is what lies at path.
func IsAt(f *os.File, path string) bool {
	here, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(here, there)
}

func try(f *os.File, how int) (bool, error) {
	for {
		switch err := unix.Flock(int(f.Fd()), how); {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}
