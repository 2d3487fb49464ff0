// Package overlay makes the writable tree of a container: the union of the merged
// tree of its image, which never changes, and an upper directory of the form of
// package upper, which takes all changes. It knows nothing of FUSE: operations name
// nodes by ID and return errors that lead to an errno.
//
// # Words
//
// Below is the merged tree of the image, up the upper directory. To copy a file up
// is to make it there; a metacopy has been copied up without its content. A merged
// directory is there both up and below. A place is a name in a directory that is up.
// A whiteout is a place that hides what is below.
//
// # Nodes
//
// The ID of a file below is computed from what it is, and stays its ID after it was
// copied up: see ID. So nothing is kept for a file that was only looked at. What is
// up and known to the kernel has a node in memory; a file keeps its node after it was
// copied up, because nobody has counted who knew of it before.
//
// A node has one place, although a file may have several names. When that name is
// removed and others are left, or the file is still open, the node keeps a
// descriptor instead.
//
// # Hard links
//
// A file below that has several names is copied up under all of them at once, so that
// they stay names of one file, also for the kernel's overlayfs and for whoever reads
// the upper directory alone. The names that are gone before that are counted in the
// file meta/unlinked, so that the number of links is true.
//
// # What is on the disk when
//
// A change is one system call on the upper directory, or is made ready in the work
// directory and put into its place by one rename. So a killed process leaves the
// state before or after each change. A copied content is synced before the rename;
// everything else is as durable as the host makes it, and fsync is passed on.
//
// # Locks
//
//	node.mu                what the node is: copied up or not, owner, marks. A directory's is taken after that of what is in it
//	  node.place           where it is. One at a time, or a node's and then its parent's; rename takes two in the order of IDs
//	    fds.mu, FS.mu      tables in memory; nothing is called under them
//
// No lock is held for more than one file's work: the copying of a large file holds up
// only who needs that file up.
package overlay
