package main

import (
	"io/fs"
	"sync"
	"syscall"
)

// umask returns the file mode creation mask. The only portable way to read it is to
// set it.
var umask = sync.OnceValue(func() fs.FileMode {
	mask := syscall.Umask(0o077)
	syscall.Umask(mask)
	return fs.FileMode(mask)
})
