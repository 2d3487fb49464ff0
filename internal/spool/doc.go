// Package spool keeps growing arrays, byte strings and maps of fixed-size
// records outside the garbage-collected heap, so that the memory of an import
// does not grow with the number of files in an image.
//
// A spool starts as a small piece of heap. Beyond 256 KiB it moves into an
// unlinked temporary file that is mapped shared: the kernel may write its pages
// out and drop them, and nothing is left behind when the process dies. The file
// is grown with fallocate, so a full disk is an error of the call that needed
// the space, never a SIGBUS.
//
// Record types hold no pointers; a constructor panics when given one that does.
//
// Whatever At, Slice, Get and Each hand out points into the mapping and is
// invalid after the next Append, Put or Close of the same spool: growing moves
// the mapping. A spool is not safe for concurrent use.
package spool
