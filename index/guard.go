package index

import (
	"fmt"
	"os"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// use opens the file with the options, calls fn and closes the file. It makes an
// error of a panic or a fault: bbolt maps the file and trusts it, so that on a
// damaged one it panics, or reads beyond its end, and then leaves the file locked.
// Nothing else that runs here maps files, and a program must not die of a disk.
func (db *DB) use(o *bolt.Options, fn func(*bolt.DB) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var file *os.File
	o.Timeout = db.timeout
	o.OpenFile = func(name string, flag int, perm os.FileMode) (f *os.File, err error) {
		file, err = os.OpenFile(name, flag, perm)
		return file, err
	}
	defer func() {
		if r := recover(); r != nil {
			if file != nil {
				// The mapping that bbolt leaves behind would keep the lock.
				_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
				_ = file.Close() // nothing was written through it
			}
			err = fmt.Errorf("%w: %s: %v; run `layerfs check --repair`", ErrDamaged, db.path, r)
		}
	}()
	b, err := bolt.Open(db.path, 0o600, o)
	if err != nil {
		return db.openError(err)
	}
	err = fn(b)
	if cerr := b.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("index: %w", cerr)
	}
	return err
}
