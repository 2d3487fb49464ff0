// Package strace counts the system calls of a program with strace(1), for tests and
// measurements that count instead of timing: a count is the same on a busy machine.
package strace

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// runtimeCalls are what the Go runtime calls by itself, for its threads, timers and
// memory: they depend on the time that something takes, not on what is done.
var runtimeCalls = map[string]bool{
	"futex": true, "nanosleep": true, "clock_nanosleep": true, "sched_yield": true, "epoll_pwait": true, "epoll_ctl": true,
	"madvise": true, "mmap": true, "munmap": true, "mprotect": true, "clone": true, "clone3": true, "exit": true,
	"rt_sigaction": true, "rt_sigprocmask": true, "rt_sigreturn": true, "sigaltstack": true, "tgkill": true, "getpid": true, "gettid": true,
	"restart_syscall": true, "timer_settime": true, "timer_create": true, "timer_delete": true, "rseq": true, "set_robust_list": true,
}

// Count runs cmd under strace, with all of its threads and children, and returns how
// often it made each system call, without those of the Go runtime itself.
func Count(ctx context.Context, cmd *exec.Cmd) (map[string]int, error) {
	out, err := os.CreateTemp("", "layerfs-strace-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(out.Name())
	defer out.Close() // strace writes it
	traced := exec.CommandContext(ctx, "strace", append([]string{"-f", "-qq", "-c", "-U", "name,calls", "-o", out.Name()}, cmd.Args...)...)
	traced.Env, traced.Dir, traced.Stdin, traced.SysProcAttr = cmd.Env, cmd.Dir, cmd.Stdin, cmd.SysProcAttr
	var stderr bytes.Buffer
	traced.Stderr = &stderr
	if err := traced.Run(); err != nil {
		return nil, fmt.Errorf("strace %s: %w: %.500s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	data, err := os.ReadFile(out.Name())
	if err != nil {
		return nil, err
	}
	return parse(string(data))
}

// parse reads the table that strace -c -U name,calls writes.
func parse(table string) (map[string]int, error) {
	counts := map[string]int{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) != 2 || f[0] == "total" || runtimeCalls[f[0]] {
			continue
		}
		if n, err := strconv.Atoi(f[1]); err == nil {
			counts[f[0]] += n
		}
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("strace wrote no counts: %.300q", table)
	}
	return counts, nil
}

// Sum is the number of all system calls.
func Sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
