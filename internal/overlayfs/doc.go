// Package overlayfs mounts the overlay file system of the kernel: one directory to
// read from below, one to write to above. It says where that is possible, and finds
// such mounts again.
package overlayfs
