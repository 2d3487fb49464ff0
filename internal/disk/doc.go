// Package disk is the one door through which the store changes files.
//
// Everything that must survive a crash is created, written, synced, renamed
// and removed through a [Disk], so that a test can put a [Disk.Hook] into the
// door: to record the order of operations as reviewed text, and to make the
// n-th operation fail with EIO, ENOSPC or a short write. In the product the
// hook is nil and a call costs what the system call costs.
//
// The words of durability, in the order in which they must happen:
//
//	create    a new file under a temporary name (O_EXCL)
//	write     its bytes
//	sync      the bytes are on the disk: [File.Sync], or [Syncer.Files] for many
//	rename    the final name; readers see the file from here on
//	syncdir   the name is on the disk: [Disk.SyncDir], or [Syncer.Dirs] for many
//
// Reading needs no door: it uses package os directly.
package disk
