package layers

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Source is one image somewhere outside the store: in an archive, a layout
// directory, a registry. What it returns is not believed until it is verified.
type Source interface {
	// Manifest returns the bytes of the image's manifest and its descriptor.
	Manifest(ctx context.Context) ([]byte, ocispec.Descriptor, error)
	// Blob opens a blob that the manifest names. The caller closes it.
	Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// An Announced source wants to know early which layers will be read, so that it can
// fetch several at once.
type Announced interface {
	// Announce is called once with the layers of the manifest that the store does not
	// have, in the order in which they will be opened.
	Announce(layers []ocispec.Descriptor)
}

// LoadOptions change how an image is loaded; nil means the defaults.
type LoadOptions struct {
	// Names are given to the image; they are normalized, and a name that another
	// image holds moves.
	Names []string
	// Indexes are the documents of the indexes through which the image's manifest was
	// found. They are kept with it, and repository@digest finds the image by them.
	Indexes [][]byte
	// MaxBytes limits the sum of the uncompressed layers that are read; 0 means no
	// limit. A larger image is refused with ErrTooLarge.
	MaxBytes int64
	// DropBlobs does without the compressed layers as they came. The image then takes
	// less space, but goes out with other digests than those that it came in with.
	DropBlobs bool
	// Progress is called, from several goroutines, as the load proceeds.
	Progress func(Progress)
}

// A Progress tells how far one layer has come.
type Progress struct {
	Layer DiffID
	// Index is the layer's place in the stack, 0 at the bottom, of Count.
	Index, Count int
	// Read counts the bytes of the (compressed) blob so far, of Total; Total is -1
	// when it is unknown.
	Read, Total int64
	// Done is set once, when the layer has been read; Known with it when the store
	// had the layer already.
	Done, Known bool
}
