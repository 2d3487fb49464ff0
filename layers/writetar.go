package layers

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerfs/layerfs/index/tree"
	"github.com/layerfs/layerfs/tarsplit"
)

// WriteTar writes the exact uncompressed tar of the layer to w and compares its
// digest meanwhile: when it returns nil, what was written has the DiffID; a store
// that is at fault gives ErrDamaged, after the bytes have been written. Into a pipe
// (an *os.File) the contents of files go without being copied.
func (l *Layer) WriteTar(ctx context.Context, w io.Writer) (err error) {
	bodies := &wholeBodies{layerBodies: layerBodies{l}}
	defer bodies.unmapAll()
	return l.join(bodies, func(r *tarsplit.Reader) error {
		v := newHashWriter(ctx, w, bodies)
		_, err := r.WriteTo(v)
		if err == nil {
			err = v.drain()
		}
		got, hashErr := v.sum()
		if err == nil && hashErr != nil {
			err = fmt.Errorf("layer %s: %w: %w", l.DiffID, ErrDamaged, hashErr)
		}
		if err == nil && got != digest.Digest(l.DiffID) {
			err = fmt.Errorf("%w: the tar came out with the digest %s, not %s; run `layerfs check`", ErrDamaged, got, l.DiffID)
		}
		return err
	})
}

// WriteTarUnverified is WriteTar for who compares the digest of what was written himself,
// because that can be done at another time.
func (l *Layer) WriteTarUnverified(ctx context.Context, w io.Writer) error {
	return l.join(layerBodies{l}, func(r *tarsplit.Reader) error {
		_, err := r.WriteTo(&ctxWriter{ctx, w})
		return err
	})
}

// join calls fn with what puts the tar together out of bodies.
func (l *Layer) join(bodies tarsplit.Bodies, fn func(*tarsplit.Reader) error) error {
	f, _, err := l.openTar()
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := tarsplit.Open(f, info.Size(), bodies)
	if err != nil {
		return fmt.Errorf("%w: layer %s: split metadata: %w", ErrDamaged, l.DiffID, err)
	}
	return fn(r)
}

// wholeBodies gives the bodies of a layer for reading all of them once, in order:
// the large ones are mapped, each until it is hashed.
type wholeBodies struct {
	layerBodies
	mapped [][]byte // not yet handed to the hasher
}

// A mappedBody is an object that is mapped into memory.
type mappedBody struct {
	bodyReader
	data []byte
}

// Bytes implements tarsplit.BytesBody.
func (b *mappedBody) Bytes() []byte { return b.data }

// Body implements tarsplit.Bodies.
func (b *wholeBodies) Body(sum tarsplit.Sum, size int64) (io.ReaderAt, error) {
	body, err := b.layerBodies.Body(sum, size)
	r, object := body.(*bodyReader)
	if _, elsewhere := b.l.from.(*graphContents); err != nil || !object || size == 0 || elsewhere {
		return body, err
	}
	data, err := b.mapObject(r.body)
	if err != nil {
		return nil, err
	}
	b.mapped = append(b.mapped, data)
	return &mappedBody{*r, data}, nil
}

func (b *wholeBodies) mapObject(body tree.Body) ([]byte, error) {
	f, err := b.l.s.blobs.OpenObject(body.Sum)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer f.Close() // it was only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() != body.Size {
		return nil, fmt.Errorf("%w: body %x has %d bytes instead of %d; run `layerfs check`", ErrDamaged, body.Sum, st.Size(), body.Size)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(body.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map body %x: %w", body.Sum, err)
	}
	return data, nil
}

// take gives the mapping that begins with p away; nil when p is no mapping.
func (b *wholeBodies) take(p []byte) []byte {
	for i, data := range b.mapped {
		if &data[0] == &p[0] {
			b.mapped = append(b.mapped[:i], b.mapped[i+1:]...)
			return data
		}
	}
	return nil
}

func (b *wholeBodies) unmapAll() {
	for _, data := range b.mapped {
		_ = unix.Munmap(data) // cannot fail for what Mmap returned
	}
	b.mapped = nil
}

// A ctxWriter stops writing when its context ends.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w *ctxWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

var errUnreadable = errors.New("content cannot be read from the disk; run `layerfs check`")
