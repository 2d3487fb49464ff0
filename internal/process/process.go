// Package process tells what state another process is in.
package process

import (
	"bytes"
	"fmt"
	"os"
	"time"
)

// dyingWait is how long a process that was killed may take to let go of its files.
const dyingWait = 5 * time.Second

// Dying reports whether the first thread of a process has ended, as everybody sees it
// who looks for the process, while others of its threads may still hold its files and
// locks: its state, the field behind the name in parentheses, is Z (zombie) or X (dead),
// see proc_pid_stat(5).
func Dying(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false // gone, or of another PID namespace
	}
	rest := bytes.TrimLeft(stat[bytes.LastIndexByte(stat, ')')+1:], " ")
	return len(rest) > 0 && (rest[0] == 'Z' || rest[0] == 'X')
}

// Await calls holder until it says that nobody holds something any more, or that a
// process does that lives; it gives up on one that does not get done with dying.
func Await(holder func() (pid int, held bool)) {
	for end := time.Now().Add(dyingWait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if pid, held := holder(); !held || !Dying(pid) {
			return
		}
	}
}
