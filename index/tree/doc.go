// Package tree keeps the directory tree of one layer in a table that is written
// once and then only mapped: any number of processes read it at the same time,
// without locks, without a cache of their own and without memory per file.
//
// A [Builder] plays the members of a layer's tar in their order and writes the
// table; a [Tree] reads it. A layer alone is meant here: whiteouts and opaque
// directories are kept as such, and a hard link to a file of a lower layer is
// kept as a path. Package layers/union stacks trees.
//
// # The file
//
// All numbers are little endian. Sections begin at multiples of eight bytes, in
// this order, without anything between them but zeros:
//
//	header    512 B  magic, version, counts, section table, CRC-32C of the header
//	inodes    48 B   per inode; directories first
//	dirents   12 B   per name; the names of a directory lie together, sorted
//	names            the bytes of the names; equal names share them where cheap
//	targets          the bytes of symbolic link targets
//	xattrs           sets of extended attributes, each set once
//	sparse           maps of sparse files
//	bodies    48 B   per distinct body of the layer's tar, sorted by digest; also
//	                 of those that no file of the tree shows
//	packs     8 B    the packs that bodies lie in
//	links     16 B   per hard link to a lower layer's file
//	paths            the bytes of the paths of those files
//	footer    64 B   CRC-32C of every section, CRC-32C of the footer, magic
//
// An inode record:
//
//	 0  size   u64   regular: logical size; symlink: length of the target;
//	                 device: major<<32 | minor; directory: end<<32 | first
//	 8  sec    i64   modification time
//	16  nsec   u32
//	20  uid    u32
//	24  gid    u32
//	28  nlink  u32
//	32  mode   u16   07777
//	34  kind   u8
//	35  flags  u8    1 implied, 2 opaque, 4 special, 8 sparse
//	36  xattrs u32   0: none, else 1 + offset of the set in xattrs
//	40  ref    u32   regular: 0: no body, else 1 + body; symlink: offset in
//	                 targets; directory: number of the parent
//	44  aux    u32   sparse: offset of the map in sparse, in units of 8 bytes;
//	                 directory: number of the dirent that names it
//
// Directories are numbered as a walk in the order of names meets them, parents
// first, so that everything below directory d has the numbers d+1 to end-1. The
// dirents of directory d are those from d's first to the first of directory
// d+1; they are in the order of the directories. Other inodes are numbered in
// the order of their first dirent; copies of lower files come last.
//
// "special" says that a directory holds whiteouts or links to lower files.
//
// A dirent record:
//
//	 0  name   u32   offset in names
//	 4  ino    u32   inode; KindLink: number of the link; KindWhiteout: 0
//	 8  len    u8    length of the name
//	 9  kind   u8    as in the inode, or KindWhiteout or KindLink
//	10  flags  u8    directory: 2 when it is opaque, as in its inode
//	11         u8    0
//
// A body record: sum [32], then two u64: size in the low 48 bits with the low
// half of the pack's number above it, offset in the low 48 bits with the high
// half above it. Pack 0 is no pack: the body is an object named by its digest.
//
// A link record: offset of the path in paths, length of the path, number of
// names in this layer, 0 or 1 + inode of the copy, all u32.
//
// A set of extended attributes: u32 count, then for each, sorted by name: u16
// length of the name, u32 length of the value, name, value.
//
// A sparse map: u64 count, then for each extent that holds data: logical offset,
// length and offset in the body, all u64.
//
// # What is checked when
//
// [Open] checks the header and that the sections lie inside the file. Everything
// else is checked where it is used: a damaged table gives [ErrDamaged], never a
// panic. [Tree.Verify] reads the whole file and compares the checksums, which
// find accidents, not attackers: the table is derived from the layer's own tar
// and can be built again from it.
//
// A table that another process truncates while it is mapped raises SIGBUS, as
// every mapping does. Tables are written once and unlinked, never truncated;
// whoever must survive even that calls [runtime/debug.SetPanicOnFault].
//
// # Limits
//
// 2^32-1 inodes and names, 4 GiB of each section, names of 255 bytes, symbolic
// link targets of 4095 bytes, directories 4096 levels deep, bodies of 256 TiB.
package tree
