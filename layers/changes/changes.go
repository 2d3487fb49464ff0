// Package changes compares two merged trees without a mount: it lists what differs, and
// writes the tar of an image layer that leads from one to the other.
//
// A tree is a [View]: layers, below the writable layer of a container or alone. When the
// second view is the very Stack of the first without the writable layer, only the
// writable layer is looked at, and every file in it counts as a change. Other views are
// walked side by side; directories that are made up of the same trees are passed over,
// and contents are compared by digest where both have one.
//
// A walk keeps the directories on the way and nothing else, and of the tar the names of
// files with several links.
package changes

import (
	"context"
	"errors"
	"io"
)

var (
	// ErrReservedName is returned when a file cannot be written into the tar of a layer,
	// because its name would mean something else there.
	ErrReservedName = errors.New("a layer cannot hold a name")
	// ErrNoContent is returned when a file of a writable layer has its content from the
	// layers below, and they do not have it.
	ErrNoContent = errors.New("no content")
)

// A Kind says what happened to a path; its letter is that of podman and docker.
type Kind byte

const (
	Unset    Kind = 0   // no change
	Added    Kind = 'A' // there was nothing
	Modified Kind = 'C' // content, attributes or, of a directory, something in it
	Deleted  Kind = 'D' // there is nothing any more
)

// String returns the letter.
func (k Kind) String() string { return string(rune(k)) }

// A Change is one step from one tree to another.
type Change struct {
	Kind Kind
	Path string // absolute
}

// String returns the change as podman and docker print it.
func (c Change) String() string { return c.Kind.String() + " " + c.Path }

// List calls fn for each change that leads from y to x. A directory comes before what is
// in it, deleted names of a directory before the others. When fn returns an error, that
// ends the walk.
func List(ctx context.Context, x, y *View, fn func(Change) error) error {
	return walk(ctx, x, y, func(c *step) error {
		if c.path == "" && c.touched {
			return nil // only the time of the root has changed
		}
		return fn(Change{c.kind, "/" + c.path})
	})
}

// Written says what came into a tar.
type Written struct {
	Changes int // how many; 0: the tar is empty
	// Torn are files of the writable layer that were being written while they were read:
	// what the tar has of them may be a mix of before and after.
	Torn []string
}

// WriteTar writes the tar of the layer that leads from y to x.
func WriteTar(ctx context.Context, w io.Writer, x, y *View) (*Written, error) {
	return newTarWriter(x, w).write(ctx, y)
}

// TarSize returns the number of bytes that WriteTar would write. No content of a file is
// read for it.
func TarSize(ctx context.Context, x, y *View) (int64, error) {
	t := newTarSizer(x)
	_, err := t.write(ctx, y)
	return t.size, err
}

// WriteTree writes the whole of a view as a tar, the root directory first.
func WriteTree(ctx context.Context, w io.Writer, v *View) (*Written, error) {
	t := newTarWriter(v, w)
	t.rootfs = true
	return t.write(ctx, &View{})
}
