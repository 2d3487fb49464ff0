package control

import (
	"bytes"
	"fmt"
	"os"
	"time"
)

// dyingWait is how long a process that was killed may take to let go of its files.
const dyingWait = 5 * time.Second

// AwaitDying returns when the process that serves mountpoint lives, or is gone. A
// killed one keeps its locks, and its mount, until the last of its threads has ended,
// which may be a moment after everybody sees it dead.
func (r *Registry) AwaitDying(mountpoint string) {
	for end := time.Now().Add(dyingWait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		rec, err := r.Find(mountpoint)
		if err != nil || !dying(rec.PID) {
			return
		}
	}
}

// dying reports whether the first thread of a process has ended: its state, the field
// behind the name in parentheses, is Z (zombie) or X (dead), see proc_pid_stat(5).
func dying(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false // gone, or of another PID namespace
	}
	rest := bytes.TrimLeft(stat[bytes.LastIndexByte(stat, ')')+1:], " ")
	return len(rest) > 0 && (rest[0] == 'Z' || rest[0] == 'X')
}
