package main

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// interruptible makes reading from a pipe or terminal end with the context: a
// signal must not wait for the program at the other end of the pipe.
func interruptible(ctx context.Context, f *os.File) io.Reader {
	if info, err := f.Stat(); err != nil || info.Mode().IsRegular() {
		return f
	}
	return &pollReader{ctx, f}
}

type pollReader struct {
	ctx context.Context
	f   *os.File
}

// Read waits for input and looks at the context several times a second meanwhile.
func (r *pollReader) Read(p []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(r.f.Fd()), Events: unix.POLLIN}}
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := unix.Poll(fds, 200)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		return r.f.Read(p) // has input, or an error of its own
	}
}
