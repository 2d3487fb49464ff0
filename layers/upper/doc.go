// Package upper reads and writes the writable layer of a container as it lies on
// the disk. The form is that of kernel overlayfs, so that the kernel can be given
// the same directory; everything that the kernel has no place for sits in extended
// attributes that it hides. This package is the only one that knows their names.
//
// # The form
//
// <prefix> is trusted.overlay. in the store of root and user.overlay. in that of an
// ordinary user, as overlayfs has it with the mount option userxattr.
//
//	character device 0:0   whiteout: the name is deleted in the layers below
//	<prefix>opaque         "y" on a directory: nothing below is merged with it
//	<prefix>redirect       on a directory or metacopy: the path below, from the root
//	                       when it begins with a slash, else a name in the same directory
//	<prefix>metacopy       on a regular file: its content is still that of the file below
//	<prefix>layerfs        override: what the file is to the container, where the host
//	                       cannot hold it, as uid:gid:mode:major:minor (mode in octal)
//	<prefix>layerfs.origin layer:inode of the file below that was copied up
//	<prefix>layerfs.x.NAME the attribute NAME, which the host does not let the user set
//
// # Owners
//
// The owner of a file is that of its override. Without one it is the owner on the
// host: for root as it is; in the store of an ordinary user, the user himself is 0
// and his subordinate IDs are 1 and up.
//
// # Placeholders
//
// What cannot carry an attribute of the user's (a device, and a symbolic link, pipe
// or socket that belongs to somebody else than 0) is a regular file with an override
// that says what it is. The target of such a symbolic link is its content. A file
// whose mode would keep its owner out has more permissions on the host than its
// override says.
//
// # fuse-only
//
// The kernel would misread placeholders, would not know of overrides and of attributes
// that are kept under another name, and with userxattr refuses redirects and metacopies.
// Before the first of them is made in an upper directory,
// [MarkFuseOnly] writes down that only layerfs may read it from now on.
package upper
