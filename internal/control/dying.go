package control

import "github.com/layerfs/layerfs/internal/process"

// AwaitDying returns when the process that serves mountpoint lives, or is gone. A
// killed one keeps its locks, and its mount, until the last of its threads has ended,
// which may be a moment after everybody sees it dead.
func (r *Registry) AwaitDying(mountpoint string) {
	process.Await(func() (int, bool) {
		rec, err := r.Find(mountpoint)
		return rec.PID, err == nil
	})
}
