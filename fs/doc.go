// Package fs shows a store as a file system (FUSE) and does nothing else: it translates between the kernel's requests and
// packages layers, union, overlay and tree. Images are served by one connection, which is read-only; containers by
// another, which is mounted elsewhere (containers.go).
//
//	<mnt>/
//	  images/<name>@<tag>/          one per image name: every ':' of the name is written '@'
//	  images/by-id/<64 hex>/        one per image
//	      rootfs/                   the merged tree
//	      config.json manifest.json the bytes as received
//	      docker.tar                the docker-archive that saving gives
//	      layers/01-<diffid 12> ... symlinks into layers/sha256, bottom first
//	      oci/                      an OCI image layout with this image, under its tag
//	  layers/sha256/<diffid>/
//	      diff/                     the layer alone, whiteouts as overlayfs keeps them
//	      layer.tar                 the exact uncompressed tar, put together while it is read
//	      info.json
//	  oci/                          an OCI image layout with all images, under their full names
//	  containers                    a symbolic link to where the containers are mounted: <name>/rootfs, changes, diff.tar ...
//	  .layerfs/status.json          what is mounted and what it has done
//
// # Words
//
// A view is one image directory: an image under one of its names, or under its ID. A layer or view is live while the
// store's catalogue lists it, and lingers while only the kernel still remembers files of it. A snapshot is the fixed
// picture of all of them that a request works with.
//
// # How it is fast
//
// A round trip between kernel and server costs more than everything else together, so the kernel is told to remember
// names, attributes, directories, symbolic links, content and absence without limit, and not to tell us of opened and
// closed files at all. Images never change; when the catalogue does, a goroutine of its own makes the kernel forget the
// names concerned (keeper.go).
//
// Inode numbers are computed (inode.go). The server keeps nothing per file that the kernel has seen, only one counter
// per layer and per view of how many files of it the kernel remembers, to know when a removed layer may be let go.
//
// # Locks
//
// Requests take none of ours on their way to a file of an image: the snapshot is an atomic pointer. The others, of
// which no two are held at once except as drawn:
//
//	keeper (one goroutine)            changes snapshots, sends notifications, closes layers
//	  image.mu                        the first use of an image opens its layers
//	    layer.mu                      the first use of a layer opens it
//	status.mu, passthrough.mu         in OPEN, RELEASE and the look-up of status.json
//
// A layer is closed only after it left the snapshot and every request that had begun before is answered (wire
// Conn.Quiesce), so a request can use what it finds in its snapshot until it is done.
package fs
