// Package treetest compares directory trees, and makes the trees that layers
// should look like, by means that share no code with layerfs.
//
// Words:
//
//   - A [Snapshot] is everything a program can learn about a tree with lstat,
//     readdir, readlink, listxattr and read. [Diff] says how two differ.
//   - The oracle is kernel overlayfs over layers that GNU tar unpacked:
//     [ReadArchive] finds the layers of an image with archive/tar and
//     encoding/json, [Extract] unpacks one, [Stack] gives directories that a
//     layer does not list the metadata of the layer below, and [OverlayMount]
//     mounts the stack.
//   - [Merge] is the second oracle, for what overlayfs cannot say: layers are
//     unpacked one over the other into one directory, as umoci does, so that a
//     hard link to a file of a lower layer is one.
//
// Names are bytes: a Go string here need not be UTF-8. Paths are relative to the
// tree's root, which is ".". Trees may be deeper than PATH_MAX; every step is
// taken from a directory descriptor.
package treetest
