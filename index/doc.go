// Package index is the store's catalogue: one bbolt file, index.db, that holds
// everything about a store that changes.
//
// # Words
//
// A layer is one change set, named by its DiffID. An image is a record over a
// stack of layers, named by the digest of its config. A name is a normalized
// reference that points to a manifest and so to an image. A body is the content
// of one regular file; the index says in which file of the store it lies. A
// container is a record that pins an image and owns a writable layer. A slot is a
// small number that the index gives to a layer, an image, a name or a container
// once and never again; the file system computes inode numbers from it.
//
// # Schema
//
// The top-level bucket carries the schema version, so that a program that does
// not know a version finds nothing it could misread:
//
//	v1
//	├── meta
//	│   ├── "generation"   8 bytes big endian, +1 per committed change of names, images, layers or containers
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
//	└── bodies
//	    └── <32 bytes sha256>   24 bytes [Body]: pack, offset, size; big endian
//
// # Locking
//
// The file is opened for each transaction and closed after it, so that any number
// of processes use it and none needs another. Two locks are taken, in this order:
//
//	index.lock   flock; shared by readers, exclusive for a writer, who writes his
//	             process ID and purpose into it so that others can name him
//	  index.db   bbolt's own flock; never contended by those who hold the first
//
// No transaction is held across the reading or writing of a body, a blob or a
// network stream.
package index
