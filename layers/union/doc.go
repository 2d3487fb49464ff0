// Package union stacks the trees of layers into the one tree that an image shows,
// by the rules of kernel overlayfs: a name is looked up from the top layer down,
// what is no directory ends the search, a whiteout ends it without a result, and
// directories of one name are merged until something that is no directory, a
// whiteout or an opaque directory. Two things differ: an opaque root hides the
// layers below, as image-spec layer.md has it, where overlayfs never looks for the
// mark; and a whiteout is never listed, where overlayfs lists one that hides nothing.
//
// Nothing is computed when a [Stack] is made and nothing is kept per file: every
// answer comes from the tables. What costs more than a binary search, the list of
// the layers that make up a merged directory and the merged list of its names, is
// kept in a [Cache] of bounded size, and can be computed again from a directory's
// number alone, because a kernel remembers numbers longer than a process lives.
//
// # Words
//
// A contributor of a merged directory is a directory of one layer that is part
// of it. The topmost one names the merged directory: it is its [Node], and its
// place in the concatenation of the layers' directories is its [DirID]. The
// topmost contributor that is not implied gives it its attributes.
//
// A single directory has one contributor. So has then everything below it, and
// answers come from that layer's table directly. A border is a single directory
// whose parent is merged; the cache remembers borders to recognise single
// directories by walking up. Layer 0 holds nothing but single directories.
//
// # Links to lower layers
//
// A layer may hold a hard link to a file of a lower layer. Such a name leads to
// the very inode of that layer; a stack that has any finds them all when it is
// first asked for something that depends on it, and gives each linked inode a
// group, so that all its names can share a node with the right number of links.
//
// # Locks
//
// Cache.mu is held for map and list operations only; nothing is called under it.
package union
