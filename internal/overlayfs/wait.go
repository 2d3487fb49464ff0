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
	table, err := os.Open("/proc/self/mounts")
	if err != nil {
		return err
	}
	defer table.Close()
	for {
		ours, err := Ours(dir)
		if err != nil || !ours {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// The kernel wakes who polls the table when it changes (proc_pid_mounts(5)).
		fds := []unix.PollFd{{Fd: int32(table.Fd()), Events: unix.POLLPRI}}
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
