package treetest

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// AsUser calls f on a thread of its own that has become another user, and
// returns what f returns. The other threads stay who they are: credentials are
// per thread in Linux. Only root may call it.
func AsUser(uid, gid int, f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// But for the first thread, which never ends, and stands for the process in /proc.
			defer runtime.UnlockOSThread()
			done <- AsUser(uid, gid, f)
			return
		}
		if err := become(uid, gid); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// become changes the calling thread only, unlike the functions of package
// syscall.
func become(uid, gid int) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return fmt.Errorf("setresgid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	return nil
}
