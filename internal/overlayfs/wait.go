package overlayfs

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Wait returns when no overlay of this package is mounted at dir any more, or with
// the error of ctx.
func Wait(ctx context.Context, dir string) error {
	// Not with os.Open: Go's own poller would watch the file too, and only the first of two who poll the same open
	// file is told of a change.
	table, err := unix.Open("/proc/self/mounts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/proc/self/mounts", Err: err}
	}
	defer unix.Close(table)
	for {
		ours, err := Ours(dir)
		if err != nil || !ours {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// The kernel wakes who polls the table when it changes (proc_pid_mounts(5)).
		fds := []unix.PollFd{{Fd: int32(table), Events: unix.POLLPRI}}
		timeout := -1
		if ctx.Done() != nil {
			timeout = int(pollEvery.Milliseconds())
		}
		if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// pollEvery bounds how late the end of ctx is noticed, if it can end.
const pollEvery = 200 * time.Millisecond
