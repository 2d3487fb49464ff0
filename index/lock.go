package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockPollMin = 100 * time.Microsecond
	lockPollMax = 4 * time.Millisecond
)

// lock takes index.lock, shared or exclusive, and returns what releases it. On a
// store that cannot be written there is nobody to exclude and nothing is locked.
func (db *DB) lock(ctx context.Context, exclusive bool, purpose string) (release func(), err error) {
	flags, how := os.O_RDWR|os.O_CREATE, unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	f, err := os.OpenFile(db.path+".lock", flags, 0o600)
	if err != nil {
		if !exclusive && (errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission)) {
			return db.lockReadOnly()
		}
		return nil, fmt.Errorf("lock of the index: %w", err)
	}
	if err := db.await(ctx, f, how); err != nil {
		f.Close()
		return nil, err
	}
	if exclusive {
		// The text is only read by those who wait; that it may be stale or torn
		// after a kill does no harm.
		if f.Truncate(0) == nil {
			fmt.Fprintf(f, "%d %s", os.Getpid(), purpose)
		}
	}
	return func() { f.Close() }, nil
}

// lockReadOnly shares the lock file of a store that somebody else writes, where
// it can be opened, and goes without where it cannot.
func (db *DB) lockReadOnly() (func(), error) {
	f, err := os.Open(db.path + ".lock")
	if err != nil {
		return func() {}, nil
	}
	if err := db.await(context.Background(), f, unix.LOCK_SH); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// await polls for the lock: flock(2) cannot be given a deadline, and a poll every
// few milliseconds is far below what anybody notices.
func (db *DB) await(ctx context.Context, f *os.File, how int) error {
	deadline := time.Now().Add(db.timeout)
	for wait := lockPollMin; ; wait = min(2*wait, lockPollMax) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock of the index: %w", err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s has held the index for more than %v; wait for it, or stop it",
				ErrBusy, holder(f), db.timeout)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// holder names the process that wrote itself into the lock file.
func holder(f *os.File) string {
	buf := make([]byte, 256)
	n, err := f.ReadAt(buf, 0)
	pid, purpose, ok := strings.Cut(string(buf[:n]), " ")
	if err != nil && !errors.Is(err, io.EOF) || !ok {
		return "another process"
	}
	return fmt.Sprintf("process %s (%s)", pid, purpose)
}
