// Package control is how commands find the processes that serve mounts, and how
// such a process tells the command that started it that its mount answers.
//
// # Records
//
// A serving process keeps one file per mount below the runroot:
//
//	<runroot>/mounts/<32 hex of sha256(mount point)>.json   the [Record]
//
// and holds an exclusive flock on it for as long as it serves. A record without a
// lock is that of a dead process; whoever meets one removes it. So nothing here
// depends on process IDs, which are used again, or on clocks.
//
// A record is written and locked under a temporary name first and then linked to
// its place: who sees it sees all of it, and sees it locked. Linking and removing
// happen under a flock on the directory, held for a few system calls.
//
// # Start
//
// [Spawn] starts the serving process detached from the terminal and waits for its
// answer on a pipe; the other side is [Reply]. Under systemd it also sends the
// READY=1 of sd_notify(3).
package control
