// Package layers is the front door of a layerfs store: it loads images, lists,
// names, removes, checks and opens them.
//
// # Words
//
// A blob is a sequence of bytes named by its digest: a manifest, a config, a
// compressed layer as received. A body is the content of one regular file; the
// store keeps it once, whatever number of layers hold it. A layer is one change
// set, named by its [DiffID], the sha256 of its uncompressed tar. A stack is an
// ordered list of layers, bottom first, named by its [ChainID]. A layer's tree is
// the table of its own files; the union of the trees of a stack is what an image
// shows. An image is a record over a stack, named by the digest of its config; a
// name is a normalized reference to it. A container is a record that pins an image
// and owns one writable layer over its stack: a directory of the host.
//
// # What is visible when
//
// Everything that an operation makes is first written and synced under a name
// that nobody looks at, then renamed, and the index transaction that makes it
// visible comes last. A process that is killed at any moment leaves the state
// before or the state after. What it left behind under tmp/ is flocked while its
// owner lives, so that the next writer can tell and remove it.
//
// # Lock order
//
//	import.lock          shared by everybody who adds, exclusive for collection
//	  tmp/<import>       flocked by its importer
//	  containers/<id>    flocked by the one who writes into the container, makes it or removes it; nobody waits for it
//	    index.lock       see package index; held for one transaction, never across I/O on bodies
//	      layers/<diffid>/tree   shared flock of those who have the layer open; collection tries it exclusively and never waits
//
// Readers take none of these but index.lock for the moment of a look-up, and the
// shared flock on the trees that they have open.
package layers
