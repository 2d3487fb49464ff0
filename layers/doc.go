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
// # Layer records
//
// Layers themselves are content: what has the same DiffID is the same layer, however
// often it is used. A layer *record* is a place on top of a stack of layers, with an
// ID of its own, a parent, names, metadata, flags and big data: what
// containers/storage calls a layer. It is created empty, and one tar may be applied to
// it. The beginnings of the stacks of images and containers are such places too; they
// have no record and the ChainID for an ID, so that a layer can be made on top of any
// image, and get a record when somebody gives them a name. See [LayerNode].
//
// # Additional stores
//
// A store can be opened with others that are only read, see [Options.Additional]:
// layerfs stores, and graph roots of containers/storage. What looks for an image, a
// layer or a blob searches them after the store itself, in their order; what lists
// shows what they have and the store has not. Whoever wants to change something of
// theirs gets [ErrReadOnly]. A layer that only they have is borrowed when an image or
// a container is made on it: the store gets a record of it that says where it lies,
// and no content. A store that is not there is left out and tried again each time; what
// is borrowed from it gives [ErrStoreGone] meanwhile.
//
// # Leases and collection
//
// What no record leads to is garbage, and [Store.GC] frees it while everything else
// goes on. What somebody works with before a record leads to it he holds with a
// [Lease]; every import has one. A collection changes nothing but in transactions in
// which it has read the records and the leases as they are then.
//
// # Lock order
//
//	squeeze.lock         exclusive for squeezing
//	gc.lock              exclusive, by the one collection
//	  leases/<lease>     flocked by the one who holds it, an import for example
//	  tmp/<import>       flocked by its importer
//	  containers/<id>    flocked by the one who writes into the container, makes it or removes it; nobody waits for it
//	    index.lock       see package index; held for one transaction, never across I/O on bodies
//	      cache/graphroot-<key>  a store of its own, for a graph root: all of this again
//	      layers/<diffid>/tree   shared flock of those who have the layer open; collection tries it exclusively and never waits
//
// Readers take none of these but index.lock for the moment of a look-up, and the
// shared flock on the trees that they have open. Nobody waits for a collection but
// another collection.
package layers
