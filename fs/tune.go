package fs

import (
	"runtime"
	"runtime/debug"
)

// Tune adapts the Go runtime to a process whose only work is to serve mounts. Memory: what is allocated is little and
// short-lived, so it is collected early and may not exceed a limit that leaves room for much larger catalogues.
// Scheduling: a thread that waits for the kernel in read(2) may keep its processor for a moment, so there are more
// processors than CPUs; on two CPUs that halves the round trip under load.
func Tune() {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(64 << 20)
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), runtime.NumCPU()+2, 4))
}
