// Package index is the store's catalogue: one bbolt file, index.db, that holds
// everything about a store that changes.
//
// # Words
//
// A layer is one change set, named by its DiffID. An image is a record over a
// stack of layers, named by the digest of its config. A name is a normalized
// reference that points to a manifest and so to an image. A body is the content
// of one regular file; the index says in which file of the store it lies. A form
// is one compressed form of a layer, as some image came with it. A container is a
// record that pins an image and owns a writable layer. A slot is a small number
// that the index gives to a layer, an image, a name or a container once and never
// again; the file system computes inode numbers from it. A layer record is a named
// place on top of a stack of layers. Data, or big data, are named blobs beside an
// image, a layer record or a container.
//
// # Schema
//
// The top-level bucket carries the schema version, so that a program that does
// not know a version finds nothing it could misread:
//
//	v1
//	├── meta
//	│   ├── "bodies"       [BodyStats]: objects, their bytes, packed bodies, their bytes; 8 bytes big endian each
//	│   ├── "generation"   8 bytes big endian, +1 per committed change of anything but bodies
//	│   ├── "slot.container"   8 bytes big endian, the last container slot given
//	│   ├── "slot.layer"   8 bytes big endian, the last layer slot given
//	│   └── "slot.view"    8 bytes big endian, the last image or name slot given
//	├── names
//	│   └── <normalized reference>   [Head], then JSON [Name]
//	├── images
//	│   └── <64 hex of the config's digest>   [Head], then JSON [Image]
//	├── layers
//	│   └── <64 hex of the DiffID>   [Head], then JSON [Layer]
//	├── containers
//	│   └── <64 hex ID>   [Head], then JSON [Container]
//	├── container.names
//	│   └── <name>   64 hex, the ID of the container that has it
//	├── layer.records
//	│   └── <64 hex, the ID>         [Head], then JSON [LayerRecord]
//	├── layer.names
//	│   └── <name>                   the ID of the layer record that has it
//	├── data
//	│   └── <i, l or c> <64 hex, the ID> <key, any bytes>   48 bytes [Data]: sha256, size, time in nanoseconds since 1970
//	├── bodies
//	│   └── <32 bytes sha256>   24 bytes [Body]: pack, offset, size; big endian
//	└── forms
//	    └── <32 bytes sha256 of the blob>   54 bytes [Form]: DiffID, number, size, how, stored, tried; big endian
//
// # When it is lost
//
// The journal beside it says the same again, without the bodies, and every change
// is added to it. [DB.Verify] compares the two; [DB.Rebuild] makes the one from the
// other. An index that has lost changes which the journal knows is refused.
//
// # Locking
//
// The file is opened for each transaction and closed after it, so that any number
// of processes use it and none needs another. Locks are taken in this order:
//
//	index.lock, byte 1      exclusive, by the one who writes; he puts his process ID
//	                        and purpose into the file so that others can name him
//	  index.lock, byte 0    shared by readers until they are in; exclusive by the
//	                        writer until the readers that were in have gone
//	    index.lock, flock   shared by readers, exclusive while something is changed
//	      index.db          bbolt's own flock; never contended by those who hold the others
//
// Byte 0 is what makes it fair: readers that wait for a writer all get in before the
// next writer does, so none waits longer than one transaction takes, however many
// processes write. Writers keep their transactions short; nobody holds one across the
// reading or writing of a body, a blob or a network stream. [DB.Compact] holds byte 1
// for as long as copying takes, but keeps readers out only for a rename.
package index
