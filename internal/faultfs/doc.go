// Package faultfs is a file system for tests: it lives in memory, is mounted with
// FUSE, writes down every change that is made to it, can make the n-th change fail,
// and can say what would be on the disk had the power failed at any moment.
//
// # Words
//
// A [State] is all that a file system holds. An [Op] is one change of it, or the
// wish that changes be durable. An [FS] is a State that can be mounted and changes,
// with the log of its Ops. A crash image is the State that a power failure leaves.
//
// # Faults
//
// A hook sees every operation that a disk can refuse, before it is done: create,
// write, truncate, fallocate, sync, rename, link, unlink, open, close, and changes of
// attributes. Whatever changes the directory is below the hook, including programs and
// libraries that know nothing of it, such as bbolt.
//
// # Power failures
//
// What was synced is there afterwards. Of what was not, a part may be: see [Model] for
// which, and [Log.Crash] for how much. Neither the order of writes to different files
// nor the wholeness of one write is promised.
package faultfs
