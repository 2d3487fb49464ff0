// Package graphroot reads the graph roots of containers/storage, in which podman,
// buildah and CRI-O keep images. It never writes there, not even a lock file.
//
// # Layout
//
// Of a graph root with the overlay driver it reads
//
//	overlay-images/images.json                  the records of images
//	overlay-images/<id>/manifest                the manifest
//	overlay-images/<id>/=<base64 of a key>      other documents; the config has its digest as key
//	overlay-layers/layers.json                  the records of layers; each stands on one parent
//	overlay-layers/<id>.tar-split.gz            what is in the layer's tar beside the contents of files
//	overlay/<id>/diff/                          the files
//
// Both lists are replaced by renaming, so that one is always whole; that they fit
// together is checked by who uses them.
//
// # Trust
//
// A graph root may belong to somebody else. Names in it become paths only through
// openat2(2) below the directory of the layer, without following links.
package graphroot
